"""Gaps in figures for people: what was reached is rounded down, what bounds is rounded up.

Rounded to the nearest, an attack would claim more than it found and a certificate less than it proved.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

#: Decimals of a gap wherever people read one.
GAP_DIGITS = 3


def reached_text(gap: float) -> str:
    """A gap that was reached, in [0, 1], rounded down: ``0.9299`` is ``0.929``."""
    return _rounded(gap, ROUND_FLOOR)


def bound_text(gap: float) -> str:
    """An upper bound of a gap, in [0, 1], rounded up: ``0.9291`` is ``0.930``."""
    return _rounded(gap, ROUND_CEILING)


def _rounded(value: float, direction: str) -> str:
    # Twelve digits first: a float just beside a decimal (0.3 as 0.30000000000000004) means it.
    exact = Decimal(f"{value:.12f}")
    return str(exact.quantize(Decimal(1).scaleb(-GAP_DIGITS), rounding=direction))
