"""The leaderboard of the page *Compare methods*: all figures as a table, and two against each other."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from dashboard import backend, figures, parts, state
from dashboard.views._pareto import trade_offs
from dashboard.views._picked import Picked

_MAIN = "Main figures"
_BEST = "background-color: rgba(0, 158, 115, 0.20); font-weight: 700"
_DIRECTION = {"higher": "Higher is better.", "lower": "Lower is better.", "neither": ""}
#: So many rows are drawn at once; the table scrolls beyond them.
_ROWS = 24


def leaderboard(choice: backend.Choice, picked: Picked) -> None:
    """The section.

    Args:
        choice: teacher, images and ball.
        picked: the students.
    """
    shown = _shown_figures(picked.order)
    known = picked.rows[list(shown)].notna()
    if known.to_numpy().any():
        _table(picked, [name for name in shown if known[name].any()])
        _two_ticked(picked)
        _downloads(choice, picked, shown)
    some = int((picked.methods["unmeasured"] > 0).sum())
    if picked.together and some:
        st.caption(
            f"Of {some} method{'s' if some > 1 else ''} not all seeds are measured here: means are over "
            "those that are, as many as the column *seeds* says."
        )
    if picked.together and _is_of_some_seeds(picked, shown):
        st.caption(
            "A method has a figure where each of its measured seeds does; switch *Seeds together* off to "
            "see those of single seeds."
        )
    _unmeasured(choice, picked)
    if picked.rows["gap_attack_mean"].notna().any():
        trade_offs(picked)


def _is_of_some_seeds(picked: Picked, names: Sequence[str]) -> bool:
    """Whether a figure of a method is left out because some of its seeds alone have it."""
    of_any, of_all = (
        rows.groupby("recipe")[list(names)].count() > 0 for rows in (picked.each, picked.methods)
    )
    return bool((of_any & ~of_all).to_numpy().any())


def _shown_figures(order: str) -> list[str]:
    """The figures that are asked for, in the order of all, behind the one that orders the rows.

    A phone shows one figure beside the names, and that should be the one by which they are sorted.
    """
    groups = {group.title: group.figures for group in backend.figure_groups()}
    known = backend.score_figures()
    main = tuple(name for name, figure in known.items() if figure.is_main)
    parts_of = {_MAIN: main, **groups}
    chosen = st.pills(
        "Figures",
        list(parts_of),
        selection_mode="multi",
        default=[_MAIN],
        label_visibility="collapsed",
        **state.bound("figures"),
    )
    wanted = {name for part in chosen or [_MAIN] for name in parts_of[part]}
    return [order, *(name for name in known if name in wanted and name != order)]


def _table(picked: Picked, shown: Sequence[str]) -> None:
    rows, known = picked.rows, backend.score_figures()
    columns: dict[str, object] = {"name": picked.labels}
    config: dict = {
        "name": st.column_config.TextColumn(
            "method" if picked.together else "student",
            pinned=True,
            width=150 if picked.together else 200,
            help="What its students' names have of their own. A tick makes the student the one that all "
            "pages show, and a second one the other of *Two students*.",
        )
    }
    if picked.together:
        columns["seeds"] = _seeds(rows)
        config["seeds"] = st.column_config.Column(
            "seeds",
            width=50,
            help="Students that differ by seed alone; of those measured, where not all are.",
        )
    else:
        columns["method"] = rows["method"].to_numpy()
    texts = {}
    for name in shown:
        figure = known[name]
        deviations = rows.get(f"{name}_std", pd.Series(index=rows.index, dtype=float))
        columns[name], texts[name] = _column(figure, rows[name], deviations)
        config[name] = st.column_config.NumberColumn(
            figure.title, help=f"{figure.meaning} {_DIRECTION[figure.better]}"
        )
    table = pd.DataFrame(columns)
    styled = figures.styled(table, texts)
    for name in shown:
        best = backend.is_best(rows, name, picked.compared(rows)).to_numpy()
        styled = styled.apply(
            lambda column, best=best: [_BEST if is_best else "" for is_best in best],
            subset=[name],
        )
    st.dataframe(
        styled,
        key=_key(picked),
        on_select=lambda: _ticked(picked),
        selection_mode="multi-row",
        hide_index=True,
        placeholder=_placeholder(picked, shown),
        height="content" if len(table) <= _ROWS else 38 + 35 * _ROWS,
        column_config=config,
        alt="Leaderboard of the students, best first; tick a row to choose the student, and a second one "
        "to compare the two",
    )


def _seeds(rows: pd.DataFrame) -> list[int] | list[str]:
    """How many seeds each mean is over, and of how many where others are not measured."""
    if not rows["unmeasured"].any():
        return list(rows["seeds"])
    both = zip(rows["seeds"], rows["unmeasured"], strict=True)
    return [f"{seeds} of {seeds + more}" if more else f"{seeds}" for seeds, more in both]


def _placeholder(picked: Picked, shown: Sequence[str]) -> str:
    """What stands in all empty cells: why they are."""
    groups = {name: group.name for group in backend.figure_groups() for name in group.figures}
    unmeasured, none = False, False
    for name in shown:
        is_empty = picked.rows[name].isna().to_numpy()
        lacks = picked.lacks(groups[name])
        unmeasured |= bool((is_empty & lacks).any())
        none |= bool((is_empty & ~lacks).any())
    return "no figure" if unmeasured and none else "not measured" if unmeasured else "none"


def _key(picked: Picked) -> str:
    return f"leaderboard_{picked.together}_{picked.order}"


def _ticked(picked: Picked) -> None:
    """Take up the rows that are ticked: the first as the student of all pages, the last as the other."""
    names = [picked.shown[row] for row in st.session_state[_key(picked)]["selection"]["rows"]]
    before = st.session_state.get("_ticked", [])
    # The table tells them from top to bottom.
    ticked = [name for name in before if name in names] + [n for n in names if n not in before]
    st.session_state["_ticked"] = ticked
    if ticked:
        st.session_state["student"] = ticked[0]
    if len(ticked) > 1:
        state.put("other", ticked[-1])


def _two_ticked(picked: Picked) -> None:
    """The way to the two that are ticked."""
    ticked = st.session_state.get("_ticked", [])
    rows = st.session_state.get(_key(picked), {}).get("selection", {}).get("rows", [])
    if len(rows) < 2 or len(ticked) < 2:
        return
    labels = dict(zip(picked.shown, picked.labels, strict=True))
    first, other = (labels.get(ticked[place], ticked[place]) for place in (0, -1))
    st.button(
        f"Compare {first} with {other}, image by image",
        icon=":material/compare_arrows:",
        key="two_ticked",
        on_click=lambda: st.session_state.update(part="Two students"),
    )


def _column(
    figure: backend.Figure, values: pd.Series, deviations: pd.Series
) -> tuple[list[float], object]:
    """Values to sort by and how each is written.

    A cell's text is found by its value, so equal values whose spreads differ are told apart by an amount
    that no text shows.
    """
    numbers, texts = [], {}
    for value, deviation in zip(values, deviations, strict=True):
        number = float(value)
        text = backend.figure_text(figure, number, float(deviation))
        while texts.get(number, text) != text:
            number += 1e-12 * max(1.0, abs(number))
        texts[number] = text
        numbers.append(number)
    return numbers, texts.__getitem__


def _downloads(choice: backend.Choice, picked: Picked, shown: Sequence[str]) -> None:
    with st.container(horizontal=True):
        for suffix, label, mime in (
            (".csv", "CSV", "text/csv"),
            (".parquet", "Parquet", "application/vnd.apache.parquet"),
            (".tex", "LaTeX", "application/x-tex"),
        ):
            st.download_button(
                label,
                # Made when it is asked for: a table for LaTeX takes longer than the page.
                lambda suffix=suffix: backend.leaderboard_file(
                    choice,
                    picked.rows,
                    shown,
                    suffix,
                    names=picked.labels,
                    among=picked.compared(picked.rows),
                ),
                file_name=f"leaderboard-{choice.teacher}-{choice.norm}-{choice.epsilon:g}{suffix}",
                mime=mime,
                icon=":material/download:",
                on_click="ignore",
                key=f"leaderboard_{suffix[1:]}",
                help="The table as shown: these rows in this order, these figures.",
            )
        with st.popover("Reproduce", icon=":material/terminal:"):
            st.code(
                backend.reproduce_scores(choice, picked.students),
                language="bash",
                wrap_lines=False,
            )


def _unmeasured(choice: backend.Choice, picked: Picked) -> None:
    names = picked.board.unmeasured
    if not names:
        return
    ball = figures.ball(choice.epsilon, choice.norm)
    with st.container(border=True):
        st.markdown(
            f"**Not measured in all figures** within {ball} on {choice.count} images with bounds of the "
            f"level {backend.level_title(choice)}: {_listed(names)}."
        )
        st.caption(
            f"Missing: {_missing_groups(picked)}. What stored analyses tell is shown. Measuring attacks "
            "each student in several ways, and takes about a minute each for small networks; what is "
            "finished is kept."
        )
        parts.offer_run(
            backend.live_scores(choice, names),
            choice.dataset,
            key="score",
            label=f"Measure {len(names)} student{'s' if len(names) > 1 else ''}",
            work="measurement",
            lack="nothing more can be measured",
            start=lambda: backend.start_scores(choice, names),
        )
        _measured_elsewhere(choice, names)


def _missing_groups(picked: Picked) -> str:
    """Titles of the groups of which some student's figures are missing."""
    missing = ", ".join(picked.board.students["missing"]).split(", ")
    return ", ".join(
        group.title.lower() for group in backend.figure_groups() if group.name in missing
    )


def _measured_elsewhere(choice: backend.Choice, names: Sequence[str]) -> None:
    radii = backend.measured_radii(choice, names)
    if not radii:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown("Measured at other radii:", width="content")
        for epsilon in radii:
            st.button(
                figures.ball(epsilon, choice.norm),
                key=f"measured_{epsilon:g}",
                on_click=_take_radius,
                args=(epsilon,),
            )


def _take_radius(epsilon: float) -> None:
    st.session_state["epsilon"] = f"{epsilon:g}"


def _listed(names: Sequence[str], most: int = 8) -> str:
    """Names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
