"""Levels of the bounds on the pages: chosen, started, told apart, and a search watched as it goes."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pandas as pd
import pytest

from dashboard import backend, figures
from dashboard.backend import catalogue
from dashboard.registry import all_views
from fkd.core.errors import ConfigError
from fkd.core.paths import results_dir
from fkd.evaluation import AnalysisConfig, ResolvedPair, analyse, parse_analysis
from fkd.runs import RunRecord
from tests.dashboard.conftest import COUNT, EPSILON
from tests.support.fake_levels import NAME, fake_level

#: A second level that is quick and in the registry whatever else is.
OTHER = "crown_ibp"
NOW = datetime.now(UTC)


@pytest.fixture
def staged():
    """A level with a time budget."""
    with fake_level() as level:
        yield level


@pytest.fixture
def other(pair, choice) -> backend.Choice:
    """The pair's analysis at a second level, stored."""
    analyse(AnalysisConfig(**pair, certificate={"name": OTHER}))
    return choice.but(level=OTHER)


def bracket(example, seconds, lower, upper, **more) -> dict:
    return {
        "time": NOW,
        "attempt": 1,
        "stage": "certificate",
        "done": example,
        "total": COUNT,
        "example": example,
        "seconds": seconds,
        "lower": lower,
        "upper": upper,
        "open": 3 + example,
        "evaluated": 1000 * (example + 1),
        **more,
    }


HISTORY = [
    {"time": NOW, "attempt": 1, "stage": "attack", "done": COUNT, "total": COUNT},
    bracket(4, 1.0, 0.0, 1.0),
    bracket(5, 7.0, 0.15, 0.95, attempt=0),
    bracket(5, 0.5, 0.10, 0.90),
    bracket(5, 1.0, 0.2009, 0.6001),
    bracket(5, 1.5, 0.3009, 0.4001),
]


@pytest.fixture
def searching(monkeypatch, staged, choice):
    """A run of the level with a budget in the midst of its search."""
    asked_for = choice.but(level=NAME, seconds=30.0)
    record = RunRecord(
        id="analyse-live",
        kind="analyse",
        spec=asked_for.config().model_dump(mode="json"),
        title="tiny-student against tiny-teacher",
        state="running",
        stage="certificate",
        done=5,
        total=COUNT,
        created=NOW,
        started=NOW,
    )
    monkeypatch.setattr("fkd.runs.list_runs", lambda limit=50, kind=None: [record])
    monkeypatch.setattr("fkd.runs.get_run", lambda _: record)
    monkeypatch.setattr("fkd.runs.run_history", lambda _, last=None: pd.DataFrame(HISTORY))
    return asked_for


def address(pair, choice) -> dict:
    query = {**pair, "level": backend.levels()[choice.level].title}
    return query if choice.seconds is None else {**query, "seconds": f"{choice.seconds:g}"}


def test_every_certificate_is_a_level_from_quick_to_thorough(staged):
    names = list(backend.levels())
    assert names[-1] == NAME and backend.levels()[NAME].note == "A stage set for tests."
    known = [name for name in ("fast", "tight", "exact", "crown", "crown_ibp") if name in names]
    assert names == [*known, NAME]
    assert len({level.title for level in backend.levels().values()}) == len(names)
    assert backend.levels()["crown"].budget is None
    assert backend.levels()[NAME].budget.default == 10.0
    assert backend.default_level() in names


def test_levels_are_told_apart_wherever_something_is_stored(pair, choice, other, staged):
    analyse(AnalysisConfig(**pair, certificate={"name": NAME, "seconds": 30}))
    analyse(AnalysisConfig(**{**pair, "epsilon": 0.01}, certificate={"name": OTHER}))
    slow = choice.but(level=NAME, seconds=30.0)
    assert list(backend.stored_levels(choice)) == [choice, other, slow]
    assert {c.level for c in backend.stored(other)[:3]} == {choice.level, OTHER, NAME}
    assert backend.radii(choice)["epsilon"].tolist() == [EPSILON]
    assert backend.radii(other)["epsilon"].tolist() == [0.01, EPSILON]
    assert backend.radii(slow)["epsilon"].tolist() == [EPSILON]
    assert backend.find(slow.but(seconds=31.0)) is None
    keys = {backend.find(each).key for each in (choice, other, slow)}
    assert len(keys) == 3
    for each in (other, slow):
        board = backend.board(each, [pair["student"]])
        bound = backend.find(each).summary.gap_certified_mean
        assert (board.students["gap_certified_mean"].tolist(), board.unanalysed) == ([bound], ())
        assert catalogue.choice_of(each.config()) == each
    elsewhere = backend.board(slow.but(seconds=5.0), [pair["student"]])
    assert elsewhere.unanalysed == (pair["student"],)
    figures_of = backend.stored_levels(choice)[slow]
    assert figures_of["certificate_seconds"] > 0
    assert {c.level for c in backend.missing_levels(choice)} == (
        set(backend.levels()) - {choice.level, OTHER, NAME}
    )


def test_a_level_is_reached_with_its_usual_budget(choice, staged):
    slow = backend.at_level(choice, NAME)
    assert (slow.level, slow.seconds) == (NAME, 10.0)
    assert backend.at_level(slow.but(seconds=3.0), NAME).seconds == 3.0
    assert backend.at_level(slow, choice.level) == choice
    assert backend.time_budget(slow) == 10.0 * COUNT and backend.time_budget(choice) is None
    assert backend.level_title(slow) == "staged, 10 s"
    # A curve is drawn while one waits: never by a search at every radius.
    assert backend.curve_choice(slow) == choice and backend.curve_choice(choice) == choice


def test_what_is_shown_first_is_of_the_usual_level(pair, other, monkeypatch):
    monkeypatch.setattr(catalogue, "DEFAULT_COUNT", COUNT)
    monkeypatch.setattr(catalogue, "list_analyses", _only(OTHER, catalogue.list_analyses))
    assert backend.default_pair("digits")[0] != "tiny-teacher"


def _only(level, list_all):
    return lambda *words: [e for e in list_all(*words) if e.config.certificate.name == level]


def test_the_page_compares_levels_and_offers_what_is_missing(opened, pair, choice, other, asked):
    session = opened("certificates", **pair).check()
    assert "What each level proves" in [e.value for e in session.app.subheader]
    table = session.app.dataframe[0].value
    assert table["level"].tolist() == [backend.level_title(c) for c in (choice, other)]
    stored = backend.stored_levels(choice)
    for row, each in zip(table.to_dict("records"), (choice, other), strict=True):
        assert row["bound"] == stored[each]["gap_certified_mean"]
        assert row["decided"] == stored[each]["decided_share"]
        assert row["an image"] > 0
    offered = [b for b in session.app.button if b.label.startswith("Run ")]
    assert len(offered) == len(backend.missing_levels(choice)) > 0
    # Looking at it starts nothing.
    assert asked == []


def test_a_missing_level_is_started_by_its_button_and_shown(
    opened, pair, choice, staged, asked, monkeypatch
):
    session = opened("certificates", **pair).check()
    button = next(b for b in session.app.button if b.label.startswith("Run staged"))
    assert button.label == "Run staged, 10 s (up to about 1 min 00 s)"
    button.click()
    session.rerun().check()
    [(kind, spec)] = asked
    assert kind == "analyse"
    config = parse_analysis(spec)
    assert (config.certificate.name, config.certificate.seconds) == (NAME, 10.0)
    assert catalogue.choice_of(config) == backend.at_level(choice, NAME)
    assert session.app.session_state["level"] == NAME
    assert "Not analysed yet" in session.text and "staged, 10 s" in session.text
    # The levels that are known stay in sight.
    assert backend.level_title(choice) in session.app.dataframe[0].value["level"].tolist()


def test_a_start_that_is_refused_says_why(opened, pair, staged, monkeypatch):
    def refuse(kind, spec):
        raise ConfigError("There is no room.")

    monkeypatch.setattr("fkd.runs.start_run", refuse)
    session = opened("certificates", **pair).check()
    next(b for b in session.app.button if b.label.startswith("Run staged")).click()
    session.rerun()
    assert "There is no room." in session.errors
    assert session.app.session_state["level"] != NAME


def test_a_read_only_server_offers_no_levels(opened, pair, monkeypatch):
    monkeypatch.setenv("FKD_READ_ONLY", "1")
    session = opened("certificates", **pair).check()
    assert not [b for b in session.app.button if b.label.startswith("Run ")]
    assert len(session.app.dataframe[0].value) == 1


def test_page_and_sidebar_choose_the_same_level(opened, pair, choice, other, staged):
    session = opened("certificates", **pair).check()
    control = session.app.pills(key="page_level")
    assert control.value == choice.level
    assert control.options == [level.title for level in backend.levels().values()]
    bounds = {each: backend.find(each).summary.gap_certified_mean for each in (choice, other)}
    control.set_value(OTHER)
    session.rerun().check()
    assert session.app.selectbox(key="level").value == backend.levels()[OTHER].title
    assert session.app.metric[0].value == figures.at_most(bounds[other])
    assert f"name={OTHER}" in session.app.code[-1].value

    session.app.selectbox(key="level").set_value(backend.levels()[choice.level].title)
    session.rerun().check()
    assert session.app.pills(key="page_level").value == choice.level
    assert session.app.metric[0].value == figures.at_most(bounds[choice])

    # With a budget there is a box for it, at both places.
    session.app.pills(key="page_level").set_value(NAME)
    session.rerun().check()
    session.app.number_input(key="page_seconds").set_value(30.0)
    session.rerun().check()
    assert session.app.number_input(key="seconds").value == 30.0
    session.app.number_input(key="seconds").set_value(7.0)
    session.rerun().check()
    assert session.app.number_input(key="page_seconds").value == 7.0
    assert "staged, 7 s" in session.text


@pytest.mark.parametrize("page", [view.name for view in all_views()])
def test_every_page_shows_the_level_chosen(opened, pair, other, page):
    session = opened(page, **address(pair, other)).check()
    assert "cannot be used" not in "\n".join(session.warnings)
    assert "Not analysed yet" not in session.text
    if page not in ("distil", "about"):
        assert f"verified: {backend.level_title(other)}]" in session.text
    if page == "overview":
        bound = backend.find(other).summary.gap_certified_mean
        assert figures.at_most(bound).split()[-1] in session.text


def test_the_link_opens_the_same_level_and_budget(opened, pair, choice, staged):
    slow = choice.but(level=NAME, seconds=30.0)
    first = opened("certificates", **address(pair, slow)).check()
    link = next(code.value for code in first.app.code if "dataset=" in code.value)
    asked_for = parse_qs(urlsplit(link).query)
    assert (asked_for["level"], float(asked_for["seconds"][0])) == ([NAME], 30.0)
    second = opened("gaps", **{name: values[0] for name, values in asked_for.items()}).check()
    assert second.warnings == []
    assert "staged, 30 s" in second.text


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"level": "Magic"}, "The link asks for the level of the bounds “Magic”"),
        ({"level": NAME, "seconds": "-5"}, "The link asks for the number of seconds an image “-5”"),
    ],
)
def test_a_level_that_is_none_gets_a_sentence(opened, pair, staged, wrong, sentence):
    assert sentence in opened("certificates", **pair, **wrong).check().text


def test_what_is_stored_at_another_level_is_one_click_away(opened, pair, choice, staged):
    slow = choice.but(level=NAME, seconds=30.0)
    session = opened("gaps", **address(pair, slow)).check()
    assert "Not analysed yet" in session.text and "up to about 3 min 00 s" in session.text
    button = next(b for b in session.app.button if b.label.startswith("ε\u00a0=\u00a00.05"))
    assert button.label.endswith(backend.level_title(choice))
    button.click()
    session.rerun().check()
    assert "Not analysed yet" not in session.text
    assert backend.levels()[choice.level].title == session.app.session_state["level"]


def test_the_bracket_in_work_is_of_the_newest_attempt_and_example(searching):
    latest = backend.live_bracket(backend.get_run("analyse-live"))
    assert latest.history["seconds"].tolist() == [0.5, 1.0, 1.5]
    assert latest.history["upper"].tolist() == [0.90, 0.6001, 0.4001]
    assert (latest.example, latest.is_in_work, latest.done, latest.total) == (5, True, 5, COUNT)


def _at(done: int, history: list[dict], monkeypatch) -> backend.LiveBracket | None:
    """The bracket shown with a record that says ``done``, whatever was reported since."""
    monkeypatch.setattr("fkd.runs.run_history", lambda _, last=None: pd.DataFrame(history))
    record = RunRecord(
        "analyse-live", "analyse", {}, "", "running", stage="certificate", done=done, total=COUNT
    )
    return backend.live_bracket(record)


def test_bar_and_bracket_tell_of_one_moment_when_the_image_changes(monkeypatch):
    ended = [*HISTORY[:2], {**HISTORY[0], "stage": "certificate", "done": 5, "total": COUNT}]
    between = _at(5, ended, monkeypatch)
    assert (between.example, between.is_in_work, between.done) == (4, False, 5)
    # The next image's reports are of its own, also while the last one's are many.
    many = [bracket(4, 1.0 + step, 0.0, 1.0) for step in range(5)]
    begun = _at(5, [*many, bracket(5, 0.0, 0.1, 0.9)], monkeypatch)
    assert (begun.example, begun.is_in_work, len(begun.history)) == (5, True, 1)
    # What came after the record was read is of the next second.
    late = _at(4, [*many, bracket(5, 0.0, 0.1, 0.9)], monkeypatch)
    assert (late.example, late.is_in_work, late.done) == (4, True, 4)


@pytest.mark.parametrize(
    "history",
    [
        [],
        HISTORY[:1],
        [{**HISTORY[0], "loss": 1.0}],
        [{**row, "attempt": 2} for row in HISTORY],
        [{**HISTORY[-1], "upper": None}],
    ],
)
def test_runs_without_a_bracket_have_none(monkeypatch, history):
    monkeypatch.setattr(
        "fkd.runs.run_history",
        lambda _, last=None: pd.DataFrame(
            history, columns=None if history else ["time", "attempt", "stage", "done", "total"]
        ),
    )
    record = RunRecord(
        "any", "analyse", {}, "", "running", stage="certificate", done=5, total=COUNT
    )
    assert backend.live_bracket(record) is None


def test_other_stages_have_no_bracket(searching):
    record = dataclasses.replace(backend.get_run("analyse-live"), stage="store", done=0, total=1)
    assert backend.live_bracket(record) is None


@pytest.mark.parametrize("page", ["certificates", "gaps"])
def test_a_search_is_watched_where_its_result_is_missed(opened, pair, searching, asked, page):
    session = opened(page, **address(pair, searching)).check()
    shown = {metric.label: metric.value for metric in session.app.metric}
    assert shown["Image in work"] == "5"
    assert f"5 of {COUNT} done" in [metric.delta for metric in session.app.metric]
    assert "Being analysed" in session.text and "nothing of it is kept" in session.text
    assert "Not analysed yet" not in session.text and "Nothing is stored" not in session.text
    # Rounded to the safe side.
    assert (shown["Gap reached"], shown["Gap certified"]) == ("≥\u00a00.300", "≤\u00a00.401")
    assert shown["Parts still open"] == "8"
    assert "6,000 evaluated" in [metric.delta for metric in session.app.metric]
    charts = [json.loads(chart.proto.spec) for chart in session.app.get("plotly_chart")]
    drawn = next(c for c in charts if "seconds" in c["layout"]["xaxis"]["title"]["text"])
    upper, lower = drawn["data"]
    assert (upper["name"], lower["name"]) == ("certified: never more", "reached")
    assert lower["fill"] == "tonexty"
    next(b for b in session.app.button if b.label == "Cancel").click()
    session.rerun().check()
    assert asked == [("cancel", "analyse-live")]


def test_a_search_at_another_level_is_watched_beside_the_one_chosen(opened, pair, searching):
    session = opened("certificates", **pair).check()
    assert "Image in work" in [metric.label for metric in session.app.metric]
    # It is not offered once more.
    assert not [b for b in session.app.button if b.label.startswith("Run staged")]
    assert "Not analysed yet" not in session.text


def test_a_cancelled_search_leaves_the_page_as_it_was(opened, pair, searching, monkeypatch):
    record = backend.get_run("analyse-live")
    ended = RunRecord(**{**vars(record), "state": "cancelled", "message": "Stopped, as asked."})
    monkeypatch.setattr("fkd.runs.list_runs", lambda limit=50, kind=None: [ended])
    monkeypatch.setattr("fkd.runs.get_run", lambda _: ended)
    session = opened("certificates", **address(pair, searching)).check()
    assert "Stopped, as asked." in session.text
    assert "Resume" in [button.label for button in session.app.button]
    assert "Image in work" not in [metric.label for metric in session.app.metric]
    assert len(session.app.dataframe[0].value) == 1
    assert "Analysis cancelled" in session.text and "Nothing of it is kept" in session.text
    assert "Not analysed yet" not in session.text
    kept = results_dir() / f"{ResolvedPair(searching.config()).key()}.partial"
    kept.mkdir(parents=True)
    for name in ("0-2", "4-5"):
        (kept / f"{name}.safetensors").touch()
    assert "of 3 images, in finished groups, are kept" in session.rerun().check().text


def test_charts_of_levels_say_what_the_numbers_say():
    rows = pd.DataFrame({"gap_attack_mean": [0.1009, 0.2009], "gap_certified_mean": [0.5001, None]})
    drawn = figures.level_brackets(rows, ["Fast", "Exact, 30 s"])
    assert "Fast 0.100 to 0.501; Exact, 30 s 0.200 to 1 (no certificate)" in drawn.alt
    assert list(drawn.figure.data[0].x) == [0.1009, 0.5001, None, 0.2009, 1.0, None]
    history = pd.DataFrame({"seconds": [0.0, 2.04], "lower": [0.1, 0.2009], "upper": [0.9, 0.4001]})
    closing = figures.closing(history, example=7)
    assert "image 7" in closing.alt and "≥\u00a00.200 and ≤\u00a00.401" in closing.alt
    upper, lower = closing.figure.data
    assert (upper.line.shape, lower.line.shape) == ("hv", "hv")
    assert list(upper.y) == [0.9, 0.4001] and list(lower.y) == [0.1, 0.2009]
    assert (figures.seconds(0.012345), figures.seconds(None)) == ("0.0123\u00a0s", "")
