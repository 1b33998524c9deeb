"""The agreement radius on its page: offered, started, watched, failed, shown as it is stored."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from dashboard import backend, figures
from dashboard.figures import theme
from fkd.core.errors import ConfigError
from fkd.core.paths import results_dir
from fkd.evaluation import (
    RADIUS_COLUMNS,
    Radii,
    RadiusConfig,
    ResolvedPair,
    radius_key,
    radius_summary,
    search_radii,
)
from fkd.runs import KINDS
from tests.dashboard.conftest import COUNT, run_record

BUTTON = f"Search {COUNT} images"
NAMES = [column.name for column in RADIUS_COLUMNS]
FRAME = pd.DataFrame(
    [
        (4, False, 0.1, 0.2009, "open", 0.5),
        (0, True, 0.0, 0.0, "disagrees clean", 0.0),
        (2, False, 0.3, None, "whole", 0.1),
        (7, False, 0.05009, 0.0502, "closed", 0.5),
    ],
    columns=NAMES,
)


@pytest.fixture
def stored(choice) -> backend.LoadedRadii:
    search_radii(backend.radius_search(choice), device="cpu")
    return backend.find_radii(choice)


@pytest.fixture
def standing(standing, choice):
    """Make one run of the choice's search all there is."""

    def stand(state: str, **facts: object) -> None:
        standing(run_record("radius", backend.radius_search(choice), state, **facts))

    return stand


def traces(chart: figures.Chart) -> dict:
    return {trace.name: trace for trace in chart.figure.data}


def test_the_search_is_the_commands_own_at_a_level_that_is_quick_enough(choice):
    search = backend.radius_search(choice)
    names = {"dataset": "digits", "teacher": choice.teacher, "student": choice.student}
    assert search == RadiusConfig.parse(
        {**names, "count": COUNT, "certificate": {"name": choice.level}}
    )
    # The page's own radius and class do not matter, so changing them hides nothing.
    assert backend.radius_search(choice.but(epsilon=0.2, gap_class="teacher")) == search
    for level, used in {
        "fast": "fast",
        "tight": "tight",
        "exact": "tight",
        "crown": "tight",
    }.items():
        assert backend.radius_search(choice.but(level=level)).certificate.name == used
    assert backend.radius_search(choice.but(count=10_000)).count == 20
    assert backend.radius_search(choice.but(norm="l2")).norm == "l2"


def test_nothing_stored_says_what_it_is_and_starts_by_a_button(opened, pair, choice, asked):
    session = opened("certificates", **pair).check()
    assert "the largest ε up to which both networks *provably* predict the same" in session.text
    assert f"the first {COUNT} images, in L∞ up to ε = 0.3" in session.text
    assert asked == []
    [button] = session.buttons(BUTTON)
    button.click()
    session.rerun().check()
    [(kind, spec)] = asked
    assert kind == "radius"
    assert KINDS.get(kind)().check(spec) == spec
    assert RadiusConfig.parse(spec) == backend.radius_search(choice)


def test_another_level_than_the_chosen_is_explained(opened, pair):
    session = opened("certificates", **pair, level="Exact", seconds=5).check()
    assert "**Tight** (Exact would take its seconds at each of a dozen radii" in session.text
    assert session.buttons(BUTTON)


def test_radii_follow_the_norm(opened, pair):
    session = opened("certificates", **{**pair, "norm": "L2", "epsilon": 0.2}).check()
    assert f"the first {COUNT} images, in L2 up to ε = 3" in session.text


def test_what_is_stored_is_drawn_with_its_own_numbers(opened, pair, stored, choice, asked):
    session = opened("certificates", **pair).check()
    assert session.buttons(BUTTON) == [] and asked == []
    summary = radius_summary(stored.table)
    shown = {metric.label: metric.value for metric in session.app.metric}
    certified = figures.proved_radius(summary.radius_certified_median)
    assert shown["Median certified"] == f"≥\u00a0{certified}"
    assert shown["Median found"].endswith(figures.found_radius(summary.radius_attack_median))
    assert shown["Radius known"] == figures.percent(summary.known_share)
    table = next(d.value for d in session.app.dataframe if "found" in d.value)
    ordered = stored.table.sort_values(["radius_certified", "radius_attack"])
    assert table["image"].tolist() == ordered["index"].tolist()
    assert table["certified"].tolist() == ordered["radius_certified"].tolist()
    charts = [json.loads(chart.proto.spec) for chart in session.app.get("plotly_chart")]
    drawn = next(c for c in charts if "smallest certified" in c["layout"]["xaxis"]["title"]["text"])
    assert any("certified" in trace["name"] for trace in drawn["data"])
    assert any("python -m fkd radius" in code.value for code in session.app.code)
    assert {"CSV", "Parquet"} <= {b.label for b in session.app.get("download_button")}


def test_the_nearest_disagreements_stand_beside_the_gallery(opened, pair, stored):
    session = opened("disagreements", **pair).check()
    assert "How little has to be changed" in session.text
    table = next(d.value for d in session.app.dataframe if "found" in d.value)
    ordered = stored.table.sort_values("radius_attack", kind="stable")
    assert table["found"].dropna().tolist() == ordered["radius_attack"].dropna().tolist()
    assert table["certified"].tolist() == ordered["radius_certified"].tolist()
    nearest = ordered[~ordered["disagrees_clean"]].iloc[0]
    shown = [caption for element in session.app.get("image") for caption in captions(element)]
    assert (
        f"image {nearest['index']}: found {figures.at_most_radius(nearest['radius_attack'])}, "
        f"proved {figures.at_least_radius(nearest['radius_certified'])}"
    ) in shown


def captions(element) -> list[str]:
    return [image.caption for image in element.proto.imgs]


def test_without_stored_radii_no_nearest_disagreement_is_promised(opened, pair):
    session = opened("disagreements", **pair).check()
    assert "Nearest disagreement" not in session.text


def test_networks_that_cannot_be_bounded_get_a_sentence(opened, pair, choice):
    config = backend.radius_search(choice)
    key = radius_key(ResolvedPair(config))
    table = FRAME.assign(status="unsupported", radius_certified=0.0)
    Radii(key, config, table, {"key": key}).write(results_dir() / "radii" / f"{key}.parquet")
    session = opened("certificates", **pair).check()
    assert session.text.count("cannot be bounded at this level") == 1


def test_radii_show_without_an_analysis_at_that_radius(opened, pair, stored):
    session = opened("certificates", **{**pair, "epsilon": 0.123}).check()
    assert "Not analysed yet" in session.text
    assert "Median certified" in [metric.label for metric in session.app.metric]


def test_a_second_visit_computes_nothing(stored, choice, monkeypatch):
    def refuse(*args, **kwargs):
        raise RuntimeError("read again")

    monkeypatch.setattr("fkd.evaluation.find_radii", refuse)
    assert backend.find_radii(choice) is stored


def test_a_run_is_watched_and_can_be_cancelled(opened, pair, standing, asked):
    standing("running", stage="radius tight", done=2, total=COUNT)
    session = opened("certificates", **pair).check()
    assert session.buttons(BUTTON) == []
    session.buttons("Cancel")[0].click()
    session.rerun().check()
    assert asked == [("cancel", "radius-running")]


@pytest.mark.parametrize(
    ("state", "message"), [("failed", "The disk is full."), ("cancelled", "Stopped, as asked.")]
)
def test_a_run_that_did_not_end_well_shows_one_sentence(opened, pair, standing, state, message):
    standing(state, message=message)
    session = opened("certificates", **pair).check()
    assert session.text.count(message) == 1
    assert (message in session.errors) == (state == "failed")
    assert "Resume" in [button.label for button in session.app.button]
    assert session.buttons(BUTTON) == []


def test_a_start_that_is_refused_says_why(opened, pair, monkeypatch):
    def refuse(kind, spec):
        raise ConfigError("There is no room.")

    monkeypatch.setattr("fkd.runs.start_run", refuse)
    session = opened("certificates", **pair).check()
    session.buttons(BUTTON)[0].click()
    session.rerun()
    assert "There is no room." in session.errors


def test_a_read_only_server_shows_and_starts_nothing(opened, pair, monkeypatch):
    monkeypatch.setenv("FKD_READ_ONLY", "1")
    session = opened("certificates", **pair).check()
    assert session.buttons(BUTTON) == []
    assert "so it starts no search" in session.text


def test_the_chart_draws_the_tables_numbers_smallest_radius_first():
    chart = figures.radii(FRAME, largest=0.3, epsilon=0.1)
    drawn = traces(chart)
    certified = drawn["certified: same prediction up to here"]
    assert list(certified.customdata) == [7, 4, 2]
    assert list(certified.x) == [2, 3, 4]
    assert list(certified.y) == [0.05009, 0.1, 0.3]
    assert list(certified.text) == ["0.0500", "0.1000", "0.3000"]
    found = drawn["nearest disagreement found"]
    assert list(found.customdata) == [7, 4]
    assert list(found.y) == [0.0502, 0.2009]
    assert list(found.text) == ["0.0502", "0.2009"]
    clean = drawn["differ at the image itself"]
    assert (list(clean.customdata), list(clean.x), list(clean.y)) == ([0], [1], [0.0])
    # Where nothing was found the truth may be anywhere up to the largest radius, and beyond.
    open_line = drawn["open: truth lies here"]
    assert list(open_line.y) == [
        0.0,
        0.0,
        None,
        0.05009,
        0.0502,
        None,
        0.1,
        0.2009,
        None,
        0.3,
        0.3,
        None,
    ]
    assert certified.marker.color == theme.CERTIFICATE and found.marker.color == theme.ATTACK
    assert "4 images" in chart.alt and "1 differ" in chart.alt
    assert "on 1 no disagreement was found up to 0.3" in chart.alt


def test_the_chart_marks_the_radius_in_sight_and_names_the_norm():
    near = figures.radii(FRAME, largest=0.3, epsilon=0.1, norm="l2").figure
    assert [shape.y0 for shape in near.layout.shapes] == [0.1]
    assert "L2" in near.layout.yaxis.title.text
    far = figures.radii(FRAME, largest=0.3, epsilon=0.9).figure
    assert len(far.layout.shapes) == 0
    everything = figures.radii(FRAME[FRAME.disagrees_clean], largest=0.3)
    assert everything.figure.layout.yaxis.range[1] > 0
    assert list(traces(everything)) == ["open: truth lies here", "differ at the image itself"]
