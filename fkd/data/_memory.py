"""Splits kept in memory: shared by all threads of the process, bounded in bytes, never stale."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

from fkd.data.base import Split

#: MNIST, Fashion-MNIST and CIFAR-10 as float32 together take 1.2 GiB.
MAX_BYTES = 2 * 2**30


class SplitCache:
    """The splits used last, each remembered with the state of the files it was read from.

    Several Streamlit sessions share one process, so a split is read once however many ask for it at
    the same time, and a reader of one split never waits for another split's reader.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self._splits: OrderedDict[Hashable, tuple[Hashable, Split]] = OrderedDict()
        self._lock = threading.Lock()
        self._readers: dict[Hashable, tuple[threading.Lock, int]] = {}

    def find(self, key: Hashable, state: Hashable) -> Split | None:
        """The split under ``key`` if it was read from files in this very state."""
        with self._lock:
            entry = self._splits.get(key)
            if entry is None or entry[0] != state:
                return None
            self._splits.move_to_end(key)
            return entry[1]

    def get(self, key: Hashable, state: Hashable, read: Callable[[], Split]) -> Split:
        """The remembered split, else what ``read`` returns, remembered from now on."""
        split = self.find(key, state)
        if split is not None:
            return split
        with self._reading(key):
            split = self.find(key, state)  # another thread may have read it while this one waited
            if split is None:
                split = read()
                self._keep(key, state, split)
        return split

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._splits.clear()

    def _keep(self, key: Hashable, state: Hashable, split: Split) -> None:
        with self._lock:
            self._splits[key] = (state, split)
            self._splits.move_to_end(key)
            held = sum(kept.nbytes for _, kept in self._splits.values())
            while held > self.max_bytes and len(self._splits) > 1:
                _, (_, dropped) = self._splits.popitem(last=False)
                held -= dropped.nbytes

    @contextmanager
    def _reading(self, key: Hashable) -> Iterator[None]:
        """One reader a key; the lock exists only while someone holds or awaits it."""
        with self._lock:
            lock, users = self._readers.get(key, (threading.Lock(), 0))
            self._readers[key] = (lock, users + 1)
        try:
            with lock:
                yield
        finally:
            with self._lock:
                lock, users = self._readers[key]
                if users == 1:
                    del self._readers[key]
                else:
                    self._readers[key] = (lock, users - 1)


SPLITS = SplitCache()
