"""Certified bounds: what is proved of the gaps, against what was found."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dashboard import backend, figures, parts, state

TITLE = "Certified bounds"
ICON = ":material/verified:"
SECTION = "Results"
ORDER = 40
NEEDS = ("analysis",)

_EXPLANATION = """
A certificate bounds the confidence gap on the *whole* neighbourhood of an image at once, by linear
relaxations of both networks; no attack, however clever, can exceed it. **Cumulative**: for each level g,
the share of images proved to stay at or below g, and the share no attack has pushed above g; the truth
lies in the shaded band, whose width is what is not known. **Tightness**: certificate against attack; a
point on the diagonal is known exactly, and none may lie below it, which would mean a mistake.
**Agreement** splits the images at every stored radius into certified, open and refuted.
"""


def render() -> None:
    """Draw the page."""
    loaded = state.loaded()
    _numbers(loaded.summary)
    parts.certificate_note(loaded)
    left, right = st.columns(2, gap="medium")
    with left:
        st.subheader("Share of images below a gap", anchor=False)
        parts.chart(figures.cumulative(backend.certified_curve(loaded), height=320), "cumulative")
        st.subheader("How gaps are spread", anchor=False)
        parts.chart(figures.histogram(backend.histogram(loaded), height=300), "histogram")
    with right:
        st.subheader("Agreement by radius", anchor=False)
        choice = state.choice()
        radii = backend.radii(choice)
        parts.chart(
            figures.agreement(
                radii,
                [figures.ball(value, choice.norm) for value in radii["epsilon"]],
                height=320,
            ),
            "agreement",
        )
        st.subheader("Tightness", anchor=False)
        parts.chart(
            figures.examples(loaded.frame, "bracket", classes=state.classes(), height=300),
            "tightness",
        )
    _table(loaded)
    parts.how_to_read(_EXPLANATION)


def _numbers(summary: backend.Summary) -> None:
    meanings = backend.summary_meanings()
    with st.grid(4, min_column_width=150):
        for label, name in (
            ("Mean bound", "gap_certified_mean"),
            ("95 % of bounds", "gap_certified_p95"),
            ("Largest bound", "gap_certified_max"),
            ("Mean width left open", "bracket_mean"),
        ):
            value = getattr(summary, name)
            # A width is what bounds leave open, so it is rounded as they are.
            text = figures.bound if name == "bracket_mean" else figures.at_most
            shown = "—" if value is None else text(value)
            tip = f"{meanings[name]} A difference of two probabilities, from 0 to 1."
            st.metric(label, shown, help=tip, border=True)


def _table(loaded: backend.Loaded) -> None:
    with st.expander("All columns of this analysis", icon=":material/table_rows:"):
        meanings = backend.column_meanings()
        table = loaded.analysis.table
        st.dataframe(
            table,
            hide_index=True,
            height=320,
            column_config={
                # All digits: numbers are data here, and none is rounded to the wrong side.
                name: st.column_config.NumberColumn(help=meanings.get(name), format="plain")
                if pd.api.types.is_float_dtype(table[name])
                else st.column_config.Column(help=meanings.get(name))
                for name in table.columns
            },
            placeholder="",
            alt="The whole analysis table, one row per image",
        )
        parts.downloads(pd.DataFrame(table), f"analysis-{loaded.key}", "analysis")
        st.markdown("**Reproduce**")
        st.code(backend.reproduce(state.choice()), language="bash", wrap_lines=False)


if __name__ == "__main__":
    render()
