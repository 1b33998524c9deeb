"""Progress of foreground work on stderr: a bar in a terminal, now and then a line elsewhere."""

from __future__ import annotations

import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from tqdm import tqdm

from fkd.cli.output import complain
from fkd.core.progress import Progress

_LINE_SECONDS = 10.0
#: tqdm redraws when the count grows; what changes beside it (a live bracket) is redrawn this often.
_REDRAW_SECONDS = 0.25


class ProgressBar:
    """A progress callback that shows one bar per stage, and turns Ctrl-C into a clean stop.

    The first Ctrl-C answers the next report with True, so the work stops at a safe point; the second
    interrupts at once.

    Args:
        quiet: show nothing (errors still come).
        what: put before each stage, a student's name say.

    Example:
        >>> from fkd.core.progress import Progress
        >>> with ProgressBar(quiet=True) as progress:
        ...     progress(Progress("attack", 1, 2))
        False
    """

    def __init__(self, *, quiet: bool = False, what: str = "") -> None:
        self.what = what
        self._is_quiet = quiet
        self._is_terminal = sys.stderr.isatty()
        self._bar: tqdm | None = None
        self._stage = ""
        self._line_at = 0.0
        self._drawn_at = 0.0
        self._is_stopping = False
        self._old_handler: Any = None

    def __enter__(self) -> ProgressBar:
        if threading.current_thread() is threading.main_thread():
            self._old_handler = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()
        if self._old_handler is not None:
            signal.signal(signal.SIGINT, self._old_handler)

    def __call__(self, progress: Progress) -> bool:
        """Show one report; True once Ctrl-C was pressed."""
        if not self._is_quiet:
            if self._is_terminal:
                self._draw(progress)
            else:
                self._write_line(progress)
        return self._is_stopping

    @property
    def is_stopping(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self._is_stopping

    def _interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        if self._is_stopping:
            raise KeyboardInterrupt
        self._is_stopping = True
        complain("\nStopping at the next safe point; press Ctrl-C again to stop at once.")

    def _label(self, stage: str) -> str:
        return f"{self.what}: {stage}" if self.what else stage

    def _draw(self, progress: Progress) -> None:
        if self._bar is None or progress.stage != self._stage:
            self._close()
            self._stage = progress.stage
            self._bar = tqdm(
                desc=self._label(progress.stage),
                total=progress.total or None,
                dynamic_ncols=True,
                unit="",
                unit_scale=progress.total >= 100_000,
                file=sys.stderr,
            )
        if progress.values:
            self._bar.set_postfix_str(describe_values(progress.values), refresh=False)
        self._bar.n = progress.done
        self._bar.update(0)
        # The last report of a stage comes too soon after the one before for tqdm's own clock.
        is_last = bool(progress.total) and progress.done >= progress.total
        now = time.monotonic()
        if is_last or (progress.values and now - self._drawn_at >= _REDRAW_SECONDS):
            self._drawn_at = now
            self._bar.refresh()

    def _write_line(self, progress: Progress) -> None:
        now = time.monotonic()
        is_last = bool(progress.total) and progress.done >= progress.total
        if progress.stage == self._stage and not is_last and now - self._line_at < _LINE_SECONDS:
            return
        self._stage, self._line_at = progress.stage, now
        values = describe_values(progress.values)
        complain(
            f"{self._label(progress.stage)}: {progress.done} of {progress.total}"
            + (f" ({values})" if values else "")
        )

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def describe_values(values: dict[str, Any]) -> str:
    """``epoch 2 of 20, loss 0.123``: a report's numbers in words; a live bracket as `_bracket` has it."""
    if values.keys() >= {"lower", "upper"}:
        return _bracket(values)
    words = []
    for name, value in values.items():
        if name == "epochs" and "epoch" in values:
            continue
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        if name == "epoch" and "epochs" in values:
            shown = f"{shown} of {values['epochs']}"
        words.append(f"{name.replace('_', ' ')} {shown}")
    return ", ".join(words)


def _bracket(values: dict[str, Any]) -> str:
    """``example 3: gap 0.312 to 0.456, 12 open, 90 evaluated, 2.1 s``, what is present of it."""
    from fkd.cli.output import bound, gap

    words = [f"gap {gap(values['lower'])} to {bound(values['upper'])}"]
    words += [f"{values[name]} {name}" for name in ("open", "evaluated") if name in values]
    if "seconds" in values:
        words.append(f"{values['seconds']:.1f} s")
    example = f"example {values['example']}: " if "example" in values else ""
    return example + ", ".join(words)
