"""Overview: the verdict in words, a few large figures, and the first finding worth a look."""

from __future__ import annotations

import streamlit as st

from dashboard import backend, figures, parts, state

TITLE = "Overview"
ICON = ":material/dashboard:"
SECTION = "Results"
ORDER = 10
NEEDS = ("analysis",)

_EXPLANATION = """
A **student** network was trained to imitate a **teacher**. On the test images the two may look alike;
this page asks what happens *around* each image, when every pixel may change by at most **ε** (or,
with the norm L2, all pixels together by that length), a change people hardly see.

- An **attack** searches that neighbourhood for the point where the two differ most. What it finds is a
  fact: there is an image to show, the **witness**. It may miss a worse point.
- A **certificate** computes a bound that no point of the neighbourhood can exceed. It is a proof, and
  may be pessimistic.

So the truth lies between the two, and each image is in one of three states: the predictions are
**certified** to agree everywhere within ε, a **disagreement** was found, or the question is **open**.
The **confidence gap** is the difference of the two networks' probabilities for one class, from 0 (equally
sure) to 1 (one certain, the other certain of the contrary).
"""


def render() -> None:
    """Draw the page."""
    loaded = state.loaded()
    summary, meanings = loaded.summary, backend.summary_meanings()
    with st.container(border=True):
        st.markdown(f"#### {figures.unbroken(summary.verdict)}")
        st.caption(
            f"Measured on the first {summary.count} test images. Teacher right on "
            f"{figures.percent(summary.teacher_accuracy)} of them, student on "
            f"{figures.percent(summary.student_accuracy)}; unperturbed they agree on "
            f"{figures.percent(summary.agreement_clean)}."
        )
    _figures(summary, meanings)
    parts.certificate_note(loaded)
    left, right = st.columns([3, 2], gap="medium")
    with left:
        st.subheader("Every image's bracket", anchor=False)
        st.caption("The true worst-case gap of each image lies on its grey line.")
        parts.chart(
            figures.bracket(loaded.frame, primary=state.default_example(), height=360), "bracket"
        )
    with right:
        _first_finding()
    parts.how_to_read(_EXPLANATION)


def _figures(summary: backend.Summary, meanings: dict[str, str]) -> None:
    with st.grid(4, min_column_width=150):
        _metrics(summary, meanings)


def _metrics(summary: backend.Summary, meanings: dict[str, str]) -> None:
    st.metric(
        "Agreement certified",
        figures.percent(summary.agreement_certified),
        help=meanings["agreement_certified"],
        border=True,
        delta="proved within ε",
        delta_color="off",
        delta_arrow="off",
    )
    st.metric(
        "Disagreement found",
        figures.percent(summary.disagreement_found),
        help=meanings["disagreement_found"],
        border=True,
        delta=f"{figures.percent(summary.open_share)} undecided",
        delta_color="off",
        delta_arrow="off",
    )
    for low, high, label, tip in (
        (
            summary.gap_attack_mean,
            summary.gap_certified_mean,
            "Mean worst-case gap",
            meanings["gap_attack_mean"],
        ),
        (
            summary.gap_attack_max,
            summary.gap_certified_max,
            "Largest gap",
            meanings["gap_attack_max"],
        ),
    ):
        st.metric(
            label,
            figures.at_least(low),
            help=f"{tip} A difference of two probabilities, from 0 to 1. The large figure was reached "
            "by an attack; the small one below it is certified never to be exceeded.",
            border=True,
            delta="no certificate" if high is None else f"certified {figures.at_most(high)}",
            delta_color="off",
            delta_arrow="off",
        )


def _first_finding() -> None:
    choice, loaded = state.choice(), state.loaded()
    index = state.default_example()
    row = loaded.frame[loaded.frame["index"] == index].iloc[0]
    classes = state.classes()
    compared = parts.named(classes, row["gap_class"])
    st.subheader("Where they differ most", anchor=False)
    st.markdown(
        f"Image **{index}** shows **{parts.named(classes, row['label'])}**. Unperturbed, the teacher "
        f"gives {compared} a probability of **{row['teacher_conf']:.3f}** and the student "
        f"**{row['student_conf']:.3f}**. Within ε there is a point where it is "
        f"**{row['teacher_conf_attack']:.3f}** and **{row['student_conf_attack']:.3f}**."
    )
    info = backend.data_set(choice.dataset)
    if info is not None and not info.is_available:
        parts.images_absent(choice.dataset, "overview")
    else:
        with st.spinner("Finding the witness …", show_time=True):
            detail = backend.example(choice, loaded, index)
        parts.example_images(detail, choice.shown_change)
    parts.page_link("gaps", "Look at this image closely", ":material/arrow_forward:", example=index)


if __name__ == "__main__":
    render()
