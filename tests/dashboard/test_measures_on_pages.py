"""Other ways to differ, on *Confidence gaps* and *Disagreements*: offered, watched, shown as stored."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from dashboard import backend, figures
from dashboard.figures import theme
from fkd.core.paths import results_dir
from fkd.evaluation import (
    MEASURES_COLUMNS,
    Measured,
    MeasuresConfig,
    WhoStaysRight,
    measure_curve,
    measure_names,
    measures_key,
    measures_summary,
    wilson_share,
)
from fkd.runs import KINDS
from tests.dashboard.conftest import COUNT, run_record

BUTTON = f"Attack {COUNT} images"


def _made() -> pd.DataFrame:
    """A table with figures that are told apart easily."""
    facts = backend.measure_facts()
    rows = []
    for index in range(COUNT):
        for place, name in enumerate(measure_names()):
            value = (1 + (5 * index) % COUNT) / 10 + place / 1000
            is_event = facts[name].is_event
            found = (index + place) % 2 == 0 if is_event else None
            attack = value if found is not False else -value
            compared = None if name in ("kl", "total_variation") else (index + 1) % 10
            rows.append(
                {
                    "index": index,
                    "label": index % 10,
                    "measure": name,
                    "unit": facts[name].unit,
                    "value_clean": attack - 0.05,
                    "value_attack": attack,
                    "compared": compared,
                    "teacher_conf": None if compared is None else 0.75,
                    "student_conf": None if compared is None else 0.25,
                    "teacher_pred": index % 10,
                    "student_pred": (index + 3) % 10,
                    "found": found,
                }
            )
    table = pd.DataFrame(rows)[[column.name for column in MEASURES_COLUMNS]]
    return table.astype({"compared": "Int64", "found": "boolean"})


@pytest.fixture
def stored(choice) -> backend.LoadedMeasures:
    config = backend.measures_of(choice)
    key = measures_key(config)
    witnesses = {name: np.full((COUNT, 1, 8, 8), 0.5, np.float32) for name in config.measures}
    measured = Measured(key, config, _made(), {"key": key}, witnesses)
    measured.write(results_dir() / "measures" / f"{key}.parquet")
    return backend.find_measures(choice)


@pytest.fixture
def standing(standing, choice):
    """Make one run of the choice's measures all there is."""

    def stand(state: str, **facts: object) -> None:
        standing(run_record("attack", backend.measures_of(choice), state, **facts))

    return stand


def headings(session) -> list[str]:
    return [element.value for element in session.app.subheader]


def table_of(session) -> pd.DataFrame:
    return next(d.value for d in session.app.dataframe if "value_attack" in d.value)


def test_nothing_stored_says_what_it_is_and_starts_by_a_button(opened, pair, choice, asked):
    session = opened("gaps", **pair).check()
    assert "Largest gap of any class" in session.text and "KL divergence" in session.text
    assert f"the first {COUNT} images within ε" in session.text
    assert asked == []
    [button] = session.buttons(BUTTON)
    button.click()
    session.rerun().check()
    [(kind, spec)] = asked
    assert kind == "attack"
    assert KINDS.get(kind)().check(spec) == spec
    assert MeasuresConfig.parse(spec) == backend.measures_of(choice)


def test_what_is_measured_follows_the_pair_and_the_ball_alone(choice):
    config = backend.measures_of(choice.but(norm="l2", epsilon=0.3))
    assert (config.norm, config.epsilon) == ("l2", 0.3)
    assert config.measures == tuple(measure_names())
    same = backend.measures_of(choice.but(level="tight", gap_class="teacher"))
    assert same == backend.measures_of(choice)


@pytest.mark.parametrize("measure", [name for name in measure_names() if "right" not in name])
def test_what_is_stored_is_drawn_with_its_own_numbers(opened, pair, stored, choice, asked, measure):
    title = backend.measure_facts()[measure].title
    session = opened("gaps", **pair, measure=title).check()
    assert session.buttons(BUTTON) == [] and asked == []
    summary = next(one for one in measures_summary(stored.table) if one.measure == measure)
    shown = {metric.label: metric for metric in session.app.metric}
    assert shown["Mean"].value == figures.at_least(summary.attack.mean)
    assert shown["95th percentile"].value == figures.at_least(summary.attack.p95)
    assert shown["Maximum"].value == figures.at_least(summary.attack.largest)
    assert shown["Mean"].delta == f"{figures.reached(summary.clean.mean)} at the images"
    rows = stored.of(measure).sort_values("value_attack", ascending=False)
    table = table_of(session)
    assert table["index"].tolist() == rows["index"].tolist()
    assert table["value_attack"].tolist() == [
        float(figures.reached(value)) for value in rows["value_attack"]
    ]
    assert ("compared" in table) == rows["compared"].notna().all()
    assert any("python -m fkd attack" in code.value for code in session.app.code)
    assert {"CSV", "Parquet"} <= {b.label for b in session.app.get("download_button")}
    charts = [json.loads(chart.proto.spec) for chart in session.app.get("plotly_chart")]
    assert [c for c in charts if f"v ({summary.unit})" in str(c["layout"]["xaxis"]["title"])]


def test_the_selected_image_is_shown_at_its_worst_point(opened, pair, stored):
    session = opened("gaps", **pair, example=4).check()
    assert "**Image 4**, label 4, at the worst point found: the teacher says :blue[**4**]" in (
        session.text
    )
    assert "the student :orange[**7**]" in session.text
    # Once in the panel above, at the witness of its own gap, and once here.
    captions = [image.caption for e in session.app.get("image") for image in e.proto.imgs]
    assert captions.count("witness") == 2


def test_a_link_to_a_measure_that_is_none_opens_the_first(opened, pair, stored):
    session = opened("gaps", **pair, measure="Nonsense").check()
    first = backend.measure_facts()[measure_names()[0]]
    assert first.meaning in session.text


def test_a_second_visit_computes_nothing(stored, choice, monkeypatch):
    def refuse(*args, **kwargs):
        raise RuntimeError("read again")

    monkeypatch.setattr("fkd.evaluation.find_measures", refuse)
    assert backend.find_measures(choice) is stored


def test_a_run_is_watched_and_can_be_cancelled(opened, pair, standing, asked):
    standing("running", stage="attack", done=2, total=COUNT)
    session = opened("gaps", **pair).check()
    assert session.buttons(BUTTON) == []
    session.buttons("Cancel")[0].click()
    session.rerun().check()
    assert asked == [("cancel", "attack-running")]


def test_a_run_that_failed_shows_one_sentence(opened, pair, standing):
    standing("failed", message="The disk is full.")
    session = opened("gaps", **pair).check()
    assert session.text.count("The disk is full.") == 1
    assert session.buttons(BUTTON) == []


def test_a_read_only_server_shows_and_starts_nothing(opened, pair, monkeypatch):
    monkeypatch.setenv("FKD_READ_ONLY", "1")
    session = opened("gaps", **pair).check()
    assert session.buttons(BUTTON) == []
    assert "so it starts no attack" in session.text


def test_without_the_images_nothing_can_be_attacked(opened, pair, monkeypatch):
    absent = replace(backend.data_set("digits"), is_available=False)
    monkeypatch.setattr("dashboard.backend.data_set", lambda _: absent)
    session = opened("gaps", **pair).check()
    assert "so nothing can be attacked" in session.text
    assert session.buttons(BUTTON) == []


# ---------------------------------------------------------------- who stays right


def test_who_stays_right_stands_on_disagreements_where_it_is_stored(opened, pair, choice, stored):
    session = opened("disagreements", **pair).check()
    assert "Who stays right" in headings(session)
    shown = {metric.label: metric for metric in session.app.metric}
    for name in ("teacher_right", "student_right"):
        hits = int(stored.of(name)["found"].sum())
        metric = shown[backend.measure_facts()[name].title]
        assert metric.value == f"{hits} of {COUNT}"


def test_without_stored_measures_nothing_is_said_of_who_stays_right(opened, pair):
    assert "Who stays right" not in headings(opened("disagreements", **pair).check())


# ---------------------------------------------------------------- charts


def test_the_spread_draws_both_curves_and_marks_the_image():
    curve = measure_curve(_made(), "label")
    chart = figures.measure_spread(
        curve, title="Gap of the label", unit="probability", count=COUNT, primary=(3, 0.401)
    )
    clean, attack, ring = chart.figure.data
    assert list(attack.x) == list(clean.x) == curve["value"].tolist()
    assert list(attack.y) == curve["share_attack"].tolist()
    assert list(clean.y) == curve["share_clean"].tolist()
    assert attack.line.color == theme.ATTACK and clean.line.dash != attack.line.dash
    assert list(ring.x) == [0.401] and ring.name == "image 3"
    assert chart.figure.layout.xaxis.title.text == "gap of the label v (probability)"
    assert f"{COUNT} images" in chart.alt
    nats = figures.measure_spread(
        measure_curve(_made(), "kl"), title="KL divergence", unit="nats", count=COUNT
    ).figure
    assert nats.layout.xaxis.title.text == "KL divergence v (nats)"
    assert nats.layout.xaxis.range is None and len(nats.data) == 2


def test_the_cases_are_drawn_with_their_intervals():
    shares = {
        name: wilson_share(hits, 10)
        for name, hits in (("teacher", 3), ("student", 1), ("both", 0), ("neither", 6))
    }
    chart = figures.who_stays_right(WhoStaysRight(count=10, **shares))
    bars = {bar.y[0]: bar for bar in chart.figure.data}
    assert list(bars) == [
        *("only teacher right", "only student right", "each at some point", "none found")
    ]
    assert bars["only teacher right"].x == (0.3,)
    low = shares["teacher"].value - bars["only teacher right"].error_x.arrayminus[0]
    assert low == pytest.approx(shares["teacher"].low)
    assert "only teacher right 30\u00a0% (10.8\u201360.3\u00a0%)" in chart.alt
