"""Each network alone on its page: offered, started, watched, failed, shown as it is stored."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from dashboard import backend, figures
from dashboard.figures import theme
from fkd.core.errors import ConfigError
from fkd.core.paths import results_dir
from fkd.evaluation import (
    ROBUSTNESS_COLUMNS,
    ROBUSTNESS_FOLDER,
    ResolvedModel,
    Robustness,
    RobustnessConfig,
    robustness_key,
    robustness_summary,
)
from fkd.runs import KINDS
from tests.dashboard.conftest import COUNT, EPSILON, run_record

BUTTON = "Attack the teacher and the student"


def store(choice: backend.Choice, role: str, robust: list[bool]) -> Robustness:
    """A measurement as it would be stored, with no attack behind it."""
    config = backend.robustness_search(choice, role)
    key = robustness_key(ResolvedModel(config))
    table = pd.DataFrame(
        {
            "index": range(COUNT),
            "label": 1,
            "predicted": 1,
            "robust_pgd": True,
            "robust_autoattack": robust,
            "robust": robust,
            "found_by": [None if stands else "square" for stands in robust],
        }
    )
    metadata = {"key": key, "left_out": ["apgd-t was left out: a reason."]}
    found = Robustness(key, config, table, metadata)
    found.write(results_dir() / ROBUSTNESS_FOLDER / f"{key}.parquet")
    return found


TEACHER = [True, True, True, False, False, True]
STUDENT = [True, False, True, False, True, False]


@pytest.fixture
def stored(choice) -> dict[str, Robustness]:
    return {
        "teacher": store(choice, "teacher", TEACHER),
        "student": store(choice, "student", STUDENT),
    }


@pytest.fixture
def standing(standing, choice):
    """Make runs of the choice's networks, by role, all there are: ``standing(teacher="running")``."""

    def stand(message: str | None = None, **states: str) -> None:
        facts = {"message": message, "stage": "fab-t", "done": 2, "total": COUNT}
        records = [
            run_record(
                "robust",
                backend.robustness_search(choice, role),
                state,
                id=f"robust-{role}",
                title=f"{getattr(choice, role)} alone",
                **facts,
            )
            for role, state in states.items()
        ]
        standing(*records)

    return stand


def start_buttons(session) -> list[str]:
    return [b.label for b in session.app.button if b.label.startswith("Attack the")]


def tables(session) -> dict[str, pd.DataFrame]:
    """The section's two tables by their first column."""
    shown = [element.value for element in session.app.dataframe]
    return {
        table.columns[0]: table for table in shown if table.columns[0] in ("right at", "breaks")
    }


def test_the_measurement_is_the_commands_own(choice):
    search = backend.robustness_search(choice, "student")
    assert search == RobustnessConfig(
        dataset="digits", model=choice.student, epsilon=EPSILON, count=COUNT
    )
    # The level and the class compared do not matter, so changing them hides nothing.
    other = choice.but(level="exact", seconds=5.0, gap_class="teacher")
    assert backend.robustness_search(other, "student") == search
    assert backend.robustness_search(choice.but(count=10_000), "teacher").count == 100
    assert backend.robustness_search(choice.but(norm="l2"), "teacher").norm == "l2"


def test_nothing_stored_says_what_it_is_and_one_button_starts_both(opened, pair, choice, asked):
    session = opened("disagreements", **pair).check()
    assert "PGD (50 steps, 10 restarts) and AutoAttack's standard ensemble" in session.text
    assert "Not measured yet: **tiny-teacher** and **tiny-student**" in session.text
    assert asked == [] and tables(session) == {}
    assert start_buttons(session) == [BUTTON]
    session.buttons(BUTTON)[0].click()
    session.rerun().check()
    assert [(kind, spec["model"]) for kind, spec in asked] == [
        ("robust", "tiny-teacher"),
        ("robust", "tiny-student"),
    ]
    for _, spec in asked:
        assert KINDS.get("robust")().check(spec) == spec


def test_what_is_stored_is_drawn_with_its_own_numbers(opened, pair, stored, choice, asked):
    session = opened("disagreements", **pair).check()
    assert start_buttons(session) == [] and asked == []
    shares = tables(session)["right at"]
    assert shares["right at"].tolist() == [
        "the image itself",
        "PGD-50-10",
        "AutoAttack",
        "both (worst case)",
    ]
    for role in backend.ROLES:
        worst = robustness_summary(stored[role].table).robust
        assert shares[role].iloc[-1] == figures.share_with_interval(
            worst.value, worst.low, worst.high
        )
    counts = tables(session)["breaks"]
    assert counts["breaks"].tolist() == ["neither", "only teacher", "only student", "both"]
    assert counts["total"].tolist() == [2, 1, 2, 1]
    state = backend.find(choice).frame["state"].to_numpy()
    broke = ~np.array(STUDENT) & np.array(TEACHER)
    for name, words in {"certified": "agree", "open": "open", "refuted": "disagree"}.items():
        assert counts[words].iloc[2] == (state[broke] == name).sum()
    assert (
        f"The teacher alone breaks on 1 of {COUNT} images, the student alone on 2" in session.text
    )
    assert session.text.count("apgd-t was left out: a reason.") == 1
    charts = [json.loads(chart.proto.spec) for chart in session.app.get("plotly_chart")]
    drawn = next(c for c in charts if "share right" in c["layout"]["yaxis"]["title"]["text"])
    assert [trace["name"] for trace in drawn["data"]] == ["Teacher", "Student"]
    [code] = [code.value for code in session.app.code if "python -m fkd robust" in code.value]
    assert "--model tiny-teacher" in code and "--model tiny-student" in code
    assert {"CSV", "Parquet"} <= {b.label for b in session.app.get("download_button")}


def test_both_tables_are_taken_along_with_the_networks_names(stored, choice):
    table = backend.robustness_table(backend.find_robustness(choice))
    assert list(table) == ["network", "model", *(column.name for column in ROBUSTNESS_COLUMNS)]
    assert table.groupby("network")["robust"].sum().to_dict() == {"student": 3, "teacher": 4}
    assert set(table["model"]) == {"tiny-teacher", "tiny-student"}


def test_what_one_network_lacks_is_all_that_is_started(opened, pair, choice, asked):
    store(choice, "teacher", TEACHER)
    session = opened("disagreements", **pair).check()
    assert list(tables(session)["right at"]) == ["right at", "teacher"]
    assert "Not measured yet: **tiny-student**." in session.text
    assert start_buttons(session) == ["Attack the student"]
    session.buttons("Attack the student")[0].click()
    session.rerun().check()
    assert [spec["model"] for _, spec in asked] == ["tiny-student"]


def test_both_runs_are_watched_and_can_be_cancelled(opened, pair, standing, asked):
    standing(teacher="running", student="queued")
    session = opened("disagreements", **pair).check()
    assert start_buttons(session) == []
    assert "tiny-teacher alone" in session.text and "tiny-student alone" in session.text
    cancels = session.buttons("Cancel")
    assert [b.key for b in cancels] == ["cancel_robust-teacher", "cancel_robust-student"]
    cancels[1].click()
    session.rerun().check()
    assert asked == [("cancel", "robust-student")]


@pytest.mark.parametrize(
    ("state", "message"), [("failed", "The disk is full."), ("cancelled", "Stopped, as asked.")]
)
def test_a_run_that_did_not_end_well_shows_one_sentence(opened, pair, standing, state, message):
    standing(message, teacher=state)
    session = opened("disagreements", **pair).check()
    assert session.text.count(message) == 1
    assert (message in session.errors) == (state == "failed")
    assert "Resume" in [button.label for button in session.app.button]
    # The other network has no run yet.
    assert start_buttons(session) == ["Attack the student"]


def test_a_start_that_is_refused_says_why(opened, pair, monkeypatch):
    def refuse(kind, spec):
        raise ConfigError("There is no room.")

    monkeypatch.setattr("fkd.runs.start_run", refuse)
    session = opened("disagreements", **pair).check()
    session.buttons(BUTTON)[0].click()
    session.rerun()
    assert "There is no room." in session.errors


def test_a_read_only_server_shows_and_starts_nothing(opened, pair, monkeypatch):
    monkeypatch.setenv("FKD_READ_ONLY", "1")
    session = opened("disagreements", **pair).check()
    assert start_buttons(session) == []
    assert "so it starts no attack" in session.text


def test_without_images_shares_show_and_nothing_starts(opened):
    session = opened(
        "disagreements",
        dataset="mnist",
        teacher="mnist-teacher-pgd",
        student="mnist-kd-of-pgd",
        epsilon=0.1,
    ).check()
    assert "so the networks cannot be attacked" in session.text
    assert start_buttons(session) == []


def test_the_chart_draws_shares_and_the_ends_of_their_intervals():
    shares = pd.DataFrame(
        [
            ("teacher", "clean", "the image itself", 0.75, 0.5, 1.0),
            ("student", "clean", "the image itself", 0.5, 0.25, 0.625),
        ],
        columns=["network", "name", "at", "share", "low", "high"],
    )
    chart = figures.robustness(shares, count=8)
    teacher, student = chart.figure.data
    assert (list(student.y), list(student.x)) == ([0.5], ["the image itself"])
    assert list(student.error_y.array) == [0.125] and list(student.error_y.arrayminus) == [0.25]
    assert teacher.marker.color == theme.TEACHER and student.marker.pattern.shape == "/"
    assert list(chart.figure.layout.xaxis.ticktext) == ["the image<br>itself"]
    assert "n = 8" in chart.figure.layout.yaxis.title.text
    told = chart.alt.replace("\u00a0", " ")
    assert "Teacher: the image itself 75 % (50\u2013100 %)" in told
    alone = figures.robustness(shares[shares.network == "student"], count=8)
    assert [trace.name for trace in alone.figure.data] == ["Student"]
