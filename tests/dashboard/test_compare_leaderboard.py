"""The leaderboard of *Compare methods*: shown as stored, seeds together or apart, measured by a run."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from dashboard import backend
from dashboard.views._leaderboard import _column, _listed, _ticked
from fkd.core.paths import models_dir
from fkd.evaluation import ScoresConfig, analyse, score_students, spread
from fkd.runs import KINDS
from tests.dashboard.conftest import run_record
from tests.support.pairs import save_digits_copy, save_digits_model

#: Cheap groups: nothing is attacked.
GROUPS = ["retention", "cost"]
SEEDS = ["tiny-twin", "tiny-twin-s1"]


def trained(name: str, seed: int, pair: dict) -> None:
    """A student whose card tells how it was trained."""
    save_digits_model(
        name,
        "student",
        hidden=(8,),
        seed=seed,
        teacher={"name": pair["teacher"], "model_hash": ""},
        training_config={"name": name, "seed": seed, "epochs": 1},
        history=[{"epoch": 1.0, "examples": 100.0 + 20.0 * seed}],
        seconds=2.0 + seed,
    )


@pytest.fixture
def three(pair) -> dict[str, object]:
    """The address at which the pair's student is compared with two seeds of one recipe."""
    for seed, name in enumerate(SEEDS):
        trained(name, seed, pair)
    return pair


@pytest.fixture
def measured(three, choice) -> pd.DataFrame:
    """The leaderboard with the figures of some groups stored."""
    names = [*SEEDS, "tiny-student"]
    configs = [
        ScoresConfig(**choice.but(student=name).config().model_dump(), groups=GROUPS)
        for name in names
    ]
    return score_students(configs, device="cpu").set_index("student")


def tables(session) -> list[pd.DataFrame]:
    """Leaderboards on the page."""
    return [one.value for one in session.app.dataframe if "name" in one.value]


def test_seeds_are_one_row_with_their_mean_and_apart_one_each(opened, three, measured, choice):
    session = opened("compare", **three, figures="Cost", order="examples trained on").check()
    [shown] = tables(session)
    assert shown["name"].tolist() == ["twin", "student"] and shown["seeds"].tolist() == [2, 1]
    mean = measured.loc[SEEDS, "training_seconds"].mean()
    assert shown["training_seconds"].iloc[0] == pytest.approx(mean) == 2.5
    # Nobody trained the other one: it has no time and comes last.
    assert np.isnan(shown["training_seconds"].iloc[1])
    apart = opened(
        "compare", **three, figures="Cost", order="examples trained on", together="false"
    )
    [shown] = tables(apart.check())
    assert shown["name"].tolist() == ["twin", "twin-s1", "student"]
    assert shown["training_seconds"].tolist()[:2] == [2.0, 3.0]
    assert shown["method"].tolist() == ["kd"] * 3


def test_what_analyses_tell_is_shown_before_anything_is_measured(opened, pair, choice):
    session = opened("compare", **pair).check()
    [shown] = tables(session)
    table = backend.find(choice).analysis.table
    assert shown["gap_certified_mean"].tolist() == [pytest.approx(table.gap_certified.mean())]
    assert "clean_accuracy" not in shown
    assert "Not measured in all figures" in session.text


def test_the_button_starts_a_run_of_those_that_are_missing(opened, three, choice, asked):
    session = opened("compare", **three).check()
    assert asked == []
    [button] = session.buttons("Measure 3 students")
    button.click()
    session.rerun().check()
    [(kind, spec)] = asked
    assert kind == "score" and set(spec["students"]) == {*SEEDS, "tiny-student"}
    assert KINDS.get(kind)().check(spec) == spec


def test_a_run_of_more_students_than_are_missing_now_is_watched(opened, three, choice, standing):
    spec = backend.scores_spec(choice, ["tiny-student"])
    record = run_record("score", choice.config(), "running", stage="figures", done=1, total=9)
    standing(replace(record, spec={**spec, "students": ["tiny-gone", *SEEDS]}))
    session = opened("compare", **three).check()
    assert session.buttons("Cancel") and not session.buttons("Measure 3 students")
    # Another ball's run is none of this one's.
    other = {**spec, "epsilon": 0.3, "students": SEEDS}
    standing(replace(record, spec=other))
    session = opened("compare", **three).check()
    assert session.buttons("Measure 3 students") and not session.buttons("Cancel")


def test_a_radius_at_which_all_is_measured_is_one_click_away(opened, pair, choice, monkeypatch):
    monkeypatch.setattr("dashboard.backend.scores._is_complete", lambda other: True)
    session = opened("compare", **{**pair, "epsilon": 0.07}).check()
    [button] = session.buttons("ε\u00a0=\u00a00.05")
    button.click()
    session.rerun().check()
    assert session.app.session_state["epsilon"] == "0.05"
    assert not session.buttons("ε\u00a0=\u00a00.05") and tables(session)
    assert backend.measured_radii(choice.but(count=3, epsilon=0.07), ["tiny-student"]) == ()


def test_a_radius_without_figures_is_not_offered(opened, pair):
    session = opened("compare", **{**pair, "epsilon": 0.07}).check()
    assert not [b for b in session.app.button if b.label.startswith("ε")]


def test_a_read_only_server_shows_and_starts_nothing(opened, three, monkeypatch):
    monkeypatch.setenv("FKD_READ_ONLY", "1")
    session = opened("compare", **three).check()
    assert "so it starts no measurement" in session.text
    assert not session.buttons("Measure 3 students") and tables(session)


def test_methods_and_students_can_be_left_out(opened, three):
    session = opened("compare", **three, students="tiny-twin-s1").check()
    [shown] = [m for m in session.app.multiselect if m.label == "Students"]
    assert shown.value == ["tiny-twin-s1"]
    assert "tiny-twin-s1" in session.text and "tiny-student," not in session.text
    everyone = opened("compare", **three).check()
    assert [m.value for m in everyone.app.multiselect if m.label == "Methods"] == [[]]


def test_files_hold_what_is_shown_in_its_order(measured, choice, three):
    board = backend.board(choice, [*SEEDS, "tiny-student"])
    rows = backend.ranked(board.methods, "training_seconds")
    figures = ["training_seconds", "flops"]
    names = ["twins", "alone"]

    def file(suffix: str) -> bytes:
        return backend.leaderboard_file(choice, rows, figures, suffix, names=names)

    read = pd.read_csv(io.BytesIO(file(".csv")))
    assert list(read)[:6] == ["name", "dataset", "norm", "epsilon", "count", "certificate"]
    assert read["name"].tolist() == names and set(read["epsilon"]) == {choice.epsilon}
    assert [name for name in read if name.startswith(("training", "flops", "size"))] == [
        "training_seconds",
        "training_seconds_std",
        "flops",
        "flops_std",
    ]
    assert read["seeds"].tolist() == [2, 1]
    parquet = pd.read_parquet(io.BytesIO(file(".parquet")))
    assert parquet["recipe"].tolist() == rows["recipe"].tolist()
    latex = file(".tex").decode()
    assert r"\toprule" in latex and "training time" in latex and "file size" not in latex
    # Two settings of one method have its name in common, the page's names they have not.
    assert "twins &" in latex and latex.startswith(f"% Students of {choice.teacher} on the first ")


def test_the_board_is_kept_until_something_is_measured(measured, choice, three):
    names = [*SEEDS, "tiny-student"]
    first = backend.board(choice, names)
    assert backend.board(choice, names) is first
    pd.testing.assert_frame_equal(first.methods, spread(first.students))
    assert first.unanalysed == tuple(SEEDS)
    config = ScoresConfig(**choice.config().model_dump(), groups=["fidelity"])
    score_students([config], device="cpu")
    assert backend.board(choice, names) is not first


def test_a_student_that_went_away_is_no_error(opened, three):
    card = models_dir() / SEEDS[1] / "card.json"
    card.write_text("{ not json")
    session = opened("compare", **three).check()
    assert session.errors == [] and [t["name"].tolist() for t in tables(session)]


def test_cells_with_equal_means_and_other_spreads_keep_their_own_texts():
    figure = backend.score_figures()["clean_accuracy"]
    numbers, text = _column(
        figure, pd.Series([0.5, 0.5, 0.25]), pd.Series([0.01, 0.02, float("nan")])
    )
    assert [text(value) for value in numbers] == ["50.0 ± 1.0 %", "50.0 ± 2.0 %", "25.0 %"]
    assert numbers == pytest.approx([0.5, 0.5, 0.25], abs=1e-9)


def test_copies_compete_only_when_asked(opened, three, measured):
    assert not [t for t in opened("compare", **three).check().app.toggle if "Copies" in t.label]
    save_digits_copy("tiny-rounded", three["teacher"])
    session = opened("compare", **three).check()
    [toggle] = [t for t in session.app.toggle if t.label == "Copies compete"]
    assert toggle.value is False and "drawn but not compared" in session.text
    asked = opened("compare", **three, copies="true").check()
    assert "drawn but not compared" not in asked.text


def test_a_seed_that_is_not_measured_hides_nothing_of_its_method(opened, three, choice):
    config = ScoresConfig(**choice.but(student=SEEDS[0]).config().model_dump(), groups=GROUPS)
    score_students([config], device="cpu")
    session = opened("compare", **three, figures="Cost").check()
    [shown] = tables(session)
    shown = shown.set_index("name")
    # What is known of the seed that is measured; what the cards tell is there of the others.
    assert shown.loc["twin", "seeds"] == "1 of 2" and shown.loc["student", "seeds"] == "1"
    assert shown.loc["twin", "flops"] > 0 and np.isnan(shown.loc["student", "flops"])
    assert shown["parameters"].notna().all()
    assert "Of 1 method not all seeds are measured here" in session.text
    [shown] = tables(opened("compare", **three, figures="Cost", together="false").check())
    assert shown["flops"].notna().tolist().count(True) == 1
    assert shown["parameters"].notna().all()


def test_plots_of_single_students_have_a_mark_each(opened, three, measured):
    axes = {"first_x": "examples trained on", "first_y": "parameters"}
    session = opened("compare", **three, **axes, together="false").check()
    charts = [json.loads(chart.proto.spec) for chart in session.app.get("plotly_chart")]
    names = {trace.get("name") for chart in charts for trace in chart["data"]}
    assert {"twin", "twin-s1"} <= names
    assert "One mark a student." in session.text and "mean over its seeds" not in session.text
    together = opened("compare", **three, **axes).check()
    charts = [json.loads(chart.proto.spec) for chart in together.app.get("plotly_chart")]
    names = {trace.get("name") for chart in charts for trace in chart["data"]}
    assert "twin" in names and "twin-s1" not in names


def test_long_lists_of_names_are_cut():
    assert _listed(["a", "b"]) == "a, b"
    assert _listed(list("abcdefghij")) == "a, b, c, d, e, f, g, h and 2 more"


def test_two_figures_against_each_other_name_who_is_left_out(opened, three, measured):
    axes = {"first_x": "examples trained on", "first_y": "parameters"}
    session = opened("compare", **three, **axes).check()
    [chart] = [
        chart
        for chart in (json.loads(c.proto.spec) for c in session.app.get("plotly_chart"))
        if "parameters" in chart["layout"]["yaxis"]["title"]["text"]
    ]
    named = [note["text"] for note in chart["layout"]["annotations"]]
    assert named == ["twin"] and "twin" in [trace["name"] for trace in chart["data"]]
    assert "Not measured in both: student." in session.text
    twice = dict.fromkeys(("first_x", "first_y"), "examples trained on")
    same = opened("compare", **three, **twice).check()
    assert "Choose two different figures." in same.text


@pytest.fixture
def elsewhere(pair, choice, monkeypatch) -> dict[str, object]:
    """The pair's address without a radius; its figures are stored at 0.1, not where pages open."""
    analyse(choice.but(epsilon=0.1).config(), device="cpu")
    monkeypatch.setattr("dashboard.backend.scores._is_complete", lambda other: other.epsilon == 0.1)
    return {name: value for name, value in pair.items() if name != "epsilon"}


def test_without_a_radius_the_page_opens_where_figures_are_stored(opened, elsewhere):
    session = opened("gaps", **elsewhere).check()
    usual = session.app.session_state["epsilon"]
    assert usual == "0.05"
    session.page("compare").check()
    assert session.app.session_state["epsilon"] == "0.1"
    assert session.app.query_params["epsilon"] == "0.1"
    assert "where the figures of this teacher's students are stored" in session.text
    [button] = session.buttons("Back to ε\u00a0=\u00a00.05")
    button.click()
    session.rerun().check()
    # It stays where it was put, also on the way back from another page.
    for page in ("gaps", "compare"):
        session.page(page).check()
        assert session.app.session_state["epsilon"] == usual
    assert "where the figures" not in session.text
    # Whoever opens this address gets this view, not the move to another radius.
    assert session.app.query_params["epsilon"] == usual


def test_a_link_that_cannot_be_followed_is_told_of_where_the_page_moves(opened, elsewhere):
    elsewhere |= {"student": "gone", "order": "beauty", "part": "Attic", "students": "gone"}
    session = opened("compare", **elsewhere).check()
    assert session.app.session_state["epsilon"] == "0.1"
    told = "\n".join(session.warnings)
    assert "The link asks for the student “gone”, which cannot be used; this is" in told
    for sentence in ("order “beauty”", "section “Attic”", "students “gone”"):
        assert f"The link asks for the {sentence}, which cannot be used." in told
    assert not session.rerun().warnings


def test_a_radius_that_was_asked_for_stays(opened, elsewhere):
    session = opened("compare", **elsewhere, epsilon=0.05).check()
    assert session.app.session_state["epsilon"] == "0.05"
    assert not session.buttons("Back to ε\u00a0=\u00a00.05")
    # One that is measured is a click away all the same.
    assert session.buttons("ε\u00a0=\u00a00.1")


def test_where_nothing_is_stored_the_page_stays_at_the_usual_radius(opened, pair, choice):
    query = {name: value for name, value in pair.items() if name != "epsilon"}
    session = opened("compare", **query).check()
    assert session.app.session_state["epsilon"] == "0.05"
    assert backend.stored_radius(choice) is None


def test_cells_without_a_figure_say_why(opened, three, measured, choice):
    def said(**query: object) -> str:
        session = opened("compare", **three, **query).check()
        [table] = [one for one in session.app.dataframe if "name" in one.value]
        assert table.value.isna().any(axis=None)
        return table.proto.placeholder

    # Nobody trained the pair's student here, and it alone is analysed.
    assert said(figures="Cost") == "no figure"
    assert said(order="parameters", figures="Cost") == "none"
    assert said(figures="Faithfulness", order="parameters") == "not measured"


def test_ticks_choose_the_student_of_all_pages_and_the_other_one(three, monkeypatch):
    state: dict = {}
    monkeypatch.setattr("streamlit.session_state", state)
    picked = SimpleNamespace(shown=("a", "b", "c"), together=False, order="flops")

    def tick(*rows: int) -> None:
        state["leaderboard_False_flops"] = {"selection": {"rows": list(rows), "columns": []}}
        _ticked(picked)

    tick(2)
    assert state["student"] == "c" and "other" not in state
    # The table tells of ticked rows from top to bottom, not in the order in which they were.
    tick(0, 2)
    assert (state["student"], state["other"]) == ("c", "a")
    tick(0, 1, 2)
    assert (state["student"], state["other"]) == ("c", "b")
    tick(0, 1)
    assert (state["student"], state["other"]) == ("a", "b")
