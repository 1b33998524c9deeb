"""The norm of the ball on the pages: chosen, in the address, shown with every radius."""

import numpy as np
import pandas as pd
import pytest

from dashboard import backend, figures
from dashboard.registry import all_views
from fkd.evaluation import AnalysisConfig, analyse


@pytest.fixture
def l2_pair(pair):
    """The tiny pair with a stored L2 analysis beside its L-infinity ones; the address that shows it."""
    query = {**pair, "epsilon": 0.3}
    analyse(AnalysisConfig(**query, norm="l2"))
    return {**query, "norm": "L2"}


def _epsilon(session):
    return session.app.selectbox(key="epsilon")


@pytest.mark.parametrize("page", [view.name for view in all_views()])
def test_every_page_opens_in_l2(opened, l2_pair, page):
    session = opened(page, **l2_pair).check()
    assert "cannot be used" not in "\n".join(session.warnings)
    assert session.app.session_state["norm"] == "L2"
    assert "Not analysed yet" not in session.text


def test_radii_are_shown_with_their_norm(opened, l2_pair):
    session = opened("overview", **l2_pair).check()
    assert f"{figures.ball(0.3, 'l2')}]" in session.text and "/255)" not in session.text
    assert "in L2, teacher and student" in session.text
    assert _epsilon(session).label == "ε, length of the change"


def test_choosing_a_norm_brings_its_own_radii(opened, pair):
    session = opened("gaps", **pair).check()
    assert _epsilon(session).label == "ε, largest pixel change"
    session.app.segmented_control(key="norm").set_value("L2").run()
    session.check()
    assert _epsilon(session).value == f"{backend.L2_DEFAULT:g}"
    assert set(map(float, _epsilon(session).options)) >= set(backend.L2_RADII)
    session.app.segmented_control(key="norm").set_value("L∞").run()
    session.check()
    assert float(_epsilon(session).value) == backend.default_pair("digits")[2]


def test_a_stored_answer_in_another_norm_is_one_click_away(opened, pair, l2_pair):
    session = opened("gaps", **{**pair, "epsilon": 0.37}).check()
    button = next(b for b in session.app.button if b.label.startswith(figures.ball(0.3, "l2")))
    button.click().run()
    session.check()
    assert session.app.session_state["norm"] == "L2"
    assert "Not analysed yet" not in session.text


def test_an_l2_radius_may_exceed_one_and_not_the_image_range(opened, pair):
    assert (
        "Not analysed yet" in opened("gaps", **{**pair, "norm": "L2", "epsilon": 1.5}).check().text
    )
    session = opened("gaps", **{**pair, "norm": "L2", "epsilon": 128}).check()
    assert "epsilon must lie in [0, 8] here" in "\n".join([session.text, *session.errors])


def test_balls_of_two_norms_are_never_in_one_chart(l2_pair, pair):
    choice = backend.Choice(
        "digits", pair["teacher"], pair["student"], 0.3, pair["count"], norm="l2"
    )
    assert backend.radii(choice)["epsilon"].tolist() == [0.3]
    assert backend.radii(choice.but(norm="linf", epsilon=0.05))["epsilon"].tolist() == [0.05]
    assert {c.norm for c in backend.stored(choice)} == {"l2", "linf"}
    assert "--norm l2" in backend.reproduce(choice)


def test_the_curve_names_its_norm_and_pictures_have_a_fixed_scale():
    frame = pd.DataFrame({"epsilon": [0.0, 1.0], "gap_attack": [0, 0.1], "gap_certified": [0, 1.0]})
    titles = [
        figures.curve(frame, norm=norm, index=0).figure.layout.xaxis.title.text
        for norm in ("linf", "l2")
    ]
    assert "largest pixel change" in titles[0] and "L2" in titles[1]
    changes = [
        backend.Choice("d", "t", "s", epsilon, norm=norm).shown_change
        for epsilon, norm in ((0.1, "linf"), (0.5, "l2"), (5.0, "l2"))
    ]
    np.testing.assert_allclose(changes, [0.1, 0.25, 1.0])
