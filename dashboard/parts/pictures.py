"""Two pictures of the selected example, drawn on request: a plane of its ball, and its pixels' parts."""

from __future__ import annotations

import streamlit as st

from dashboard import backend, figures, state
from dashboard.parts.chart import chart
from dashboard.parts.names import named

_SEEN = {"along": "On the way", "image": "At the image", "witness": "At the witness"}


def pictures(index: int) -> None:
    """Toggles for both pictures, each followed by its picture where it is on.

    Args:
        index: example id.
    """
    if state.choice().epsilon == 0:
        # A ball of radius 0 has neither a plane nor room for its pixels.
        return
    _plane(index)
    _pixels(index)


def _plane(index: int) -> None:
    wanted = st.toggle(
        "Plane through both worst points",
        help="The flat slice of the ball through the image and the points where the teacher and the "
        "student each lose most confidence in their own prediction. A second for small networks, "
        "some 20 for large ones; then kept.",
        **state.bound("plane"),
    )
    if not wanted:
        return
    with st.spinner("Looking for the worst points …", show_time=True):
        drawn = backend.plane(state.choice(), state.loaded(), index)
    classes = state.classes()
    st.markdown(_plane_said(drawn, classes))
    st.caption(
        "□ image; :blue[●] teacher's and :orange[◆] student's worst point. Lines are where a "
        "prediction changes, the :blue[teacher's] solid and the :orange[student's] dashed. What is "
        "veiled lies outside the ball or outside [0, 1]."
    )
    chart(figures.plane(drawn, classes, index=index), "gap_plane")
    _points_table(drawn, classes)


def _plane_said(drawn: backend.GapPlane, classes: tuple[str, ...]) -> str:
    low, high = (figures.signed(gap) for gap in drawn.gap_range)
    said = (
        f"In this slice of the ball the teacher's confidence in **{named(classes, drawn.gap_class)}** "
        f"minus the student's runs from {low} to {high}, and "
        f"{figures.plane_disagreement(drawn)}."
    )
    if drawn.drawn_at_random:
        said += (
            " The worst points alone span no plane (one is the image itself, or all are in line), so "
            "the slice also goes through a random point of the ball."
        )
    return said


def _points_table(drawn: backend.GapPlane, classes: tuple[str, ...]) -> None:
    rows = []
    for name, predictions, confidences, gap in zip(
        ("image", "teacher's worst", "student's worst"),
        drawn.predictions_at_points,
        drawn.confidences_at_points,
        drawn.gap_at_points,
        strict=True,
    ):
        teacher, student = (
            f"{named(classes, prediction)} ({confidence:.3f})"
            for prediction, confidence in zip(predictions, confidences, strict=True)
        )
        rows.append(f"| {name} | {teacher} | {student} | {figures.signed(gap)} |\n")
    st.markdown(
        "| point | teacher says | student says | gap |\n|---|---:|---:|---:|\n" + "".join(rows)
    )
    st.caption(f"In brackets the confidence in {named(classes, drawn.gap_class)}.")


def _pixels(index: int) -> None:
    wanted = st.toggle(
        "Pixels that make the gap",
        help="How much each pixel has to do with the gap: on the straight way from the image to the "
        "witness of the largest gap, and by the gap's gradient at both ends.",
        **state.bound("pixels"),
    )
    if not wanted:
        return
    with st.spinner("Following the gap from the image to the witness …", show_time=True):
        found = backend.saliency(state.choice(), state.loaded(), index)
    seen = st.segmented_control(
        "Seen",
        list(_SEEN),
        default="along",
        required=True,
        label_visibility="collapsed",
        **state.bound("seen", _SEEN),
    )
    parts, image, title = {
        "along": (found.along, found.image, "each pixel's share in the gap's change"),
        "image": (found.at_image, found.image, "gap's change, from darkest to brightest"),
        "witness": (found.at_witness, found.witness, "gap's change, from darkest to brightest"),
    }[seen]
    st.markdown(_pixels_said(found, seen))
    chart(
        figures.saliency(image, backend.per_pixel(parts), title=title, index=index),
        "gap_pixels",
    )


def _pixels_said(found: backend.GapSaliency, seen: str) -> str:
    compared = f"**{named(state.classes(), found.gap_class)}**"
    if seen == "along":
        return (
            f"From the image to the witness the teacher's confidence in {compared} minus the student's "
            f"goes from {figures.signed(found.gap_image)} to {figures.signed(found.gap_witness)}. The "
            "shares of all pixels add up to this change (within "
            f"{abs(found.completeness_error):.0e}): :blue[blue] ones moved it towards the teacher, "
            ":orange[orange] ones towards the student."
        )
    where = {"image": "the image", "witness": "the witness"}[seen]
    return (
        f"At {where}: by how much the teacher's confidence in {compared} minus the student's would "
        "change, by its slope there, if one pixel alone went from the darkest to the brightest value it "
        "has in the ball. :blue[Blue]: up, towards the teacher; :orange[orange]: down."
    )
