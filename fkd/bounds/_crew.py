"""Chunks of sets bounded side by side, each by one thread.

Branch and bound is a long chain of small tensor operations, which gain little from threads inside an
operation: on 4 cores 512 domains took 6.1 s with 4 threads each, 4.0 s with one.  So the cores go to
different examples.  Results then do not depend on how many threads there are, either.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from fkd.bounds._memory import in_chunks
from fkd.core.errors import Cancelled

T = TypeVar("T")

#: Of a chunk: how many of its sets are done, and any numbers worth showing.
Tell = Callable[..., None]


@dataclass(frozen=True)
class Chunk(Generic[T]):
    """What became of some rows: everything, what was proved before it was stopped, or nothing.

    Attributes:
        rows: which.
        parts: results of consecutive rows from the first on.
    """

    rows: slice
    parts: list[T]


class Crew(Generic[T]):
    """Does chunks of work on threads and reports from the thread that asked.

    Args:
        work: bounds rows, told by whom to report them; its `Cancelled` may carry a partial result.
        tell: called in the caller's thread with all sets done so far and a chunk's numbers; it raises
            `Cancelled` to stop.
        threads: how many chunks at a time.
    """

    def __init__(
        self, work: Callable[[slice, Tell], T], tell: Tell, *, threads: int, is_cpu: bool
    ) -> None:
        self.work, self.tell, self.threads, self.is_cpu = work, tell, threads, is_cpu
        self._stop = threading.Event()
        self._reports: queue.SimpleQueue[tuple[int, int, dict[str, Any]] | None] = (
            queue.SimpleQueue()
        )

    def run(self, count: int, size: int) -> tuple[list[Chunk[T]], Cancelled | None]:
        """Rows 0 to ``count`` in chunks of ``size``.

        Returns:
            All chunks in order, and why it was stopped, if it was.
        """
        rows = [slice(start, min(start + size, count)) for start in range(0, count, size)]
        before = torch.get_num_threads()
        stopped: Cancelled | None = None
        with ThreadPoolExecutor(self.threads, initializer=self._settle_in) as pool:
            try:
                running = [
                    pool.submit(self._chunk, number, part) for number, part in enumerate(rows)
                ]
                stopped = self._relay(len(rows))
            finally:
                # Also where the caller's own code failed or was interrupted: nobody waits for the rest.
                self._stop.set()
        if self.is_cpu:
            # The number that threads started later begin with.
            torch.set_num_threads(before)
        return [job.result() for job in running], stopped

    def _settle_in(self) -> None:
        if self.is_cpu:
            torch.set_num_threads(1)

    def _relay(self, chunks: int) -> Cancelled | None:
        """Pass reports on until every chunk has ended."""
        done = [0] * chunks
        stopped: Cancelled | None = None
        while chunks:
            report = self._reports.get()
            if report is None:
                chunks -= 1
                continue
            number, reached, values = report
            done[number] = max(done[number], reached)
            if stopped is None:
                try:
                    self.tell(sum(done), **values)
                except Cancelled as stop:
                    stopped = stop
                    self._stop.set()
        return stopped

    def _chunk(self, number: int, rows: slice) -> Chunk[T]:
        """One chunk, in smaller ones where memory is short."""

        def tell(done: int, **values: Any) -> None:
            if self._stop.is_set():
                raise Cancelled("Stopped, as asked.")
            self._reports.put((number, done, values))

        def part(inner: slice) -> T:
            tell(inner.start)
            shifted = slice(rows.start + inner.start, rows.start + inner.stop)
            return self.work(shifted, lambda done, **values: tell(inner.start + done, **values))

        parts: list[T] = []
        count = rows.stop - rows.start
        try:
            for result in in_chunks(count, count, part):
                parts.append(result)
            self._reports.put((number, count, {}))
        except Cancelled as stop:
            if stop.partial is not None:
                parts.append(stop.partial)
        except BaseException:
            self._stop.set()
            raise
        finally:
            self._reports.put(None)
        return Chunk(rows, parts)
