"""The certified agreement radius: up to which epsilon teacher and student provably predict the same.

A proof at a radius holds at every smaller one, and a witness at a distance is one at every larger radius.
So only proofs raise the lower end and only witnesses lower the upper one; a failure to prove merely moves
the search, and both ends are valid although bounds need not be monotone in epsilon.

Every example has a radius of its own, all are searched in one batch, and finished ones leave it.  The
cheap level narrows first, the dearer one goes on from what it proved, below the nearest witness.  A
witness counts by its actual distance, and is drawn towards the image before the attack is asked again.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from pydantic import Field, SerializeAsAny, model_validator
from torch import Tensor

from fkd.bounds import Certificate, CertificateConfig, certificate_config, make_certificate
from fkd.core.device import choose_device
from fkd.core.errors import Cancelled, SoundnessError, UnsupportedModelError
from fkd.core.precision import double_copy, logits_of
from fkd.core.progress import Progress, ProgressCallback, report
from fkd.evaluation._attacked import attack_pair
from fkd.evaluation.config import AnalysisConfig, ResolvedPair, check_count
from fkd.models import Model
from fkd.records import Column

#: First step beyond what is proved, as a factor: dearer levels rarely prove much more than cheap ones.
_STRIDE = 1.3
_PULLS = 12
#: Largest radius looked at where none is given: beyond it nearly every pair disagrees.
LARGEST_RADIUS = {"linf": 0.3, "l2": 3.0}

RADIUS_COLUMNS: tuple[Column, ...] = (
    Column("index", pa.int64(), "position", "Example id: position in the data set's split."),
    Column("disagrees_clean", pa.bool_(), "-", "Whether predictions differ at the image itself."),
    Column("radius_certified", pa.float64(), "pixel", "Same prediction on this ball, proved."),
    Column("radius_attack", pa.float64(), "pixel", "Distance of the nearest disagreement.", True),
    Column("status", pa.string(), "-", "disagrees clean, whole, closed, open or unsupported."),
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


@dataclass
class _Search:
    """What is known of N examples, float64 (N,) each but for the points.

    Attributes:
        proved: largest radius proved.
        found: distance of the nearest witness; infinite where there is none.
        missed: largest radius at which the attack found nothing: tells where to look, proves nothing.
        witness: nearest witness, the image where there is none.
        spent: seconds, each batch's shared equally among its examples.
    """

    proved: Tensor
    found: Tensor
    missed: Tensor
    witness: Tensor
    spent: Tensor


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
        within the tolerance, ``open``, ``unsupported``: the networks cannot be bounded); ``seconds``.

    Raises:
        ConfigError: unknown names, a pair or ball that does not fit, an index beyond the data.
        DataError: the data set is absent or damaged.
        SoundnessError: a witness lies within a proved radius, which is a bug in this program.
        Cancelled: ``progress`` asked to stop; its ``partial`` is the table so far, valid as it is.
    """
    pair = ResolvedPair(config)
    split = pair.data_set.load(config.split)
    chosen = list(range(config.count)) if indices is None else list(indices)
    check_count(max(chosen) + 1, len(split), config.dataset, config.split)
    place = choose_device(device)
    ids = torch.tensor(chosen, dtype=torch.int64)
    images, _ = split.take(ids)
    finder = _Finder(config, pair.load(str(place)), images.to(place), ids.to(place), progress)
    try:
        finder.run()
    except Cancelled as stop:
        # The search's own place: an attack or a certificate only knows the round it was stopped in.
        stopped = Cancelled(f"Stopped during {finder.place}, as asked.")
        stopped.partial = finder.table()
        raise stopped from stop
    return finder.table()


class _Finder:
    def __init__(
        self,
        config: RadiusConfig,
        models: tuple[Model, Model],
        images: Tensor,
        ids: Tensor,
        progress: ProgressCallback | None,
    ) -> None:
        self.config, self.images, self.ids, self.progress = config, images, ids, progress
        self.networks = models[0].network, models[1].network
        self.doubles = double_copy(self.networks[0]), double_copy(self.networks[1])
        self.width = config.tolerance * config.epsilon
        self.is_unsupported = False
        self.place = "the beginning"
        predicted = [logits_of(network, images).argmax(1) for network in self.doubles]
        # Certificates know most of agreement where the compared class is the predicted one.
        self.classes, self.clean = predicted[0], predicted[0] != predicted[1]
        nothing = torch.zeros(len(images), dtype=torch.float64, device=images.device)
        found = torch.where(self.clean, 0.0, torch.inf).double()
        self.state = _Search(
            nothing, found, nothing.clone(), images.clone(), torch.zeros_like(nothing)
        )

    def run(self) -> None:
        self._lower_by_attack()
        names = ["fast"] if self.config.certificate.name == "fast" else ["fast", "last"]
        for name in names:
            settings = self.config.certificate
            if name == "fast" and settings.name != "fast":
                settings = certificate_config({"name": "fast", "rows": settings.rows})
            if "tolerance" in type(settings).model_fields:
                # Radii are about agreement: no work is spent on closing brackets of the gap.
                settings = settings.model_copy(update={"tolerance": 1.0})
            try:
                self._raise_by_proofs(make_certificate(settings), settings.name)
            except UnsupportedModelError:
                self.is_unsupported = True
                break
        # Proofs are looked for below the witnesses: only an attack within them can contradict them.
        rows = (self.state.proved > 0).nonzero()[:, 0]
        self._attack(rows, self.state.proved, "radius check", self.state.found)

    def _lower_by_attack(self) -> None:
        """Bisect between the nearest witness and the largest radius at which none was found."""
        radius = torch.full_like(self.state.found, self.config.epsilon)
        rows = (~self.clean).nonzero()[:, 0]
        while len(rows):
            state = self.state
            self._attack(rows, radius, "radius attack", state.found - state.missed)
            still = state.found.isfinite() & (state.found - state.missed > self.width)
            rows = (still & ~self.clean).nonzero()[:, 0]
            radius = 0.5 * (state.found + state.missed)

    def _attack(self, rows: Tensor, radius: Tensor, stage: str, left: Tensor) -> None:
        if not len(rows) or not self.config.epsilon:
            return
        started = time.perf_counter()
        region = self.config.ball.region_of(self.images[rows], radius[rows], self.ids[rows])
        result = attack_pair(
            self.config.attack,
            self.networks,
            region,
            self.classes[rows],
            seed=self.config.seed,
            progress=self._within(stage, rows, left),
        )
        self.state.missed[rows] = torch.where(
            result.disagrees, self.state.missed[rows], radius[rows]
        )
        self._take(rows[result.disagrees], result.disagreement_witness[result.disagrees])
        self._note(rows, started)

    def _take(self, rows: Tensor, points: Tensor) -> None:
        """Draw points towards their images, and keep those that are the nearest witnesses."""
        images, ids = self.images[rows], self.ids[rows]
        far = self.config.ball.region_of(
            images, torch.zeros_like(self.state.found[rows]), ids
        ).distance(points)
        near = torch.zeros_like(far)
        self._keep(rows, points)
        for _ in range(_PULLS if len(rows) else 0):
            middle = 0.5 * (near + far)
            pulled = self.config.ball.region_of(images, middle, ids).clamp(points)
            differ = self._differ(pulled)
            self._keep(rows, pulled)
            far, near = torch.where(differ, middle, far), torch.where(differ, near, middle)

    def _differ(self, points: Tensor) -> Tensor:
        teacher, student = (logits_of(network, points).argmax(1) for network in self.doubles)
        return teacher != student

    def _keep(self, rows: Tensor, points: Tensor) -> None:
        """Note points at their distance where predictions differ in float64 and they are nearer.

        Raises:
            SoundnessError: one lies within a proved radius.
        """
        if not len(rows):
            return
        region = self.config.ball.region_of(
            self.images[rows], torch.zeros_like(self.state.found[rows]), self.ids[rows]
        )
        distance = torch.where(self._differ(points), region.distance(points), torch.inf)
        nearer = distance < self.state.found[rows]
        self.state.found[rows[nearer]] = distance[nearer]
        self.state.witness[rows[nearer]] = points[nearer]
        self._check()

    def _check(self) -> None:
        wrong = (self.state.proved >= self.state.found) & ~self.clean
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0])
            raise SoundnessError(
                f"Example {int(self.ids[row])}: agreement was proved up to radius "
                f"{float(self.state.proved[row]):.9g}, but a disagreement lies at distance "
                f"{float(self.state.found[row]):.9g}; this is a bug in fkd, please report it with "
                "this command."
            )

    def _raise_by_proofs(self, certificate: Certificate, name: str) -> None:
        """Search between what is proved and the nearest witness; failures only say where to look."""
        state = self.state
        ceiling = state.found.clamp(max=self.config.epsilon)
        failed = ceiling.clone()
        # Where no witness is, the largest radius itself is asked first: it may be all there is to do.
        radius = torch.where(state.found.isinf(), ceiling, self._ahead(failed))
        open_rows = ~self.clean & (ceiling - state.proved > 0)
        open_rows &= state.found.isinf() | (ceiling - state.proved > self.width)
        while bool(open_rows.any()):
            rows = open_rows.nonzero()[:, 0]
            started = time.perf_counter()
            region = self.config.ball.region_of(self.images[rows], radius[rows], self.ids[rows])
            result = certificate.bound(
                *self.networks,
                region,
                self.classes[rows],
                progress=self._within(f"radius {name}", rows, failed - state.proved),
            )
            agrees = result.agrees
            state.proved[rows] = torch.where(
                agrees, radius[rows].maximum(state.proved[rows]), state.proved[rows]
            )
            failed[rows] = torch.where(agrees, failed[rows], radius[rows].minimum(failed[rows]))
            self._check()
            self._take_points(rows, result.points)
            self._note(rows, started)
            failed = torch.minimum(failed, state.found)
            radius = self._ahead(failed)
            open_rows = ~self.clean & (failed - state.proved > self.width)

    def _ahead(self, failed: Tensor) -> Tensor:
        proved = self.state.proved
        middle = 0.5 * (proved + failed)
        stride = torch.maximum(_STRIDE * proved, proved + 2 * self.width)
        return torch.where(proved > 0, torch.minimum(middle, stride), middle)

    def _take_points(self, rows: Tensor, points: Tensor | None) -> None:
        """Points that a searching certificate met, (N, C, H, W) or (N, P, C, H, W)."""
        if points is None:
            return
        several = points[:, None] if points.ndim == self.images.ndim else points
        for some in several.unbind(1):
            known = some.isfinite().flatten(1).all(1)
            inside = some[known].to(self.images).clamp(0.0, 1.0)
            differ = self._differ(inside) if len(inside) else known[:0]
            self._take(rows[known][differ], inside[differ])

    def _within(self, stage: str, rows: Tensor, left: Tensor) -> ProgressCallback | None:
        """Report how far the search is, and repeat it whenever the step that begins says something.

        Args:
            stage: its name.
            rows: examples still searched.
            left: widths (N,) of all examples' brackets; infinite where nothing is known.
        """
        if self.progress is None:
            return None
        # Brackets are halved again and again, so an example is as far as its width's logarithm.
        way = math.log(1.0 / self.config.tolerance)
        gone = (self.config.epsilon / left[rows]).log().clamp(0.0, way) / way
        done = len(self.images) - len(rows) + int(gone.sum())
        values = {"proved_mean": float(self.state.proved.mean())}
        self.place = f"{stage} after {done} of {len(self.images)}"
        report(self.progress, stage, done, len(self.images), **values)
        tell = self.progress
        return lambda _: tell(Progress(stage, done, len(self.images), values))

    def _note(self, rows: Tensor, started: float) -> None:
        self.state.spent[rows] += (time.perf_counter() - started) / len(rows)

    def table(self) -> pd.DataFrame:
        """What is known now."""
        proved, found = self.state.proved.cpu().numpy(), self.state.found.cpu().numpy()
        clean = self.clean.cpu().numpy()
        status = np.select(
            [
                clean,
                np.full(len(clean), self.is_unsupported),
                proved >= self.config.epsilon,
                found - proved <= self.width,
            ],
            ["disagrees clean", "unsupported", "whole", "closed"],
            default="open",
        )
        return pd.DataFrame(
            {
                "index": self.ids.cpu().numpy(),
                "disagrees_clean": clean,
                "radius_certified": proved,
                "radius_attack": np.where(np.isinf(found), np.nan, found),
                "status": status,
                "seconds": self.state.spent.cpu().numpy(),
            }
        )
