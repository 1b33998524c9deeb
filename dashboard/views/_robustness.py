"""Each network alone on the page *Disagreements*: its standard robustness, and who breaks where."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pandas as pd
import streamlit as st

from dashboard import backend, figures, parts

_HEIGHT = 330
#: Rows of the cross table, as people say them.
_BROKE = {
    "neither": "neither",
    "teacher": "only teacher",
    "student": "only student",
    "both": "both",
}
#: States of the pair in little room, with what they mean.
_STATES = {
    "certified": ("agree", "Both provably predict the same class everywhere in the ball."),
    "open": ("open", "Neither was a disagreement found nor agreement certified."),
    "refuted": ("disagree", "A point of the ball was found where they predict different classes."),
}


def each_alone(choice: backend.Choice, loaded: backend.Loaded) -> None:
    """The section.

    Args:
        choice: what is looked at.
        loaded: its analysis.
    """
    st.subheader("Each network alone", anchor=False)
    found = backend.find_robustness(choice)
    search = backend.robustness_search(choice, backend.ROLES[0])
    st.caption(
        "What others publish of one network: how often it is right at the image, and wherever PGD "
        f"({search.steps} steps, {search.restarts} restarts) and AutoAttack's standard ensemble looked "
        f"within {figures.ball(choice.epsilon, choice.norm)}; the first {search.count} images. No wrong "
        "prediction found never means that there is none."
    )
    if found:
        _shares(choice, found, search.count)
    if len(found) == len(backend.ROLES):
        _cross(backend.cross_robustness(found, loaded), search.count)
    else:
        _not_measured(choice, [role for role in backend.ROLES if role not in found])
    if found:
        _take_along(choice, found)


# ---------------------------------------------------------------- not stored


def _not_measured(choice: backend.Choice, missing: Collection[str]) -> None:
    with st.container(border=True):
        names = " and ".join(f"**{getattr(choice, role)}**" for role in missing)
        st.markdown(
            f"Not measured yet: {names}. For networks like those shipped it takes a minute or two each, "
            "and is kept. With both, this section also tells on how many images one breaks alone, "
            "beside whether a disagreement was found there."
        )
        _run(choice, missing)


def _run(choice: backend.Choice, missing: Collection[str]) -> None:
    """The runs that are on their way, how the last ones ended, and the button for what has none."""
    live = backend.live_robustness(choice, missing)
    for record in live.values():
        parts.watch(record)
    waiting = [role for role in missing if role not in live]
    if not waiting or any(not record.has_ended for record in live.values()):
        return
    parts.offer_run(
        None,
        choice.dataset,
        key="robustness",
        label=f"Attack the {' and the '.join(waiting)}",
        work="attack",
        lack="the networks cannot be attacked",
        start=lambda: backend.start_robustness(choice, waiting),
    )


# ---------------------------------------------------------------- stored


def _shares(
    choice: backend.Choice, found: Mapping[str, backend.LoadedRobustness], count: int
) -> None:
    shares = backend.robustness_shares(found)
    left, right = st.columns([3, 2], gap="medium", vertical_alignment="center")
    with left:
        parts.chart(figures.robustness(shares, count=count, height=_HEIGHT), "robustness")
    with right:
        shares["text"] = [
            figures.share_with_interval(row.share, row.low, row.high)
            for row in shares.itertuples(index=False)
        ]
        table = shares.pivot(index="at", columns="network", values="text")
        table = table.loc[shares["at"].unique(), list(found)].reset_index()
        st.dataframe(
            table.rename(columns={"at": "right at"}),
            hide_index=True,
            column_config={"right at": st.column_config.Column(width=116)}
            | {
                role: st.column_config.Column(
                    width=122,
                    help=f"Share of the images that {getattr(choice, role)} classified right there, "
                    "with its 95 % interval: what the share among all such images may be.",
                )
                for role in found
            },
            alt="Share of images that each network alone classifies right, with 95 % intervals",
        )
        for sentence in dict.fromkeys(s for one in found.values() for s in one.found.left_out):
            st.caption(sentence)


def _cross(counts: pd.DataFrame, count: int) -> None:
    """Who breaks, beside what is known of the pair; of so many images."""
    total = counts.set_index("broke")["total"]
    names = {"broke": "breaks", **{state: name for state, (name, _) in _STATES.items()}}
    shown = counts.assign(broke=counts["broke"].map(_BROKE)).rename(columns=names)
    left, right = st.columns([3, 2], gap="medium", vertical_alignment="center")
    with left:
        st.markdown(
            f"**The teacher alone breaks on {total['teacher']} of {count} images, the student alone on "
            f"{total['student']}, both on {total['both']}, neither on {total['neither']}.** Where one "
            "alone breaks, the two disagree at that very point, or the other is wrong there too, unseen "
            "by the attacks on it. Where both break and agreement is certified, they fail alike."
        )
    with right:
        st.dataframe(
            shown,
            hide_index=True,
            column_config={
                "breaks": st.column_config.Column(
                    help="A network breaks where a wrong prediction was found, at the image or in the "
                    "ball.",
                    width=104,
                ),
                "total": st.column_config.Column("all", help="Images.", width=44),
            }
            | {
                name: st.column_config.Column(help=meaning, width=70)
                for name, meaning in _STATES.values()
            },
            alt="On how many images each network breaks, beside whether a disagreement was found",
        )


def _take_along(choice: backend.Choice, found: Mapping[str, backend.LoadedRobustness]) -> None:
    keys = "-".join(one.found.key for one in found.values())
    with st.container(horizontal=True):
        parts.downloads(backend.robustness_table(found), f"robustness-{keys}", "robustness")
        with st.popover("Reproduce", icon=":material/terminal:"):
            st.code(backend.reproduce_robustness(choice), language="bash", wrap_lines=False)
