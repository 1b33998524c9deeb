"""Figures: what is drawn is what the table says, bounds are rounded to the safe side."""

from __future__ import annotations

import io
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dashboard import figures
from dashboard.figures import theme
from dashboard.parts.images import difference, picture

FRAME = pd.DataFrame(
    {
        "index": [3, 5, 8, 9],
        "label": [0, 1, 2, 1],
        "teacher_pred": [0, 1, 2, 1],
        "student_pred": [0, 1, 1, 1],
        "gap_clean": [0.0, 0.1, 0.3, 0.2],
        "gap_attack": [0.1, 0.2, 0.9, 0.4],
        "gap_certified": [0.15, 0.5, 0.95, None],
        "teacher_conf_attack": [0.9, 0.8, 0.95, 0.6],
        "student_conf_attack": [0.8, 0.6, 0.05, 0.2],
        "state": ["certified", "open", "refuted", "open"],
    }
)


def marks(chart: figures.Chart) -> dict[int, tuple[float, float]]:
    """Example id -> position, over all traces that carry ids."""
    found = {}
    for trace in chart.figure.data:
        if trace.mode == "markers" and trace.customdata is not None:
            for index, x, y in zip(trace.customdata, trace.x, trace.y, strict=True):
                found[int(index)] = (float(x), float(y))
    return found


@pytest.mark.parametrize(
    ("value", "lower", "upper"),
    [
        (0.9996, "0.999", "1.000"),
        (0.2964, "0.296", "0.297"),
        (1.0, "1.000", "1.000"),
        (0.0, "0.000", "0.000"),
        (0.1 + 0.2, "0.300", "0.300"),
        (1e-6, "0.000", "0.001"),
    ],
)
def test_bounds_are_rounded_to_the_safe_side(value, lower, upper):
    assert figures.at_least(value) == f"≥\u00a0{lower}"
    assert figures.at_most(value) == f"≤\u00a0{upper}"


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.985, "98.5 %"),
        (0.5, "50 %"),
        (0.9999, "> 99.9 %"),
        (0.0004, "< 0.1 %"),
        (0.29 + 0.06, "35 %"),
    ],
)
def test_shares_are_never_rounded_to_all_or_none(share, text):
    assert figures.percent(share).replace("\u00a0", " ") == text


@pytest.mark.parametrize("pairing", sorted(figures.PAIRINGS))
def test_every_point_carries_its_example_id(pairing):
    pair = figures.PAIRINGS[pairing]
    chart = figures.examples(FRAME, pairing, primary=5)
    drawn = FRAME.dropna(subset=[pair.x, pair.y])
    assert marks(chart) == {
        int(row["index"]): (row[pair.x], row[pair.y]) for _, row in drawn.iterrows()
    }
    if pairing == "bracket":
        assert "1 without a certificate" in chart.alt


def test_a_missing_certificate_excludes_nothing():
    chart = figures.bracket(FRAME)
    line = chart.figure.data[0]
    # Ordered by the gap found: image 9 comes second, and its line reaches 1.
    assert (line.y[3], line.y[4]) == (0.4, 1.0)
    certified = next(t for t in chart.figure.data if t.name.startswith("certified"))
    assert 9 not in list(certified.customdata)


def test_states_are_told_apart_without_colour():
    assert len({mark for _, mark, _ in theme.STATES.values()}) == len(theme.STATES)
    chart = figures.agreement(
        pd.DataFrame(
            {"agreement_certified": [0.5], "open_share": [0.2], "disagreement_found": [0.3]}
        ),
        ["one"],
    )
    assert [trace.x[0] for trace in chart.figure.data] == [0.5, 0.2, 0.3]
    assert "50\u00a0% certified" in chart.alt


def test_students_without_certificate_reach_one():
    rows = pd.DataFrame(
        {
            "student": ["a", "b"],
            "gap_clean_mean": [0.1, 0.1],
            "gap_attack_mean": [0.2, 0.3],
            "gap_certified_mean": [0.4, None],
        }
    )
    chart = figures.brackets(rows)
    assert list(chart.figure.data[0].x[:2]) == [0.2, 0.4]
    assert list(chart.figure.data[0].x[3:5]) == [0.3, 1.0]
    assert "b 0.300 to 1 (no certificate)" in chart.alt


def test_a_gap_reads_the_same_in_every_hover_text():
    """What was reached is rounded down and what bounds is rounded up, wherever one points."""
    low, high = 0.9299, 0.9391
    frame = FRAME.assign(gap_clean=low, gap_attack=low, gap_certified=high)
    curve = pd.DataFrame({"epsilon": [0.1], "gap_attack": [low], "gap_certified": [high]})
    students = pd.DataFrame(
        {
            "student": ["a"],
            "gap_clean_mean": [low],
            "gap_attack_mean": [low],
            "gap_certified_mean": [high],
        }
    )
    charts = [figures.bracket(frame), figures.curve(curve, index=3), figures.brackets(students)]
    charts += [figures.examples(frame, pairing) for pairing in figures.PAIRINGS]
    shown = set()
    for chart in charts:
        for trace in chart.figure.data:
            for told in (trace.hovertemplate or "", *(trace.text or ())):
                assert ":.3f" not in told
                shown |= set(re.findall(r"0\.9\d+", told))
    assert shown == {"0.929", "0.940"}
    assert "a 0.929 to 0.940" in charts[2].alt
    assert figures.rounded(low, figures.reached) == 0.929
    assert np.isnan(figures.rounded(float("nan"), figures.bound))


def test_a_styled_table_keeps_its_numbers_and_says_nothing_of_missing_ones():
    table = pd.DataFrame({"name": ["a", "b"], "right": [0.982, None]})
    styled = figures.styled(table, {"right": figures.percent, "name": None})
    assert styled.data["right"].iloc[0] == 0.982
    written = styled.to_html()
    assert "98.2\u00a0%" in written and "nan" not in written and "None" not in written


def test_a_ball_is_never_broken_across_lines():
    assert " " not in figures.ball(0.05)
    assert figures.unbroken("Within ε = 0.05, so") == "Within ε\u00a0=\u00a00.05, so"


def test_pictures_are_the_pixels():
    image = np.linspace(0, 1, 16, dtype=np.float32).reshape(1, 4, 4)
    shown = np.asarray(Image.open(io.BytesIO(picture(image))))
    factor = shown.shape[0] // 4
    assert np.array_equal(shown[::factor, ::factor], np.rint(image[0] * 255).astype(np.uint8))
    colour = np.stack([image[0], image[0] * 0, image[0]])
    assert np.asarray(Image.open(io.BytesIO(picture(colour)))).shape[2] == 3


def test_a_difference_is_drawn_on_the_scale_of_epsilon():
    image = np.full((1, 2, 2), 0.5, dtype=np.float32)
    moved = image + np.array([[[0.1, -0.1], [0.0, 0.05]]], dtype=np.float32)
    shown = np.asarray(Image.open(io.BytesIO(difference(image, moved, 0.1))))
    step = shown.shape[0] // 2
    up, down, still, half = shown[0, 0], shown[0, step], shown[step, 0], shown[step, step]
    assert tuple(up) == (0xD5, 0x5E, 0x00)
    assert tuple(down) == (0x00, 0x72, 0xB2)
    assert tuple(still) == (0xF7, 0xF7, 0xF7)
    assert up[2] < half[2] < still[2]
    # A ball of one point has nothing to show, and nothing to divide by.
    flat = np.asarray(Image.open(io.BytesIO(difference(image, image, 0.0))))
    assert (flat == 0xF7).all()
