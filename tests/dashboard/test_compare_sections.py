"""Sections of *Compare methods* beside the leaderboard: gaps, seeds, two students, confidence."""

from __future__ import annotations

import json

import pytest

from dashboard import backend
from fkd.evaluation import ScoresConfig, analyse, score_students, side_by_side
from tests.dashboard.conftest import COUNT
from tests.support.pairs import save_digits_copy, save_digits_model

OTHER = "tiny-other"
SECTIONS = ["Gaps", "Seeds", "Two students", "Confidence", "Carried over", "Settings"]


@pytest.fixture
def two(pair) -> dict[str, object]:
    """The address at which the pair's student stands beside one that is not analysed."""
    save_digits_model(
        OTHER,
        "student",
        hidden=(8,),
        seed=3,
        teacher={"name": pair["teacher"], "model_hash": ""},
        history=[{"epoch": 1.0}],
    )
    return pair


@pytest.fixture
def both(two, choice) -> dict[str, object]:
    """The same with both analysed."""
    analyse(choice.but(student=OTHER).config(), device="cpu")
    return two


def specs(session) -> list[dict]:
    return [json.loads(chart.proto.spec) for chart in session.app.get("plotly_chart")]


@pytest.mark.parametrize("part", SECTIONS)
def test_every_section_draws_where_little_is_stored(opened, two, part):
    session = opened("compare", **two, part=part).check()
    assert session.errors == []
    chosen = {
        "Gaps": "Not analysed yet",
        "Seeds": "have one student alone",
        "Two students": f"Not analysed yet: {OTHER}",
        "Confidence": "No bins are stored",
        "Carried over": "are tried on the others",
        "Settings": "What sets these students apart",
    }
    assert chosen[part] in session.text
    # Only the open section is drawn.
    others = set(chosen.values()) - {chosen[part], "Not analysed yet"}
    assert not [said for said in others if said in session.text]


def test_gaps_draw_who_is_analysed_and_offer_the_others(opened, two, choice, asked):
    session = opened("compare", **two, part="Gaps").check()
    _, agreement, histograms = specs(session)
    assert len(agreement["data"][0]["y"]) == 1
    # All images are in some bin of each of the two histograms.
    filled, outline = histograms["data"]
    assert sum(filled["y"]) == pytest.approx(1.0)
    assert sum(outline["y"][1:-1]) == pytest.approx(1.0)
    [button] = session.buttons("Analyse 1 student")
    button.click()
    session.rerun().check()
    assert [(kind, spec["student"]) for kind, spec in asked] == [("analyse", OTHER)]


def test_two_students_are_counted_as_their_tables_say(opened, both, choice):
    session = opened("compare", **both, part="Two students").check()
    tables = [
        backend.find(choice.but(student=name)).analysis.table for name in ("tiny-student", OTHER)
    ]
    table, counts = side_by_side(*tables)
    shown = {metric.label: metric.value for metric in session.app.metric}
    assert shown["Proved closer to the teacher"] == f"A {counts.proved_a} · B {counts.proved_b}"
    assert shown["Smaller gap found"] == f"A {counts.found_a} · B {counts.found_b}"
    [scatter] = specs(session)
    assert sum(len(t["x"]) for t in scatter["data"][1:]) == COUNT
    worst = int(table.nlargest(1, "apart")["index"].iloc[0])
    assert f"**Image {worst}**" in session.text
    links = [link.proto.query_string for link in session.app.get("page_link")]
    assert any(f"example={worst}" in link for link in links)


def test_choosing_a_chooses_it_for_all_pages(opened, both):
    session = opened("compare", **both, part="Two students").check()
    [box] = [box for box in session.app.selectbox if box.label == "A"]
    box.select(OTHER)
    session.rerun().check()
    assert session.app.session_state["student"] == OTHER
    [other] = [box for box in session.app.selectbox if box.label == "B"]
    assert other.value == "tiny-student"


def test_one_student_alone_cannot_be_compared_with_another(opened, pair):
    session = opened("compare", **pair, part="Two students").check()
    assert "Two students are needed" in session.text


def test_confidences_are_drawn_at_the_image_and_at_the_worst_point(opened, pair, choice):
    config = ScoresConfig(**choice.config().model_dump(), groups=["calibration"])
    score_students([config], device="cpu")
    session = opened("compare", **pair, part="Confidence").check()
    at_image, at_witness = specs(session)
    assert "at the image" in at_image["layout"]["xaxis"]["title"]["text"]
    bins = backend.reliability(backend.board(choice, ["tiny-student"]), ["tiny-student"])
    rows = bins[(bins["at"] == "witness") & (bins["count"] > 0)]
    assert at_witness["data"][1]["y"] == rows["student_conf"].tolist()
    assert rows["count"].sum() == COUNT


def test_every_copy_of_the_order_follows_one_choice(opened, both, choice):
    board = backend.board(choice, ["tiny-student", OTHER])
    for figure, order in (
        ("gap found, mean", "gap_attack_mean"),
        ("gap, clean, mean", "gap_clean_mean"),
    ):
        best = backend.ranked(board.students, order)["student"].iloc[0].removeprefix("tiny-")
        session = opened("compare", **both, part="Gaps", order=figure).check()
        assert specs(session)[1]["data"][0]["y"][0] == best


def test_settings_that_differ_are_told_once(two, choice):
    table = backend.card_differences(["tiny-student", OTHER], "digits")
    assert table.loc["architecture: hidden"].tolist() == ["[12]", "[8]"]
    assert not [name for name in table.index if name.startswith("training: method")]


def test_that_a_copy_was_not_trained_sets_nobody_apart(two):
    made = {"teacher": {"name": two["teacher"], "model_hash": ""}, "hidden": (12,), "seed": 5}
    for name, rate in (("tiny-slow", 0.1), ("tiny-fast", 0.2)):
        settings = {"epochs": 3, "learning_rate": rate}
        save_digits_model(name, "student", **made, training_config=settings)
    table = backend.card_differences(["tiny-student", "tiny-slow", "tiny-fast"], "digits")
    assert table.loc["training: learning_rate"].tolist() == ["—", "0.1", "0.2"]
    assert "training: epochs" not in table.index
    every = backend.card_differences(["tiny-student", "tiny-slow"], "digits", show_all=True)
    assert every.loc["training: epochs"].tolist() == ["—", "3"]


def test_students_without_the_figure_are_named_beside_the_seeds(opened, two):
    session = opened("compare", **two, part="Seeds").check()
    assert "Without this figure: other." in session.text


def test_lines_of_copies_are_not_the_first_to_be_drawn(opened, two):
    save_digits_copy("tiny-a-copy", two["teacher"])
    for query, place in (({}, -1), ({"copies": "true"}, 0)):
        order = {"order": "parameters", "part": "Confidence"}
        session = opened("compare", **two, **order, **query).check()
        [box] = [box for box in session.app.multiselect if box.label == "Methods drawn"]
        assert (box.options.index("a-copy") == len(box.options) - 1) == (place == -1)
