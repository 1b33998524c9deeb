"""The search behind `fkd.evaluation.agreement_radii`: proofs raise one end, witnesses lower the other.

A proof at a radius holds at every smaller one, and a witness at a distance is one at every larger radius.
So only proofs raise the lower end and only witnesses lower the upper one; a failure to prove merely moves
the search, and both ends are valid although bounds need not be monotone in epsilon.

Every example has a radius of its own, all are searched in one batch, and finished ones leave it.  A
search for the nearest disagreement (`fkd.attacks.nearest`) comes first; the attack is then asked just
below what it found, until it finds nothing.  Of the certificates the cheap level narrows
first, the dearer one goes on from what it proved, below the nearest witness.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fkd.attacks.nearest import nearest_disagreements, pulled
from fkd.bounds import Certificate, certificate_config, make_certificate
from fkd.core.errors import SoundnessError, UnsupportedModelError
from fkd.core.precision import double_copy, logits_of
from fkd.core.progress import Progress, ProgressCallback, report
from fkd.evaluation._attacked import attack_pair
from fkd.models import Model

if TYPE_CHECKING:
    from fkd.evaluation.radius import RadiusConfig

#: First step beyond what is proved, as a factor: dearer levels rarely prove much more than cheap ones.
_STRIDE = 1.3


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


class Finder:
    """Radii of some examples; `run` narrows them, `table` and `witnesses` tell them at any time.

    Attributes:
        place: where the search is, in words.
        gradients: of the pair evaluated by walks and attacks so far, over all examples.
    """

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
        self.gradients = 0.0
        predicted = [logits_of(network, images).argmax(1) for network in self.doubles]
        # Certificates know most of agreement where the compared class is the predicted one.
        self.classes, self.clean = predicted[0], predicted[0] != predicted[1]
        nothing = torch.zeros(len(images), dtype=torch.float64, device=images.device)
        found = torch.where(self.clean, 0.0, torch.inf).double()
        self.state = _Search(
            nothing, found, nothing.clone(), images.clone(), torch.zeros_like(nothing)
        )

    def run(self) -> None:
        """Search until nothing is left to do.

        Raises:
            SoundnessError: a witness lies within a proved radius.
            Cancelled: ``progress`` asked to stop.
        """
        self._find_nearest()
        self._ask_below()
        if not self.config.proofs:
            return
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

    def _find_nearest(self) -> None:
        """The search made for it; it knows nothing of the configured attack."""
        rows = (~self.clean).nonzero()[:, 0]
        if not (len(rows) and self.config.starts and self.config.epsilon):
            return
        started = time.perf_counter()
        radius = torch.full_like(self.state.found[rows], self.config.epsilon)
        nearest = nearest_disagreements(
            *self.networks,
            self.config.ball.region_of(self.images[rows], radius, self.ids[rows]),
            seed=self.config.seed,
            starts=self.config.starts,
            progress=self._within("radius nearest", rows, self.state.found),
        )
        self.gradients += nearest.gradient_evaluations * len(rows)
        self._keep(rows, nearest.points, nearest.distance)
        self._note(rows, started)

    def _ask_below(self) -> None:
        """Ask the attack just below the nearest witness, in strides that double while it finds one.

        Where none is known the largest radius is asked.  After a miss the rest is halved.
        """
        state = self.state
        stride = torch.full_like(state.found, self.width)
        rows = (~self.clean & ~(state.found <= self.width)).nonzero()[:, 0]
        while len(rows):
            below = torch.maximum(0.5 * (state.found + state.missed), state.found - stride)
            radius = torch.where(state.found.isinf(), self.config.epsilon, below)
            # From its own starts: beginning at the witness, a local minimum, it found fewer nearer ones.
            self._attack(rows, radius, "radius attack", state.found - state.missed)
            stride[rows] *= 2
            # What is a hair more than the width is the stride of a first miss.
            still = state.found.isfinite() & (state.found - state.missed > 1.001 * self.width)
            rows = rows[still[rows]]

    def _attack(self, rows: Tensor, radius: Tensor, stage: str, left: Tensor) -> None:
        if not len(rows) or not self.config.epsilon:
            return
        started = time.perf_counter()
        region = self.config.ball.region_of(self.images[rows], radius[rows], self.ids[rows])
        attack = self.config.attack
        if "seek" in type(attack).model_fields:
            # Nothing else is wanted here.
            attack = attack.model_copy(update={"seek": "disagreement"})
        result = attack_pair(
            attack,
            self.networks,
            region,
            self.classes[rows],
            seed=self.config.seed,
            progress=self._within(stage, rows, left),
        )
        self.gradients += result.gradient_evaluations * len(rows)
        self.state.missed[rows] = torch.where(
            result.disagrees, self.state.missed[rows], radius[rows]
        )
        self._take(rows[result.disagrees], result.disagreement_witness[result.disagrees])
        self._note(rows, started)

    def _take(self, rows: Tensor, points: Tensor) -> None:
        """Draw points towards their images, and keep those that are the nearest witnesses."""
        if not len(rows):
            return
        region = self.config.ball.region_of(
            self.images[rows], torch.zeros_like(self.state.found[rows]), self.ids[rows]
        )
        self._keep(rows, *pulled(self.doubles, region, self.classes[rows], points))

    def _keep(self, rows: Tensor, points: Tensor, distance: Tensor) -> None:
        """Note points where predictions differ in float64, where they are nearer.

        Raises:
            SoundnessError: one lies within a proved radius.
        """
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
            self._take(rows[known], some[known].to(self.images).clamp(0.0, 1.0))

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
                np.full(len(clean), not self.config.proofs),
                proved >= self.config.epsilon,
                found - proved <= self.width,
            ],
            ["disagrees clean", "unsupported", "not tried", "whole", "closed"],
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

    def witnesses(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows (M,) of which a disagreement is known, and the nearest: float32 (M, C, H, W)."""
        rows = self.state.found.isfinite().nonzero()[:, 0]
        return rows.cpu().numpy(), self.state.witness[rows].cpu().numpy()
