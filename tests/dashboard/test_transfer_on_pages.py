"""Witnesses tried on other students, on *Compare methods*: offered, started, watched, shown as stored."""

from __future__ import annotations

import json

import pytest

from dashboard import backend, figures
from dashboard.figures import theme
from fkd.core.errors import ConfigError
from fkd.evaluation import TransferCell, TransferConfig, transfer_witnesses, wilson_share
from fkd.runs import KINDS
from tests.dashboard.conftest import COUNT, run_record
from tests.support.pairs import save_digits_model

STUDENTS = ["tiny-other", "tiny-student"]
BUTTON = "Try the witnesses of 2 students"


@pytest.fixture
def two(pair) -> dict[str, object]:
    """The address at which the pair's student is compared with another one."""
    save_digits_model(
        "tiny-other",
        "student",
        hidden=(8,),
        seed=3,
        teacher={"name": pair["teacher"], "model_hash": ""},
    )
    return pair


@pytest.fixture
def choice(two, choice) -> backend.Choice:
    return choice


@pytest.fixture
def stored(choice) -> backend.LoadedTransfer:
    transfer_witnesses(backend.transfer_of(choice, STUDENTS), device="cpu")
    return backend.find_transfer(choice, STUDENTS)


@pytest.fixture
def standing(standing, choice):
    """Make one run of the choice's transfer all there is."""

    def stand(state: str, **facts: object) -> None:
        standing(
            run_record(
                "transfer",
                backend.transfer_of(choice, STUDENTS),
                state,
                title="witnesses of 2 students of tiny-teacher",
                **facts,
            )
        )

    return stand


def maps(session) -> list[dict]:
    charts = [json.loads(chart.proto.spec) for chart in session.app.get("plotly_chart")]
    return [chart for chart in charts if chart["data"][0]["type"] == "heatmap"]


def test_nothing_stored_says_what_it_is_and_starts_by_a_button(opened, two, choice, asked):
    session = opened("compare", part="Carried over", **two).check()
    assert "are tried on the others" in session.text
    assert f"the first {COUNT} images within ε" in session.text
    assert asked == [] and maps(session) == []
    [button] = session.buttons(BUTTON)
    button.click()
    session.rerun().check()
    [(kind, spec)] = asked
    assert kind == "transfer"
    assert KINDS.get(kind)().check(spec) == spec
    # The order in which students were chosen says nothing.
    assert TransferConfig.parse(spec) == backend.transfer_of(choice, STUDENTS[::-1])


def test_what_is_measured_follows_the_choice(choice):
    config = backend.transfer_of(
        choice.but(norm="l2", epsilon=0.3, gap_class="teacher", level="tight"), STUDENTS
    )
    assert (config.norm, config.epsilon, config.gap_class) == ("l2", 0.3, "teacher")
    assert backend.transfer_of(choice.but(level="tight"), STUDENTS) == backend.transfer_of(
        choice, STUDENTS
    )


def test_one_student_alone_has_nobody_to_try_on(opened, two, asked):
    session = opened("compare", part="Carried over", **two, students="tiny-student").check()
    assert "Choose at least two students" in session.text
    assert not [b for b in session.app.button if b.label.startswith("Try the witnesses")]


@pytest.mark.parametrize("shown", ["carried", "ratio"])
def test_what_is_stored_is_drawn_with_its_own_numbers(opened, two, stored, asked, shown):
    names = {"carried": "Disagreements carried over", "ratio": "Gap relative to own"}
    session = opened("compare", part="Carried over", **two, carried=names[shown]).check()
    assert session.buttons(BUTTON) == [] and asked == []
    [drawn] = maps(session)
    # In the page's order: only one of the two has been analysed, and comes first.
    order = ["tiny-student", "tiny-other"]
    expected = figures.transfer_map(stored.summary.cells, shown, order=order)
    assert drawn["data"][0]["z"] == expected.figure.to_plotly_json()["data"][0]["z"]
    gains = next(d.value for d in session.app.dataframe if "raised_max" in d.value)
    assert gains["target"].tolist() == order
    by_name = {gain.target: gain for gain in stored.summary.gains}
    wanted = [by_name[name].gap_best_mean for name in order]
    assert gains["gap_best_mean"].tolist() == wanted
    assert any("python -m fkd transfer" in code.value for code in session.app.code)
    assert len([b for b in session.app.get("download_button") if b.label == "Parquet"]) == 1


def test_a_second_visit_computes_nothing(stored, choice, monkeypatch):
    def refuse(*args, **kwargs):
        raise RuntimeError("read again")

    monkeypatch.setattr("fkd.evaluation.find_transfer", refuse)
    assert backend.find_transfer(choice, STUDENTS[::-1]) is stored


def test_a_run_is_watched_and_can_be_cancelled(opened, two, standing, asked):
    standing("running", stage="attack", done=2, total=2 * COUNT)
    session = opened("compare", part="Carried over", **two).check()
    assert session.buttons(BUTTON) == []
    session.buttons("Cancel")[0].click()
    session.rerun().check()
    assert asked == [("cancel", "transfer-running")]


@pytest.mark.parametrize(
    ("state", "message"), [("failed", "The disk is full."), ("cancelled", "Stopped, as asked.")]
)
def test_a_run_that_did_not_end_well_shows_one_sentence(opened, two, standing, state, message):
    standing(state, message=message)
    session = opened("compare", part="Carried over", **two).check()
    assert session.text.count(message) == 1
    assert "Resume" in [button.label for button in session.app.button]
    assert session.buttons(BUTTON) == []


def test_a_start_that_is_refused_says_why(opened, two, monkeypatch):
    def refuse(kind, spec):
        raise ConfigError("There is no room.")

    monkeypatch.setattr("fkd.runs.start_run", refuse)
    session = opened("compare", part="Carried over", **two).check()
    session.buttons(BUTTON)[0].click()
    session.rerun()
    assert "There is no room." in session.errors


def test_a_read_only_server_shows_and_starts_nothing(opened, two, monkeypatch):
    monkeypatch.setenv("FKD_READ_ONLY", "1")
    session = opened("compare", part="Carried over", **two).check()
    assert session.buttons(BUTTON) == []
    assert "so it starts no trial" in session.text


def test_absent_images_are_offered_and_no_run(opened):
    query = {"dataset": "mnist", "teacher": "mnist-teacher-pgd", "student": "mnist-kd-of-pgd"}
    session = opened("compare", part="Carried over", **query, epsilon=0.05, count=200).check()
    assert "so no witnesses can be tried" in session.text
    assert not [b for b in session.app.button if b.label.startswith("Try the witnesses")]


# ---------------------------------------------------------------- the map


def _cell(source, target, hits, ratio):
    return TransferCell(
        source=source,
        target=target,
        count=20,
        witnesses=0 if hits is None else 4,
        carried=None if hits is None else wilson_share(hits, 4),
        gap_mean=0.1009,
        gap_own_mean=0.2,
        gap_clean_mean=0.05,
        gap_ratio=ratio,
        beats=wilson_share(1, 20),
    )


CELLS = [
    _cell("d-a-of-t", "d-a-of-t", 4, 1.0),
    _cell("d-a-of-t", "d-b-of-t", 1, 1.25),
    _cell("d-b-of-t", "d-a-of-t", None, None),
    _cell("d-b-of-t", "d-b-of-t", None, 1.0),
]


def test_the_map_shows_each_cell_once_rows_are_sources():
    chart = figures.transfer_map(CELLS, "carried")
    squares, text = chart.figure.data
    assert squares.z == ([1.0, 0.25], [None, None])
    assert list(text.text) == ["100\u00a0%", "25\u00a0%", "none", "none"]
    assert list(zip(text.x, text.y, strict=True)) == [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert list(text.textfont.color) == [theme.INK, "#ffffff", theme.NEUTRAL, theme.NEUTRAL]
    assert list(chart.figure.layout.yaxis.ticktext) == ["a", "b"]
    assert "d-…-of-t" in chart.figure.layout.xaxis.title.text
    assert chart.figure.layout.yaxis.autorange == "reversed"
    hover = squares.customdata[0][1]
    assert "found against d-a-of-t<br>tried on d-b-of-t" in hover
    assert (
        "25\u00a0% of 4 disagreements carry over (95 % interval 4.6\u00a0% to 69.9\u00a0%)" in hover
    )
    assert "mean gap 0.100, at its own witnesses 0.200, at the images 0.050" in hover
    assert "no disagreement was found against it" in squares.customdata[1][0]
    assert chart.alt.endswith(
        "from d-a-of-t to d-b-of-t 25\u00a0%; from d-b-of-t to d-a-of-t nothing to try."
    )


def test_a_gap_beyond_the_own_one_widens_the_scale():
    squares = figures.transfer_map(CELLS, "ratio").figure.data[0]
    assert squares.z == ([1.0, 1.25], [None, 1.0])
    assert (squares.zmin, squares.zmax) == (0.0, 1.25)
    assert figures.transfer_map(CELLS[:1], "ratio").figure.data[0].zmax == 1.0


@pytest.mark.parametrize(
    ("names", "short", "pattern"),
    [
        (["d-kd-of-t", "d-rslad-of-t"], ["kd", "rslad"], "d-…-of-t"),
        (["d-kd", "d-rslad"], ["kd", "rslad"], "d-…"),
        (["kd-of-t", "rslad-of-t"], ["kd", "rslad"], "…-of-t"),
        (["mine", "yours"], ["mine", "yours"], ""),
        # Something has to be left of a name.
        (["d-kd", "d-kd-2"], ["kd", "kd-2"], "d-…"),
        # Seeds, and names that a user gave.
        (["d-kd-of-t", "d-ard-of-t", "d-kd-of-t-s1"], ["kd", "ard", "kd-of-t-s1"], "d-…-of-t"),
        (["d-kd-of-t", "d-ard-of-t", "mine"], ["kd", "ard", "mine"], "d-…-of-t"),
        (["d-kd-of-t", "d-ard-of-t", "kd"], ["d-kd-of-t", "d-ard-of-t", "kd"], ""),
        (["a-b", "a"], ["a-b", "a"], ""),
    ],
)
def test_what_names_share_is_said_once(names, short, pattern):
    assert figures.short_names(names) == (short, pattern)
