"""Which network stays right where the other fails, on the page *Disagreements*, where it was attacked."""

from __future__ import annotations

import streamlit as st

from dashboard import backend, figures, parts


def who_stays_right(choice: backend.Choice) -> None:
    """The section; nothing where no measures are stored, since *Confidence gaps* offers their attack."""
    found = backend.find_measures(choice)
    if found is None or found.who is None:
        return
    who = found.who
    facts, events = backend.measure_facts(), found.events
    st.subheader("Who stays right", anchor=False)
    st.caption(
        "Two networks that disagree may both be wrong. Here a point is searched within "
        f"{figures.ball(choice.epsilon, choice.norm)} at which one predicts the label and the other does "
        f"not: {who.count} images, 95 % intervals. Where none was found there may still be one. "
        "A number at the side counts the images at which both cases were found, too."
    )
    left, right = st.columns([3, 2], gap="medium")
    with left:
        parts.chart(figures.who_stays_right(who), "who")
    with right:
        # The teacher first, as in the chart.
        for name, summary in reversed(events.items()):
            st.metric(
                facts[name].title,
                f"{summary.hits} of {who.count}",
                f"{summary.hits_clean} at the image itself",
                delta_color="off",
                delta_arrow="off",
                help=facts[name].meaning,
                border=True,
            )
    parts.page_link("gaps", "See other ways to differ", ":material/arrow_forward:")
