"""Disagreements: a gallery of points where teacher and student predict different classes."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dashboard import backend, figures, parts, state
from dashboard.guard import guard
from dashboard.views._nearest import nearest_disagreements
from dashboard.views._robustness import each_alone
from dashboard.views._who import who_stays_right

TITLE = "Disagreements"
ICON = ":material/call_split:"
SECTION = "Results"
ORDER = 30
NEEDS = ("analysis",)

_PER_PAGE = 6

_EXPLANATION = """
Each card is a test image for which a point within ε was found where the teacher predicts one class and
the student another. That is a proof of disagreement: the middle picture is the very point. The right one
shows how each pixel was changed, on a scale fixed by ε. *No disagreement found* never means that there
is none, unless agreement is certified.

**Who stays right**, where *Confidence gaps* was asked for other ways to differ, tells disagreements apart
by the label: at some points the teacher is right and the student wrong, at others the other way round.

**Each network alone** asks the usual question of one network: is it right wherever an attack looked? A
student can be as robust as its teacher and fail on other images, or fail with it in the same way; the
table tells these apart.
"""


def render() -> None:
    """Draw the page."""
    loaded = state.loaded()
    summary = loaded.summary
    found = loaded.frame[loaded.frame["state"] == "refuted"]
    _headline(loaded, len(found))
    parts.chart(
        figures.agreement(pd.DataFrame([summary.model_dump()]), [_ball()], height=160),
        "agreement",
    )
    if len(found):
        _gallery(found.sort_values("gap_attack", ascending=False, kind="stable"))
    with guard():
        nearest_disagreements(state.choice())
    with guard():
        who_stays_right(state.choice())
    with guard():
        each_alone(state.choice(), loaded)
    parts.how_to_read(_EXPLANATION)


def _ball() -> str:
    choice = state.choice()
    return figures.ball(choice.epsilon, choice.norm)


def _headline(loaded: backend.Loaded, found: int) -> None:
    counts = loaded.frame["state"].value_counts()
    certified, still_open = int(counts.get("certified", 0)), int(counts.get("open", 0))
    total = loaded.summary.count
    rest = (
        f"{_are(certified)} certified to agree everywhere within ε, and {_are(still_open)} open: the "
        "attack found nothing there and the certificate proves nothing."
    )
    if found:
        st.markdown(
            f"**A disagreement was found for {found} of {total} images** within {_ball()}. {rest}"
        )
    else:
        st.markdown(f"**No disagreement found** on {total} images within {_ball()}. {rest}")


def _are(count: int) -> str:
    return f"{count} {'is' if count == 1 else 'are'}"


def _gallery(found: pd.DataFrame) -> None:
    choice = state.choice()
    info = backend.data_set(choice.dataset)
    pages = -(-len(found) // _PER_PAGE)
    page = 1
    if pages > 1:
        if st.session_state.get("page", 1) > pages:
            st.session_state["page"] = 1
        page = st.pagination(pages, **state.bound("page"))
    rows = found.iloc[(page - 1) * _PER_PAGE : page * _PER_PAGE]
    if info is not None and not info.is_available:
        parts.images_absent(choice.dataset, "gallery")
        _text_only(rows)
        return
    with st.grid(3, min_column_width=300) as grid:
        for row in rows.to_dict("records"):
            with grid.cell(), st.container(border=True):
                _card(row)


def _card(row: dict) -> None:
    choice, loaded, classes = state.choice(), state.loaded(), state.classes()
    index = int(row["index"])
    st.markdown(
        f"**Image {index}**, label {parts.named(classes, row['label'])} · at the witness the teacher "
        f"says :blue[**{parts.named(classes, row['teacher_pred_witness'])}**], the student "
        f":orange[**{parts.named(classes, row['student_pred_witness'])}**]"
    )
    with st.spinner("Finding the witness …"):
        detail = backend.example(choice, loaded, index)
    if detail.disagreement_witness is None:
        st.caption(
            "The stored disagreement could not be found again on this machine; the table keeps it."
        )
        return
    parts.example_images(detail, choice.shown_change, "disagreement")
    st.caption(_said(detail, classes))
    with st.container(horizontal=True):
        parts.page_link(
            "gaps", "Look at this image closely", ":material/arrow_forward:", example=index
        )
        parts.page_link(
            "gaps", "See a slice of its ball", ":material/map:", example=index, plane="true"
        )


def _said(detail: backend.ExampleDetail, classes: tuple[str, ...]) -> str:
    def top(probabilities: object) -> str:
        values = list(probabilities)  # type: ignore[call-overload]
        best = values.index(max(values))
        return f"{parts.named(classes, best)} ({figures.percent(float(values[best]))})"

    return (
        f"Clean: teacher {top(detail.teacher_probs_clean)}, student {top(detail.student_probs_clean)}. "
        f"Witness: teacher {top(detail.teacher_probs_disagreement)}, "
        f"student {top(detail.student_probs_disagreement)}."
    )


def _text_only(rows: pd.DataFrame) -> None:
    classes = state.classes()
    table = pd.DataFrame(
        {
            "image": rows["index"],
            "label": [parts.named(classes, v) for v in rows["label"]],
            "teacher at the witness": [
                parts.named(classes, v) for v in rows["teacher_pred_witness"]
            ],
            "student at the witness": [
                parts.named(classes, v) for v in rows["student_pred_witness"]
            ],
            "gap (attack)": [figures.reached(gap) for gap in rows["gap_attack"]],
        }
    )
    st.dataframe(table, hide_index=True, alt="Images with a disagreement found")


if __name__ == "__main__":
    render()
