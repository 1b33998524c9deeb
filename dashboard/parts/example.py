"""One example from close by: images, what both networks say at both points, gap against radius."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import streamlit as st

from dashboard import backend, figures, state
from dashboard.parts.chart import chart
from dashboard.parts.images import difference, picture
from dashboard.parts.names import named
from dashboard.parts.page import images_absent, state_badge
from dashboard.parts.pictures import pictures

_WITNESSES = {"gap": "Largest gap", "disagreement": "Disagreement"}


def example_panel(ordered: pd.Series) -> None:
    """The selected example: picker, figures, images, probabilities, curve, plane, pixels.

    Args:
        ordered: example ids in the order that Previous and Next follow.
    """
    choice, loaded = state.choice(), state.loaded()
    index = _picker(ordered)
    row = loaded.frame[loaded.frame["index"] == index].iloc[0]
    classes = state.classes()
    _figures(row, classes)
    try:
        with st.spinner("Finding the witness …", show_time=True):
            detail = backend.example(choice, loaded, index)
    except backend.DataError as error:
        if _is_absent(choice.dataset):
            images_absent(choice.dataset, "example")
        else:
            st.error(str(error))
        return
    which = _witness_choice(detail)
    example_images(detail, choice.shown_change, which)
    probabilities_at(detail, which)
    _curve(index)
    pictures(index)


def _is_absent(dataset: str) -> bool:
    info = backend.data_set(dataset)
    return info is not None and not info.is_available


def _picker(ordered: pd.Series) -> int:
    index = state.example()
    # A number beyond the analysed examples (a link, a smaller count) gives way to the default.
    if "example" in st.session_state and st.session_state["example"] != index:
        st.session_state["example"] = index
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.number_input(
            "Image",
            min_value=0,
            max_value=int(state.loaded().frame["index"].max()),
            value=state.default_example(),
            step=1,
            width=115,
            on_change=_picked,
            help="Example id: its position in the test split. Type one, or click a point or a row.",
            **state.bound("example"),
        )
        for text, step, key in (("Previous", -1, "Left"), ("Next", 1, "Right")):
            st.button(
                text,
                key=f"example_{text.lower()}",
                shortcut=key,
                on_click=_step,
                args=(ordered, step),
                help="In the order of the table below the chart.",
            )
    return state.example()


def _picked() -> None:
    state.select(st.session_state["example"])


def _step(ordered: pd.Series, step: int) -> None:
    if len(ordered):
        state.select(state.neighbour(ordered, step))


def _figures(row: pd.Series, classes: Sequence[str]) -> None:
    compared = named(classes, row["gap_class"])
    bound = row["gap_certified"]
    certified = "no certificate" if pd.isna(bound) else figures.at_most(bound)
    with st.container(horizontal=True, vertical_alignment="center"):
        state_badge(row["state"])
        st.markdown(f"Label **{named(classes, row['label'])}**", width="content")
    st.markdown(
        f"| confidence in **{compared}** | teacher | student | gap |\n"
        "|---|---:|---:|---:|\n"
        f"| at the image | {row['teacher_conf']:.3f} | {row['student_conf']:.3f} "
        f"| {figures.reached(row['gap_clean'])} |\n"
        f"| at the witness | {row['teacher_conf_attack']:.3f} | {row['student_conf_attack']:.3f} "
        f"| **{figures.reached(row['gap_attack'])}** |\n"
        f"| anywhere within ε | | | **{certified}** |\n"
    )


def _witness_choice(detail: backend.ExampleDetail) -> str:
    if detail.disagreement_witness is None:
        return "gap"
    return st.segmented_control(
        "Witness",
        list(_WITNESSES),
        default="gap",
        required=True,
        help="The point of the largest gap found, or a point where the predictions differ.",
        **state.bound("witness", _WITNESSES),
    )


def example_images(detail: backend.ExampleDetail, change: float, which: str = "gap") -> None:
    """Image, witness, and their difference on the scale from -change to change, side by side."""
    witness = detail.gap_witness if which == "gap" else detail.disagreement_witness
    images_at(detail, witness, change)


def images_at(detail: backend.ExampleDetail, witness: np.ndarray, change: float) -> None:
    """The same with any point (C, H, W) of the ball as the witness."""
    label = named(detail.classes, detail.row["label"])
    with st.grid(3, wrap=False, min_column_width=60, gap="xsmall"):
        st.image(
            picture(detail.image),
            caption="image",
            width="stretch",
            alt=f"Image {detail.index}, label {label}",
        )
        st.image(
            picture(witness),
            caption="witness",
            width="stretch",
            alt=f"Witness of image {detail.index}: the image after the perturbation",
        )
        st.image(
            difference(detail.image, witness, change),
            caption=f"change :blue[\u2212]/:orange[+]{change:g}",
            width="stretch",
            alt=f"Change of each pixel of image {detail.index}, from -{change:g} to {change:g}",
        )


def probabilities_at(detail: backend.ExampleDetail, which: str = "gap") -> None:
    """Both networks' class probabilities at the image and at the witness."""
    at_witness = (
        (detail.teacher_probs_gap, detail.student_probs_gap)
        if which == "gap"
        else (detail.teacher_probs_disagreement, detail.student_probs_disagreement)
    )
    compared = int(detail.row["gap_class"])
    st.caption(
        "Class probabilities: :blue[■] teacher, :orange[▨] student; the class compared is bold."
    )
    for column, title, (teacher, student), key in zip(
        st.columns(2),
        ("At the image", "At the witness"),
        ((detail.teacher_probs_clean, detail.student_probs_clean), at_witness),
        ("probabilities_image", "probabilities_witness"),
        strict=True,
    ):
        with column:
            st.markdown(f"**{title}**")
            chart(
                figures.probabilities(
                    teacher.tolist(),
                    student.tolist(),
                    detail.classes,
                    where=title.lower().removeprefix("at "),
                    gap_class=compared,
                ),
                key,
            )


def _curve(index: int) -> None:
    choice, loaded = state.choice(), state.loaded()
    wanted = st.toggle(
        "Gap against ε for this image",
        help="Attacks and certifies this image at a dozen radii; a few seconds, then kept.",
        **state.bound("curve"),
    )
    if not wanted:
        return
    with st.spinner("Attacking and certifying at a dozen radii …", show_time=True):
        table = backend.curve(choice, loaded, index)
    used = backend.curve_choice(choice)
    if used != choice:
        st.caption(
            f"Bounds of this curve are of the level {backend.level_title(used)}: a search at a dozen "
            "radii would take too long here."
        )
    chart(figures.curve(table, epsilon=choice.epsilon, norm=choice.norm, index=index), "gap_curve")
