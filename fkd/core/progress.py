"""How long work reports itself and how it is stopped: one callback for the CLI, pages and workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fkd.core.errors import Cancelled


@dataclass(frozen=True)
class Progress:
    """One report: ``done`` of ``total`` units of ``stage``, with any numbers worth showing."""

    stage: str
    done: int
    total: int
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def fraction(self) -> float:
        """Share done, in [0, 1]."""
        return min(1.0, self.done / self.total) if self.total else 0.0


#: Called with each report; returning True asks the work to stop at the next safe point.
ProgressCallback = Callable[[Progress], bool | None]


def report(
    callback: ProgressCallback | None, stage: str, done: int, total: int, **values: Any
) -> None:
    """Send one report.

    Raises:
        Cancelled: the callback answered True.
    """
    if callback is not None and callback(Progress(stage, done, total, values)):
        raise Cancelled(f"Stopped during {stage} after {done} of {total}, as asked.")
