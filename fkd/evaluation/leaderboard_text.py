"""Leaderboards for people and papers: figures as text, LaTeX, CSV and Parquet."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd
import pyarrow as pa

from fkd.core.errors import ConfigError
from fkd.core.registry import unknown_name_sentence
from fkd.core.versions import package_versions
from fkd.evaluation.leaderboard_summary import fact_columns, figures_of, leaderboard_columns
from fkd.evaluation.rounding import bound_text, reached_text
from fkd.evaluation.scored_pair import ScoresConfig
from fkd.evaluation.scores import Figure
from fkd.records import SCHEMA_VERSION, Column, write_table

#: Suffixes of files that `leaderboard_bytes` makes.
LEADERBOARD_FORMATS = (".csv", ".parquet", ".tex")

#: Means of shares that are all 1 may be this much less.
_ROUNDING = 1e-9

_WHOLE = ("bytes", "examples", "number", "FLOPs")

#: Below it a number is written with a power of ten: a row of zeros is miscounted.
_SMALL = 1e-3
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_LOWERED = {raised: plain for plain, raised in _RAISED.items()}


def figure_text(
    figure: Figure,
    value: float | None,
    deviation: float | None = None,
    *,
    with_unit: bool = True,
) -> str:
    """A figure's value as people read it; a dash where it is missing.

    What was reached is rounded down and what bounds is rounded up, as everywhere; 9,999 of 10,000 are
    not 100 %.

    Args:
        figure: which one.
        value: in its unit.
        deviation: standard deviation over seeds, written after it; None or NaN where there is none.
        with_unit: whether the unit follows.

    Example:
        >>> from fkd.evaluation import all_figures, figure_text
        >>> figure_text(all_figures()["clean_accuracy"], 0.9782)
        '97.8 %'
        >>> figure_text(all_figures()["gap_certified_mean"], 0.12301, 0.004)
        '0.124 ± 0.004'
        >>> figure_text(all_figures()["kl_inside"], 0.0000107)
        '1.07·10⁻⁵'
    """
    if value is None or math.isnan(value):
        return "-"
    spread = "" if deviation is None else _deviation_text(figure, deviation, value)
    unit = {"share": " %", "s": " s", "ms": " ms"}.get(figure.unit, "") if with_unit else ""
    return _number(figure, value) + (f" ± {spread}" if spread else "") + unit


def _number(figure: Figure, value: float) -> str:
    if figure.unit == "share":
        return _percentage(value)
    if figure.unit == "probability" and figure.rounding != "nearest":
        return bound_text(value) if figure.rounding == "up" else reached_text(value)
    if figure.unit in ("probability", "area"):
        return f"{value:.3f}"
    if figure.unit == "probability, signed":
        return f"{value:+.3f}"
    return f"{value:,.0f}" if figure.unit in _WHOLE else _three_digits(value)


def _three_digits(value: float) -> str:
    """Three digits as people write them: ``0.0430``, ``1.07·10⁻⁵``, ``12,346``."""
    # As it will be written: 999.6 is 1,000, and 0.0009996 is 0.001.
    written = float(f"{value:.3g}")
    if written == 0.0:
        return "0"
    power = _power(written)
    if power:
        return f"{written / 10.0**power:#.3g}{_times(power)}"
    # With its zeros: below each other, 0.3 and 0.296 seem to be known differently well.
    return f"{value:,.0f}" if abs(written) >= 1000.0 else f"{value:#.3g}".rstrip(".")


def _power(value: float) -> int:
    """The power of ten that is written with a number; 0 where none is."""
    return math.floor(math.log10(abs(value))) if 0.0 < abs(value) < _SMALL else 0


def _times(power: int) -> str:
    return "·10" + str(power).translate(_RAISED)


def _percentage(share: float) -> str:
    """A share as a percentage, with more digits where one would make all or none of what is neither."""
    is_between = _ROUNDING < share < 1.0 - _ROUNDING
    texts = (f"{100 * share:.{digits}f}" for digits in range(1, 8))
    return next(text for text in texts if not is_between or 0.0 < float(text) < 100.0)


def latex_table(
    table: pd.DataFrame,
    figures: Sequence[str] | None = None,
    *,
    caption: str | None = None,
    label: str | None = None,
    among: pd.Series | None = None,
    names: Sequence[str] | None = None,
) -> str:
    """A `leaderboard` or a `spread` as a LaTeX table (it needs the package booktabs).

    Rows are students (of a spread: methods, with mean and standard deviation); the best of each figure
    is bold, several where they are equal as written and none where all are.

    Args:
        table: the students.
        figures: which figures, in this order; the main ones if None (all, where none is one).
        caption: of the table; with one (or a label) it becomes a float.
        label: for references.
        among: bool, one entry a row: of which rows the best is bold; all if None.
        names: what the rows are called in place of their students or methods: two settings of one
            method have its name in common.

    Raises:
        ConfigError: a figure is no column of the table.
    """
    known = {figure.name: figure for figure in figures_of(table)}
    main = [name for name, figure in known.items() if figure.is_main] or list(known)
    chosen = main if figures is None else list(figures)
    for name in chosen:
        if name not in known:
            raise ConfigError(unknown_name_sentence("figure", name, list(known)))
    facts = ["student", "method"] if "student" in table else ["method", "architecture", "seeds"]
    shown = table[facts].astype(str)
    if names is not None:
        shown[facts[0]] = list(names)
    shown = shown.map(_escaped)
    for name in chosen:
        shown[name] = _cells(table, known[name], among)
    titles = {name: _heading(known[name]) for name in chosen}
    styled = shown.rename(columns=titles).style.hide(axis="index")
    return styled.to_latex(
        column_format="l" * len(facts) + "r" * len(chosen),
        hrules=True,
        caption=caption,
        label=label,
        position="htbp" if caption or label else None,
        position_float="centering" if caption or label else None,
    )


def _heading(figure: Figure) -> str:
    unit = {"share": r"\%", "s": "s", "ms": "ms", "nats": "nats"}.get(figure.unit)
    title = _escaped(figure.title)
    return f"{title} ({unit})" if unit else title


def _cells(table: pd.DataFrame, figure: Figure, among: pd.Series | None) -> list[str]:
    """A figure's column, the best of those that are compared in bold."""
    values = table[figure.name]
    texts = [figure_text(figure, value, with_unit=False) for value in values]
    compared = values if among is None else values.where(among)
    best = None
    written = {text for text, known in zip(texts, compared.notna(), strict=True) if known}
    # Where all are written alike none is the best.
    if figure.better != "neither" and len(written) > 1:
        place = compared.argmax() if figure.better == "higher" else compared.argmin()
        best = texts[int(place)]
    is_bold = [t == best and known for t, known in zip(texts, compared.notna(), strict=True)]
    cells = [
        rf"\textbf{{{_in_latex(text)}}}" if bold else _in_latex(text)
        for text, bold in zip(texts, is_bold, strict=True)
    ]
    if f"{figure.name}_std" not in table:
        return cells
    deviations = [
        _deviation_text(figure, deviation, value)
        for deviation, value in zip(table[f"{figure.name}_std"], values, strict=True)
    ]
    return [
        cell + (rf" $\pm$ {_in_latex(deviation)}" if deviation else "")
        for cell, deviation in zip(cells, deviations, strict=True)
    ]


def _in_latex(text: str) -> str:
    """A number with a minus sign in place of a hyphen, and powers raised; a dash for a missing one."""
    if text == "-":
        return "--"
    digits, times, power = text.partition("·10")
    if digits.startswith("-"):
        digits = f"$-${digits[1:]}"
    # The digits stay outside of the formula, in which bold type has no effect.
    return rf"{digits} $\cdot 10^{{{power.translate(_LOWERED)}}}$" if times else digits


def _deviation_text(figure: Figure, value: float, mean: float) -> str:
    """A standard deviation in the digits of its figure, which no rounding to a safe side concerns."""
    if math.isnan(value):
        return ""
    if figure.unit == "share":
        return f"{100 * value:.1f}"
    if figure.unit in _WHOLE:
        return f"{value:,.0f}"
    if figure.unit.startswith(("probability", "area")):
        return f"{value:.3f}"
    if power := _power(float(f"{mean:.3g}")):
        return f"{value / 10.0**power:.2f}{_times(power)}"
    # Three digits of the mean leave so many after the point.
    size = abs(mean) or value
    places = 2 - math.floor(math.log10(size)) if size > 0 else 2
    return f"{value:.{max(0, places)}f}"


def _escaped(text: str) -> str:
    """Text with LaTeX's special characters as themselves."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


def leaderboard_bytes(
    table: pd.DataFrame,
    suffix: Literal[".csv", ".parquet", ".tex"],
    *,
    measured: ScoresConfig,
    names: Sequence[str] | None = None,
    figures: Sequence[str] | None = None,
    among: pd.Series | None = None,
) -> bytes:
    """A `leaderboard` or a `spread` as the content of a file that says what was measured.

    CSV and Parquet begin with the columns `MEASURED_COLUMNS` of `fkd.evaluation.leaderboard_summary`.
    Parquet holds each column's unit and meaning as field metadata, as all tables do, and the whole
    configuration; LaTeX is `latex_table` below a comment.

    Args:
        table: the students.
        suffix: one of `LEADERBOARD_FORMATS`.
        measured: the configuration of any of the students: all share what is told of it.
        names: what the rows are called; the column ``name``.
        figures: of LaTeX, see `latex_table`.
        among: of LaTeX, see `latex_table`.

    Raises:
        ConfigError: another suffix.
    """
    if suffix == ".tex":
        latex = latex_table(table, figures, among=among, names=names)
        return f"% {_measured_text(measured)}\n{latex}".encode()
    table = _with_measured(table, measured, names)
    if suffix == ".csv":
        return table.to_csv(index=False).encode()
    if suffix != ".parquet":
        raise ConfigError(
            f"A leaderboard is written as {', '.join(LEADERBOARD_FORMATS)}, got '{suffix}'; choose one."
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "leaderboard.parquet"
        metadata = {
            "schema": SCHEMA_VERSION,
            "versions": package_versions(),
            "config": measured.model_dump(mode="json", exclude={"student"}),
        }
        write_table(path, table, metadata, _columns(table))
        return path.read_bytes()


def _with_measured(
    table: pd.DataFrame, measured: ScoresConfig, names: Sequence[str] | None
) -> pd.DataFrame:
    """The table behind what its rows are called and what all of them were measured on."""
    first: dict[str, object] = {} if names is None else {"name": list(names)}
    first |= {
        "dataset": measured.dataset,
        "norm": measured.norm,
        "epsilon": measured.epsilon,
        "count": measured.count,
        "certificate": measured.certificate.name,
    }
    return table.assign(**first)[[*first, *(column for column in table if column not in first)]]


def _measured_text(measured: ScoresConfig) -> str:
    teacher = Path(measured.teacher).name
    return (
        f"Students of {teacher} on the first {measured.count} {measured.split} examples of "
        f"{measured.dataset}; ball: {measured.norm}, radius {measured.epsilon:g}; certificate: "
        f"{measured.certificate.name}."
    )


def _columns(table: pd.DataFrame) -> tuple[Column, ...]:
    facts = fact_columns()
    documented = leaderboard_columns(table)
    return tuple(
        facts.get(row.column)
        or Column(row.column, pa.float64(), row.unit, f"{row.title}. {row.meaning}", nullable=True)
        for row in documented.itertuples()
    )
