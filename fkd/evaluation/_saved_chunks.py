"""What a certificate has proved so far, on disk: a dear search that is stopped goes on from there."""

from __future__ import annotations

import re
import shutil
import threading
import time
from pathlib import Path

import torch

from fkd.bounds import CertificateResult
from fkd.core.paths import results_dir
from fkd.evaluation.config import AnalysisConfig, ResolvedPair
from fkd.records import read_tensors, write_tensors

_FIELDS = ("gap_upper", "gap_lower", "agrees", "teacher_robust", "student_robust")
_NAME = re.compile(r"(\d+)-(\d+)\.safetensors")
_POINTS, _SECONDS = "points", "seconds"


class SavedChunks:
    """Finished chunks of one analysis, a file each; they go once the analysis is stored.

    Args:
        key: of the analysis: of everything that determines the result.
        device: where results are wanted.

    Attributes:
        examples: how many were found finished.
        seconds: what those took.
    """

    def __init__(self, key: str, device: torch.device) -> None:
        self.folder = results_dir() / f"{key}.partial"
        self.device = device
        self.examples, self.seconds = 0, 0.0
        self._lock = threading.Lock()
        self._since = time.perf_counter()

    def get(self, rows: slice) -> CertificateResult | None:
        """The finished chunk, or None (a damaged file is as good as none)."""
        stored = read_tensors(self._path(rows))
        count = rows.stop - rows.start
        if stored is None or any(len(stored.get(name, ())) != count for name in _FIELDS):
            return None
        parts = {name: torch.from_numpy(stored[name]).to(self.device) for name in _FIELDS}
        points = stored.get(_POINTS)
        with self._lock:
            self.examples += count
            self.seconds += float(stored.get(_SECONDS, [0.0])[0])
        kept = None if points is None else torch.from_numpy(points).to(self.device)
        return CertificateResult(**parts, points=kept)

    def put(self, rows: slice, result: CertificateResult) -> None:
        """Keep a finished chunk.

        Raises:
            StoreError: it cannot be written.
        """
        with self._lock:
            # From one chunk to the next, whichever thread it was: all together are the time that passed.
            now = time.perf_counter()
            spent, self._since = now - self._since, now
        tensors = {name: getattr(result, name).cpu().numpy() for name in _FIELDS}
        if result.points is not None:
            tensors[_POINTS] = result.points.cpu().numpy()
        tensors[_SECONDS] = torch.tensor([spent], dtype=torch.float64).numpy()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_tensors(self._path(rows), tensors, {})

    @property
    def has_any(self) -> bool:
        """Whether something is kept."""
        return self.folder.is_dir()

    @property
    def kept(self) -> int:
        """How many examples are kept."""
        if not self.has_any:
            return 0
        names = [_NAME.fullmatch(path.name) for path in self.folder.iterdir()]
        return sum(int(name[2]) - int(name[1]) for name in names if name is not None)

    def clear(self) -> None:
        """Forget everything."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, rows: slice) -> Path:
        return self.folder / f"{rows.start}-{rows.stop}.safetensors"


def finished_examples(config: AnalysisConfig) -> int:
    """Of how many examples the certificate is kept from an analysis that was stopped.

    Raises:
        ConfigError: unknown names, or a pair that does not fit.
        DataError: a data set without a known fingerprint is absent.
    """
    return SavedChunks(ResolvedPair(config).key(), torch.device("cpu")).kept
