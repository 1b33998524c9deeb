"""The certified agreement radius: up to which epsilon teacher and student provably predict the same.

Beside it stands the empirical one: the distance of the nearest disagreement that was found.  How both are
searched: `fkd.evaluation._radius_finder`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from pydantic import Field, SerializeAsAny, model_validator

from fkd.bounds import CertificateConfig, certificate_config
from fkd.core.device import choose_device
from fkd.core.errors import Cancelled
from fkd.core.progress import ProgressCallback
from fkd.evaluation._radius_finder import Finder
from fkd.evaluation.config import AnalysisConfig, ResolvedPair, check_count
from fkd.records import Column

#: Largest radius looked at where none is given: beyond it nearly every pair disagrees.
LARGEST_RADIUS = {"linf": 0.3, "l2": 3.0}

RADIUS_COLUMNS: tuple[Column, ...] = (
    Column("index", pa.int64(), "position", "Example id: position in the data set's split."),
    Column("disagrees_clean", pa.bool_(), "-", "Whether predictions differ at the image itself."),
    Column("radius_certified", pa.float64(), "pixel", "Same prediction on this ball, proved."),
    Column("radius_attack", pa.float64(), "pixel", "Distance of the nearest disagreement.", True),
    Column(
        "status", pa.string(), "-", "disagrees clean, whole, closed, open, unsupported, not tried."
    ),
    Column("seconds", pa.float64(), "second", "Share of the time taken."),
)


class RadiusConfig(AnalysisConfig):
    """One search for radii: as an analysis, but for epsilon, which is the largest radius looked at."""

    epsilon: float = Field(
        default=LARGEST_RADIUS["linf"],
        description=(
            "Largest radius looked at, in pixel units; where none is given in L2, "
            f"{LARGEST_RADIUS['l2']:g}."
        ),
    )
    count: int = Field(default=20, ge=1, description="How many examples, from the split's start.")
    tolerance: float = Field(
        default=1e-3,
        ge=1e-6,
        le=0.5,
        description="A search stops when its bracket is this share of the largest radius.",
    )
    starts: int = Field(
        default=6,
        ge=0,
        le=50,
        description=(
            "Walks of each network towards its nearest boundary, before the attack is asked below what "
            "they found; 0 leaves them out."
        ),
    )
    proofs: bool = Field(
        default=True,
        description="Search the certified radius; without it only the nearest disagreement is found.",
    )
    certificate: SerializeAsAny[CertificateConfig] = Field(
        default_factory=lambda: certificate_config({"name": "tight"}),
        description="The certificate and its settings; fast is asked before any other.",
    )

    @model_validator(mode="before")
    @classmethod
    def _largest_of_norm(cls, values: object) -> object:
        if isinstance(values, dict) and "epsilon" not in values:
            largest = LARGEST_RADIUS.get(values.get("norm", "linf"))
            return values if largest is None else {**values, "epsilon": largest}
        return values


@dataclass(frozen=True)
class FoundRadii:
    """Radii and where the nearest disagreements lie.

    Attributes:
        table: as `agreement_radii` gives it.
        rows: int64 (M,), rows of the table with a disagreement.
        points: float32 (M, C, H, W), the nearest; the image where predictions differ there.
        gradient_evaluations: of the pair, by walks and attacks, the mean over examples.
    """

    table: pd.DataFrame
    rows: np.ndarray
    points: np.ndarray
    gradient_evaluations: float


def agreement_radii(
    config: RadiusConfig,
    indices: list[int] | None = None,
    *,
    device: str = "auto",
    progress: ProgressCallback | None = None,
) -> pd.DataFrame:
    """The certified agreement radius of examples, with the attack's upper limit beside it.

    Args:
        config: pair, norm, largest radius (``epsilon``), tolerance, attack and certificate.
        indices: examples; None takes the first ``config.count``.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: told about each round; answering True cancels.

    Returns:
        One row an example: ``index``; ``disagrees_clean``; ``radius_certified``, in [0, epsilon], on
        whose whole ball both predict the same (0 where they differ at the image); ``radius_attack``,
        the distance of the nearest disagreement found (NaN: none up to epsilon); ``status``
        (``disagrees clean``, ``whole``: proved up to epsilon, ``closed``: certified and attack meet
        within the tolerance, ``open``, ``unsupported``: the networks cannot be
        bounded, ``not tried``: without proofs); ``seconds``.

    Raises:
        ConfigError: unknown names, a pair or ball that does not fit, an index beyond the data.
        DataError: the data set is absent or damaged.
        SoundnessError: a witness lies within a proved radius, which is a bug in this program.
        Cancelled: ``progress`` asked to stop; its ``partial`` is the table so far, valid as it is.
    """
    return find_agreement_radii(config, indices, device=device, progress=progress).table


def find_agreement_radii(
    config: RadiusConfig,
    indices: list[int] | None = None,
    *,
    device: str = "auto",
    progress: ProgressCallback | None = None,
) -> FoundRadii:
    """The same with the nearest disagreements themselves."""
    pair = ResolvedPair(config)
    split = pair.data_set.load(config.split)
    chosen = list(range(config.count)) if indices is None else list(indices)
    check_count(max(chosen) + 1, len(split), config.dataset, config.split)
    place = choose_device(device)
    ids = torch.tensor(chosen, dtype=torch.int64)
    images, _ = split.take(ids)
    finder = Finder(config, pair.load(str(place)), images.to(place), ids.to(place), progress)
    try:
        finder.run()
    except Cancelled as stop:
        # The search's own place: an attack or a certificate only knows the round it was stopped in.
        stopped = Cancelled(f"Stopped during {finder.place}, as asked.")
        stopped.partial = finder.table()
        raise stopped from stop
    mean = finder.gradients / max(1, len(chosen))
    return FoundRadii(finder.table(), *finder.witnesses(), mean)
