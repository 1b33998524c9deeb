"""How many runs go on at once and how patient a cancellation is; environment variables change it."""

from __future__ import annotations

import os

from fkd.core.errors import ConfigError


def _number(variable: str, default: float, smallest: float, whole: bool = False) -> float:
    text = os.environ.get(variable, "").strip()
    if not text:
        return default
    try:
        value = float(int(text)) if whole else float(text)
    except ValueError:
        value = float("nan")
    if not smallest <= value < float("inf"):
        raise ConfigError(
            f"{variable} must be a {'whole ' if whole else ''}number of at least {smallest:g}, "
            f"got '{text}'; correct it or unset it for {default:g}."
        )
    return value


def max_active_runs() -> int:
    """Runs that may have a process at once (``FKD_MAX_RUNS``, default 1: each uses every core)."""
    return int(_number("FKD_MAX_RUNS", 1, 1, whole=True))


def cancel_grace_seconds() -> float:
    """Time a cancelled run has to stop by itself before it is killed (``FKD_CANCEL_GRACE``)."""
    return _number("FKD_CANCEL_GRACE", 60, 0)
