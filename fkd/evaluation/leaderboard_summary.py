"""What a leaderboard says: which figures it has, seeds together as one row, and who is ahead in two."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

from fkd.core.errors import ConfigError
from fkd.core.registry import unknown_name_sentence
from fkd.evaluation.leaderboard import STUDENT_COLUMNS
from fkd.evaluation.scores import SCORES, Figure, all_figures, group_names
from fkd.records import EPSILON_COLUMN, Column

#: What `spread` tells of students that differ only by seed, before their figures.
SPREAD_COLUMNS: tuple[Column, ...] = (
    *(column for column in STUDENT_COLUMNS if column.name in ("teacher", "method", "architecture")),
    next(column for column in STUDENT_COLUMNS if column.name == "recipe"),
    Column("students", pa.string(), "name", "Names of the students, separated by commas."),
    Column(
        "seeds",
        pa.int64(),
        "number",
        "How many different seeds those were trained with of which the means are.",
    ),
    Column(
        "unmeasured",
        pa.int64(),
        "number",
        "How many of the students are in no mean, as they lack groups of figures that others have.",
    ),
)

#: What files of leaderboards say of what was measured, before the students.
MEASURED_COLUMNS: tuple[Column, ...] = (
    Column("name", pa.string(), "name", "What the row is called among these."),
    Column("dataset", pa.string(), "name", "Data set."),
    Column("norm", pa.string(), "name", "Norm of the ball: linf or l2."),
    EPSILON_COLUMN,
    Column("count", pa.int64(), "examples", "Examples of which the figures in balls are."),
    Column("certificate", pa.string(), "name", "Certificate of the pair's bounds."),
)


def fact_columns() -> dict[str, Column]:
    """All that a leaderboard may tell beside figures, by the column's name."""
    known = (*MEASURED_COLUMNS, *STUDENT_COLUMNS, *SPREAD_COLUMNS)
    return {column.name: column for column in known}


def leaderboard_columns(table: pd.DataFrame) -> pd.DataFrame:
    """What each column of a `leaderboard` or a `spread` is.

    Returns:
        A row a column: ``column, title, unit, better, meaning``; ``better`` is empty for what is no
        figure.
    """
    facts = fact_columns()
    figures = all_figures()
    rows = []
    for name in table.columns:
        figure = figures.get(name) or figures.get(name.removesuffix("_std"))
        if name in facts:
            fact = facts[name]
            rows.append((name, name, fact.unit, "", fact.meaning))
        elif figure is None:
            rows.append((name, name, "", "", ""))
        elif name in figures:
            rows.append((name, figure.title, figure.unit, figure.better, figure.meaning))
        else:
            title = f"{figure.title}, spread"
            meaning = f"Standard deviation over seeds of: {figure.meaning}"
            rows.append((name, title, figure.unit, "neither", meaning))
    return pd.DataFrame(rows, columns=["column", "title", "unit", "better", "meaning"])


def figures_of(table: pd.DataFrame) -> list[Figure]:
    """The figures that are columns of a `leaderboard` or a `spread`, in its order."""
    figures = all_figures()
    return [figures[name] for name in table.columns if name in figures]


def spread(table: pd.DataFrame) -> pd.DataFrame:
    """Students that differ only by seed as one row: mean and standard deviation of each figure.

    All means of a row are over the same students: those of which every group of figures is known that is
    known of any of them.  So a seed that was trained a moment ago does not hide what is known of the
    others.

    Args:
        table: a `leaderboard`.

    Returns:
        `SPREAD_COLUMNS`, then for each figure its mean, and as ``FIGURE_std`` the standard deviation of a
        sample (N - 1), NaN for one student.  Both are NaN where any of those students lacks the figure,
        and means are over all where no student has all groups.  Rows are in the order of their first
        students.
    """
    figures = [figure.name for figure in figures_of(table)]
    by = ["teacher", "method", "architecture", "recipe"]
    keys = [table[name] for name in by]
    is_known = _known_groups(table)
    of_any = is_known.groupby(keys, sort=False).transform("any")
    is_full = (is_known | ~of_any).all(axis=1)
    # Where none has all, nobody is told apart.
    is_full |= ~is_full.groupby(keys, sort=False).transform("any")
    grouped, full = table.groupby(by, sort=False), table[is_full].groupby(by, sort=False)
    facts = pd.concat(
        [
            grouped.agg(students=("student", ", ".join)),
            # One null among seeds is a student that was not trained here.
            full["seed"].agg(lambda seeds: seeds.nunique(dropna=False)).rename("seeds"),
            (grouped.size() - full.size()).rename("unmeasured"),
        ],
        axis=1,
    ).reindex(grouped.size().index)
    is_whole = full[figures].count().eq(full.size(), axis=0)
    means = full[figures].mean().where(is_whole).reindex(facts.index)
    deviations = full[figures].std(ddof=1).where(is_whole).reindex(facts.index).add_suffix("_std")
    ordered = [name for figure in figures for name in (figure, f"{figure}_std")]
    both = pd.concat([means, deviations], axis=1)[ordered].reset_index(drop=True)
    return pd.concat([facts.reset_index(), both], axis=1)


def _known_groups(table: pd.DataFrame) -> pd.DataFrame:
    """Whether any figure of a group is known of a student, a column a group."""
    columns = {
        name: [figure.name for figure in SCORES.get(name).figures if figure.name in table]
        for name in group_names()
    }
    return pd.DataFrame(
        {name: table[of].notna().any(axis=1) for name, of in columns.items() if of},
        index=table.index,
    )


def pareto(table: pd.DataFrame, x: str, y: str, *, among: pd.Series | None = None) -> pd.Series:
    """Which rows no other row beats in two figures: the Pareto front.

    A row is beaten by one that is at least as good in both figures and better in one.

    Args:
        table: a `leaderboard` or a `spread`.
        x: a figure.
        y: another.
        among: bool, one entry a row: which rows are compared; all if None.

    Returns:
        bool, one entry a row of ``table``; False where one of the two figures is missing, and for rows
        that are not compared, which beat nobody either.

    Raises:
        ConfigError: one is no figure of the table, or neither end of it is better.
    """
    values = np.stack([_goodness(table, name) for name in (x, y)])
    if among is not None:
        values = np.where(among.to_numpy(dtype=bool), values, np.nan)
    is_known = ~np.isnan(values).any(0)
    # [i, j]: does j beat i?  A comparison with NaN is false.
    no_worse = (values[:, None, :] >= values[:, :, None]).all(0)
    better = (values[:, None, :] > values[:, :, None]).any(0)
    beaten = (no_worse & better).any(1)
    return pd.Series(is_known & ~beaten, index=table.index, name="is_pareto")


def _goodness(table: pd.DataFrame, name: str) -> np.ndarray:
    """A figure's values, (N,), turned so that more is better."""
    known = {figure.name: figure for figure in figures_of(table)}
    if name not in known:
        raise ConfigError(unknown_name_sentence("figure", name, list(known)))
    if known[name].better == "neither":
        raise ConfigError(
            f"Neither a high nor a low '{name}' is better, so no student is ahead in it; choose another "
            "figure."
        )
    values = table[name].to_numpy(dtype=float)
    return values if known[name].better == "higher" else -values
