"""What the page *Compare methods* compares: methods, students, their order, seeds together or apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import streamlit as st

from dashboard import backend, figures, state

_FIRST = "gap_certified_mean"


@dataclass(frozen=True)
class Picked:
    """The students compared, and how.

    Attributes:
        students: their names, best first.
        shown: the same, but of each method only the first seed where seeds are together.
        board: their figures.
        methods: the board's methods, best first.
        each: the board's students, best first.
        ways: by recipe: short name, colour and mark.
        together: whether students that differ by seed alone are one row.
        order: the figure that orders all.
        copies: whether copies of the teacher may be the best and on fronts.
    """

    students: tuple[str, ...]
    shown: tuple[str, ...]
    board: backend.Board
    methods: pd.DataFrame
    each: pd.DataFrame
    ways: Mapping[str, figures.Way]
    together: bool
    order: str
    copies: bool

    def compared(self, rows: pd.DataFrame) -> pd.Series:
        """Which of some rows, of `methods` or `each`, may be the best and on fronts."""
        is_copy = backend.is_copy(rows)
        return ~is_copy | self.copies

    def lacks(self, group: str) -> np.ndarray:
        """Of which of `rows` a group of figures is not measured, of some seed at least; bool, (N,)."""
        is_missing = self.each["missing"].map(lambda names: group in names.split(", ")).astype(bool)
        recipes = self.each.loc[is_missing, "recipe"]
        by_method = self.methods["recipe"].isin(recipes)
        return (by_method if self.together else is_missing).to_numpy()

    @property
    def rows(self) -> pd.DataFrame:
        """A row a method or a student, as seeds are together or not; best first."""
        return self.methods if self.together else self.each

    @property
    def marks(self) -> Mapping[str, figures.Way]:
        """How the rows are drawn, by the key that `drawn` has: a student looks as its method does."""
        if self.together:
            return self.ways
        both = zip(self.each["student"], self.each["recipe"], self.labels, strict=True)
        return {
            student: replace(self.ways[recipe], label=label, students=(student,))
            for student, recipe, label in both
        }

    @property
    def drawn(self) -> pd.DataFrame:
        """`rows` with the key of each one's mark as ``recipe``."""
        return self.rows if self.together else self.each.assign(recipe=self.each["student"])

    @property
    def labels(self) -> list[str]:
        """Short names of the rows."""
        if self.together:
            return [self.ways[recipe].label for recipe in self.methods["recipe"]]
        names = list(self.each["student"])
        return figures.short_names(names)[0] if len(names) > 1 else names


def pick(choice: backend.Choice) -> Picked:
    """Draw the pickers; what they say."""
    cards = backend.students(choice.dataset, choice.teacher)
    own = [c.name for c in cards if c.teacher and c.teacher.name == choice.teacher]
    method_of = {card.name: card.method for card in cards}
    recipes = backend.recipes(choice.dataset, choice.teacher)
    ways = figures.ways(recipes, own)
    left, middle, right, switch = st.columns([5, 7, 4, 3], gap="small", vertical_alignment="bottom")
    with left:
        methods = _methods(method_of, own)
    with middle:
        names = _names(
            choice, [n for n in method_of if not methods or method_of[n] in methods], own
        )
    with right:
        order = _order()
    with switch:
        together = st.toggle(
            "Seeds together",
            value=True,
            help="One row a method, mean ± standard deviation over seeds; else one row a student.",
            **state.bound("together"),
        )
        # Copies are the teacher's own weights, and win nearly every figure.
        has_copies = not set(backend.copyings()).isdisjoint(method_of[n] for n in names)
        copies = has_copies and st.toggle(
            "Copies compete",
            help="Whether rounded and pruned copies of the teacher, which were not distilled, may be "
            "marked as the best and be on the dotted line. They are shown either way.",
            **state.bound("copies"),
        )
    # The first look reads and joins some tables for each student: seconds, for twenty of them.
    with st.spinner("Putting the students' figures together …"):
        board = backend.board(choice, names)
    each = backend.ranked(board.students, order) if names else board.students
    by_method = backend.ranked(board.methods, order) if names else board.methods
    students = tuple(each["student"])
    first: dict[str, str] = {}
    for student in students if not together else each.sort_values("student")["student"]:
        first.setdefault(recipes[student] if together else student, student)
    shown = tuple(first[r] for r in by_method["recipe"]) if together else students
    return Picked(students, shown, board, by_method, each, ways, together, order, copies)


def _methods(method_of: Mapping[str, str], own: list[str]) -> list[str]:
    known = sorted({method_of[name] for name in own or method_of})
    return st.multiselect(
        "Methods",
        known,
        placeholder=f"All {len(known)}",
        help="Only students made by these; without a choice, by any.",
        **state.bound("methods"),
    )


def _names(choice: backend.Choice, names: list[str], own: list[str]) -> list[str]:
    """The students chosen; without a choice the teacher's own."""
    usual = [name for name in names if name in set(own)] or names
    chosen = st.multiselect(
        "Students",
        names,
        placeholder=f"All {len(usual)} of {choice.teacher}",
        help="Only these; without a choice all of this teacher's own. Others of the data set can be "
        "chosen too.",
        **state.bound("students"),
    )
    return chosen or usual


def _order() -> str:
    known = {
        name: figure.title
        for name, figure in backend.score_figures().items()
        if figure.better != "neither"
    }
    names = [_FIRST, *(name for name in known if name != _FIRST)]
    return st.selectbox(
        "Order by",
        names,
        help="Sorts every table and chart of the page, best first.",
        **state.bound("order", known),
    )
