"""Charts of *Compare methods*: marks where the table says, labels that do not cover each other."""

from __future__ import annotations

import itertools

import pandas as pd
import pytest

from dashboard import figures
from dashboard.figures._labels import label_places

NAN = float("nan")


def test_ways_have_short_names_and_looks_of_their_own():
    names = [f"d-m{i}-of-t" for i in range(30)]
    found = figures.ways(
        {**{n: n for n in names}, "d-m0-of-t-s1": "d-m0-of-t", "d-kd-of-u": "u"}, names
    )
    assert len({(way.colour, way.symbol) for way in found.values()}) == 31
    assert found["d-m0-of-t"].label == "m0"
    assert found["d-m0-of-t"].students == ("d-m0-of-t", "d-m0-of-t-s1")
    # Another teacher's student keeps its name.
    assert found["u"].label == "d-kd-of-u"


def test_a_way_looks_the_same_whoever_else_is_drawn():
    recipes = {"d-a-of-t": "1", "d-b-of-t": "2", "d-c-of-u": "3"}
    own = ["d-a-of-t", "d-b-of-t"]
    assert figures.ways(recipes, own) == figures.ways(dict(reversed(recipes.items())), own)


def test_two_recipes_under_one_name_are_told_apart():
    found = figures.ways({"d-kd": "1", "d-kd-s1": "2", "d-kd-s2": "2", "d-kd-s3": "2"}, [])
    twins = figures.ways({"d-kd-a": "1", "d-kd-b": "1", "d-kd-c": "2", "d-kd-d": "2"}, [])
    assert [w.label for w in figures.ways({"mine1": "1", "mine2": "1"}, []).values()] == ["mine"]
    assert [way.label for way in found.values()] == ["d-kd", "d-kd (2)"]
    assert [way.label for way in twins.values()] == ["d-kd", "d-kd (2)"]


def board(x, y, x_name="clean_accuracy", y_name="gap_certified_mean"):
    rows = pd.DataFrame({"recipe": [f"r{i}" for i in range(len(x))], x_name: x, y_name: y})
    names = {f"digits-way{i}-of-t": f"r{i}" for i in range(len(x))}
    students = rows.assign(student=list(names))
    return rows, students, figures.ways(names, list(names))


def test_the_front_is_joined_and_the_unmeasured_left_out():
    rows, students, ways = board([0.9, 0.8, 0.7, NAN], [0.3, 0.2, 0.25, 0.1])
    chart = figures.pareto(rows, students, ways, "clean_accuracy", "gap_certified_mean")
    [line] = [trace for trace in chart.figure.data if trace.mode == "lines"]
    assert list(line.x) == [0.8, 0.9] and list(line.y) == [0.2, 0.3]
    marks = {
        trace.name: (trace.x[0], trace.y[0])
        for trace in chart.figure.data
        if trace.name and len(trace.x)
    }
    assert marks["way2"] == (0.7, 0.25) and "way3" not in marks
    assert chart.alt.count("on the front") == 2


def test_copies_are_drawn_but_on_no_front():
    rows, students, ways = board([0.9, 0.8, 0.95], [0.3, 0.2, 0.1])
    among = pd.Series([True, True, False])
    names = ("clean_accuracy", "gap_certified_mean")
    alone = figures.pareto(rows, students, ways, *names)
    assert not [trace for trace in alone.figure.data if trace.mode == "lines"]
    chart = figures.pareto(rows, students, ways, *names, among=among)
    [line] = [trace for trace in chart.figure.data if trace.mode == "lines"]
    assert list(line.x) == [0.8, 0.9]
    [copy] = [trace for trace in chart.figure.data if trace.name == "way2"]
    assert copy.hovertext[0].endswith("a copy of the teacher, not compared")


def test_costs_that_differ_by_factors_have_a_logarithmic_axis():
    rows, students, ways = board([1.0, 100.0], [0.3, 0.2], x_name="training_examples")
    chart = figures.pareto(rows, students, ways, "training_examples", "gap_certified_mean")
    assert chart.figure.layout.xaxis.type == "log"
    # Plotly places notes on such an axis by the power of ten.
    assert sorted(note.x for note in chart.figure.layout.annotations) == [0.0, 2.0]
    assert chart.figure.layout.yaxis.type == "linear"


def test_the_teachers_own_value_is_a_line():
    rows, students, ways = board([0.9, 0.8], [0.3, 0.2])
    rows = rows.assign(teacher_accuracy=0.95)
    chart = figures.pareto(rows, students, ways, "clean_accuracy", "gap_certified_mean")
    assert [shape.x0 for shape in chart.figure.layout.shapes] == [0.95]


def test_labels_of_a_crowd_cover_neither_marks_nor_each_other():
    x = [0.9 - 0.01 * (i % 5) for i in range(18)]
    y = [0.2 + 0.01 * (i // 3) for i in range(18)]
    rows, students, ways = board(x, y)
    names = ("clean_accuracy", "gap_certified_mean")
    is_front = pd.Series([i < 3 for i in range(18)])
    places = label_places(rows, students[:0], is_front, ways, *names, ("linear", "linear"), 400)
    placed = [i for i, place in enumerate(places) if place is not None]
    assert {0, 1, 2} <= set(placed) and len(placed) > 9
    left, low = min(x), min(y)
    for room in (270, 450):
        spots = {
            i: (
                (0.05 + 0.9 * (x[i] - left) / (max(x) - left)) * room + places[i][0],
                (0.05 + 0.9 * (y[i] - low) / (max(y) - low)) * 310 + places[i][1],
            )
            for i in placed
        }
        for a, b in itertools.combinations(placed, 2):
            width = 7.4 * (len(f"way{a}") + len(f"way{b}")) / 2
            assert abs(spots[a][0] - spots[b][0]) >= width - 1e-6 or (
                abs(spots[a][1] - spots[b][1]) >= 15 - 1e-6
            )


def test_a_copy_far_off_is_left_out_of_view_and_named():
    rows, students, ways = board([0.9, 0.8, 0.85, 0.95], [0.9, 0.95, 0.1, 0.92])
    among = pd.Series([True, True, False, False])
    names = ("clean_accuracy", "gap_certified_mean")
    assert figures.out_of_view(rows, *names, among) == (rows["recipe"].iloc[2],)
    chart = figures.pareto(rows, students, ways, *names, among=among)
    drawn = {trace.name for trace in chart.figure.data if trace.mode == "markers"}
    assert "way2" not in drawn and {"way0", "way1", "way3"} <= drawn
    # A copy that competes is in view, and so is one beside a single method.
    assert figures.out_of_view(rows, *names) == ()
    assert figures.out_of_view(rows[1:3], *names, among[1:3]) == ()


def test_seeds_are_dots_around_their_mean():
    methods = pd.DataFrame(
        {"recipe": ["a", "b"], "clean_accuracy": [0.8, NAN], "clean_accuracy_std": [0.1, NAN]}
    )
    students = pd.DataFrame(
        {
            "recipe": ["a", "a", "b"],
            "student": ["x", "x-s1", "y"],
            "clean_accuracy": [0.7, 0.9, NAN],
        }
    )
    ways = figures.ways({"x": "a", "x-s1": "a", "y": "b"}, ["x", "x-s1", "y"])
    chart = figures.seeds(methods, students, ways, "clean_accuracy")
    mean, dots = chart.figure.data
    assert list(mean.x) == [0.8] and list(mean.error_x.array) == [0.1]
    assert list(dots.x) == [0.7, 0.9] and set(dots.y) == set(mean.y)
    assert "80.0 ± 10.0 %" in chart.alt


def test_whiskers_end_where_the_figure_does():
    """0.9 -+ 0.14 of a share, and 0.05 -+ 0.1 of another: neither beyond 0 and 1."""
    methods = pd.DataFrame(
        {"recipe": ["a", "b"], "clean_accuracy": [0.9, 0.05], "clean_accuracy_std": [0.14, 0.1]}
    )
    students = pd.DataFrame({"recipe": ["a"], "student": ["x"], "clean_accuracy": [0.9]})
    ways = figures.ways({"x": "a", "y": "b"}, ["x", "y"])
    bars = figures.seeds(methods, students, ways, "clean_accuracy").figure.data[0].error_x
    assert list(bars.array) == pytest.approx([0.1, 0.1])
    assert list(bars.arrayminus) == pytest.approx([0.14, 0.05])
    # A number has no such ends.
    free, each = (
        table.rename(columns=lambda name: name.replace("clean_accuracy", "parameters"))
        for table in (methods, students)
    )
    bars = figures.seeds(free, each, ways, "parameters").figure.data[0].error_x
    assert list(bars.arrayminus) == [0.14, 0.1]


def test_names_of_one_recipe_that_have_nothing_in_common_are_called_by_the_first():
    recipes = {"d-kd-of-t": "r", "own": "r", "d-ard-of-t": "q"}
    found = figures.ways(recipes, ["d-kd-of-t", "d-ard-of-t", "own"])
    assert [way.label for way in found.values()] == ["ard", "kd"]
    assert found["r"].students == ("d-kd-of-t", "own")


def panel(label, certified, attack, mean, count):
    bins = pd.DataFrame({"gap_left": [0.0, 0.5], "gap_right": [0.5, 1.0]})
    return figures.Panel(
        label, bins.assign(count_certified=certified, count_attack=attack), mean, count
    )


def test_histograms_share_their_axes_and_count_shares():
    chart = figures.multiples(
        [panel("kd", [3, 1], [4, 0], 0.301, 4), panel("ard", [0, 0], [1, 1], None, 2)]
    )
    bars = [trace for trace in chart.figure.data if trace.type == "bar"]
    assert [list(bar.y) for bar in bars] == [[0.75, 0.25], [0.0, 0.0]]
    layout = chart.figure.layout
    assert layout.yaxis.range == layout.yaxis2.range == (0.0, 1.08)
    assert layout.xaxis.range == layout.xaxis2.range == (0.0, 1.0)
    titles = [note.text for note in layout.annotations]
    assert (
        titles[0].endswith("mean ≤\u00a0" + figures.bound(0.301)) and "no certificate" in titles[1]
    )
    # A mean is marked only where there is one.
    assert [shape.x0 for shape in layout.shapes] == [0.301]
    assert "ard mean unknown, no certificate" in chart.alt


def test_two_students_are_marked_by_who_is_proved_nearer():
    table = pd.DataFrame(
        {
            "index": [3, 5, 8],
            "gap_attack_a": [0.1, 0.4, 0.2],
            "gap_certified_a": [0.2, 0.6, NAN],
            "gap_attack_b": [0.3, 0.1, 0.3],
            "gap_certified_b": [0.5, 0.2, 0.4],
            "better": ["a", "b", "open"],
        }
    )
    chart = figures.side_by_side(table, "gap_certified", first="one", second="two")
    marks = {t.name: list(t.customdata) for t in chart.figure.data if t.customdata is not None}
    assert marks == {"A proved closer to the teacher (1)": [3], "B proved closer (1)": [5]}
    assert "1 without a certificate are not drawn" in chart.alt
    found = figures.side_by_side(table, "gap_attack", first="one", second="two")
    assert sum(len(t.x) for t in found.figure.data[1:]) == 3
    assert figures.bracket_text(0.1239, NAN) == "0.123 to 1 (no certificate)"


@pytest.mark.parametrize(("at", "expected"), [("image", [0.2, 0.8]), ("witness", [0.5])])
def test_reliability_leaves_empty_bins_out(at, expected):
    bins = pd.DataFrame(
        {
            "at": ["image", "image", "image", "witness"],
            "teacher_conf": [0.1, NAN, 0.9, 0.7],
            "student_conf": [0.2, NAN, 0.8, 0.5],
            "count": [1, 0, 9, 3],
        }
    )
    way = next(iter(figures.ways({"kd": "1"}, ["kd"]).values()))
    chart = figures.reliability([(way, bins)], at)
    assert list(chart.figure.data[1].y) == expected
    assert max(chart.figure.data[1].marker.size) == chart.figure.data[1].marker.size[-1]


def test_lines_of_one_colour_are_told_apart_by_their_dashes():
    bins = pd.DataFrame(
        {"at": "image", "count": 1, "teacher_conf": [0.2, 0.8], "student_conf": [0.1, 0.9]}
    )
    names = {f"d-m{i}-of-t": f"r{i}" for i in range(8)}
    ways = figures.ways(names, list(names)).values()
    traces = figures.reliability([(way, bins) for way in ways], "image").figure.data[1:]
    looks = {(trace.line.color, trace.line.dash) for trace in traces}
    assert len(looks) == 8 > len({colour for colour, _ in looks})
