"""What a certificate is: an interval for the signed gap and a proof of agreement, never violated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from fkd.core.ball import Region
from fkd.core.config import Config
from fkd.core.progress import ProgressCallback


class CertificateConfig(Config):
    """Settings shared by all certificates."""

    name: str = Field(default="fast", description="Registry name of the certificate.")
    rows: int = Field(
        default=64, ge=1, le=4096, description="Examples bounded at once at most (memory only)."
    )


@dataclass(frozen=True)
class CertificateResult:
    """What is proved of each box; float64 or bool, one entry an example.

    Attributes:
        gap_upper: (N,), ``sup p_T(c) - p_S(c)`` is at most this; in [-1, 1], NaN where nothing is.
        gap_lower: (N,), ``inf p_T(c) - p_S(c)`` is at least this.
        agrees: whether no point of the box has different predictions.
        teacher_robust: whether the teacher's prediction is the same on the whole box.
        student_robust: whether the student's is.
        points: float32 (N, P, C, H, W), points of each ball where branch and bound saw the largest gap
            and a disagreement (the same point where it saw none); None for levels that look for none.
    """

    gap_upper: Tensor
    gap_lower: Tensor
    agrees: Tensor
    teacher_robust: Tensor
    student_robust: Tensor
    points: Tensor | None = None

    @property
    def gap(self) -> Tensor:
        """Upper bound of ``|p_T(c) - p_S(c)|``, (N,), in [0, 1]."""
        return self.gap_upper.maximum(-self.gap_lower)

    def put(self, rows: Tensor, other: CertificateResult) -> CertificateResult:
        """With ``other``'s answers, in order, at ``rows`` (int64); both with points or both without."""
        values = {}
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            values[field.name] = None if mine is None else mine.index_put((rows,), theirs)
        return CertificateResult(**values)

    @classmethod
    def cat(cls, parts: Sequence[CertificateResult]) -> CertificateResult:
        """Results of consecutive sets as one."""
        every = ([getattr(part, field.name) for part in parts] for field in fields(cls))
        return cls(*(None if None in _kinds(part) else torch.cat(part) for part in every))


def _kinds(parts: Sequence[Tensor | None]) -> set[type | None]:
    return {None if part is None else type(part) for part in parts}


class ChunkStore(Protocol):
    """Keeps what is finished, so that a search that is stopped or dies can go on (from any thread)."""

    def get(self, rows: slice) -> CertificateResult | None:
        """What is known of these rows, or None."""

    def put(self, rows: slice, result: CertificateResult) -> None:
        """Keep what was proved of these rows."""


class Certificate(ABC):
    """Bounds the confidence gap of a pair over boxes.

    Attributes:
        is_resumable: whether `bound` makes use of a store of finished chunks; dear levels do.
    """

    name: ClassVar[str]
    Config: ClassVar[type[CertificateConfig]] = CertificateConfig
    is_resumable: ClassVar[bool] = False

    def __init__(self, config: CertificateConfig) -> None:
        self.config = config

    @abstractmethod
    def bound(
        self,
        teacher: nn.Module,
        student: nn.Module,
        region: Region,
        classes: Tensor,
        *,
        progress: ProgressCallback | None = None,
    ) -> CertificateResult:
        """Bound every box.

        Args:
            teacher: images (N, C, H, W) to logits (N, K), in eval mode.
            student: the same K.
            region: N boxes.
            classes: int64 (N,), the class whose confidences are compared.
            progress: told after each chunk.

        Raises:
            UnsupportedModelError: a network holds an operation that cannot be bounded.
        """
