"""How well the student's output tells that an image is none of its own: AUROC of three detectors.

* ``msp``: one minus the largest softmax probability (Hendrycks and Gimpel, 1610.02136).
* ``knn``: distance of the normalised latent vector to the k-th nearest train example's (Sun et al.,
  2204.06507).
* ``mahalanobis``: distance of the latent vector to the nearest class mean under one covariance of all
  classes (Lee et al., 1807.03888; of the last layer alone, without their input perturbation).

Each is tried on the student and on the teacher, with the split's images in distribution.  On the train
split the reference is of other train examples than the images, which are at most half of them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from fkd.core.errors import UnsupportedModelError
from fkd.core.precision import logits_of
from fkd.core.progress import ProgressCallback, report
from fkd.evaluation.scored_pair import ScoredPair
from fkd.evaluation.scores._base import (
    QUANTILE,
    SCORES,
    Figure,
    GroupScores,
    Score,
    ScoreGroup,
    missing,
)
from fkd.evaluation.scores._shifts import CORRUPTIONS, NOISE
from fkd.models import latent_vectors

#: Images of each kind at most, and train examples whose latent vectors are the reference.
MOST, BANK = 2000, 5000
#: Which of the nearest train examples: 0.2 % of the reference.
NEIGHBOUR = 10
#: Added to the covariance's diagonal, in mean variances: units that never fire have none.
RIDGE = 1e-6

_INTERVAL = "95 % Hanley-McNeil"
_DETECTORS = {
    "msp": "one minus the largest softmax probability (1610.02136)",
    "knn": f"the distance to the {NEIGHBOUR}th nearest normalised latent vector of the first {BANK} "
    "train examples other than the images (2204.06507)",
    "mahalanobis": "the Mahalanobis distance of latent vectors to the nearest class mean (1807.03888)",
}
_SOURCES = {
    "outside": ("other set", "test images of another data set"),
    "corrupted": ("corrupted", "corrupted images of all kinds"),
    "noise": ("noise", "images of uniform noise"),
}
_NETWORKS = ("student", "teacher")


class Reference:
    """What distances are measured to: latent vectors of train examples.

    Args:
        latents: (M, D).
        labels: int64 (M,).
    """

    def __init__(self, latents: Tensor, labels: Tensor) -> None:
        self.directions = nn.functional.normalize(latents)
        counts = torch.bincount(labels)
        one_hot = nn.functional.one_hot(labels).to(latents)[:, counts > 0]
        means = (one_hot.T @ latents) / counts[counts > 0, None]
        centred = latents - one_hot @ means
        covariance = centred.T @ centred / len(latents)
        ridge = RIDGE * covariance.diagonal().mean().clamp_min(1e-30)
        covariance.diagonal().add_(ridge)
        self.factor = torch.linalg.cholesky(covariance)
        self.means = self._whiten(means)

    def _whiten(self, vectors: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self.factor, vectors.T, upper=False).T

    def knn(self, latents: Tensor) -> Tensor:
        """Distance to the `NEIGHBOUR`-th nearest direction (the last, where there are fewer), (N,)."""
        distances = torch.cdist(nn.functional.normalize(latents), self.directions)
        return distances.kthvalue(min(NEIGHBOUR, distances.shape[1]), 1).values

    def mahalanobis(self, latents: Tensor) -> Tensor:
        """Distance to the nearest class mean, (N,)."""
        return torch.cdist(self._whiten(latents), self.means).amin(1)


def doubt(logits: Tensor) -> Tensor:
    """Log-odds against the predicted class, (N,), of logits (N, K).

    In the order of one minus the largest probability, which would round to 0 where a network is sure.
    """
    largest = logits.amax(1, keepdim=True)
    others = logits.scatter(1, logits.argmax(1, keepdim=True), -torch.inf)
    return torch.logsumexp(others, 1) - largest[:, 0]


def auroc(inside: Tensor, outside: Tensor) -> Score:
    """Area under the ROC curve of a detector, in [0, 1], with its interval of 95 %.

    The share of pairs of an image of each kind in which the one out of distribution has the larger
    score.  The standard error is that of Hanley and McNeil (1982).

    Args:
        inside: scores (N,) of images in distribution.
        outside: scores (M,) of images out of it.
    """
    # Imported here: it takes seconds, and lists of figures need none of it.
    from torchmetrics.functional.classification import binary_auroc

    scores = torch.cat([inside, outside])
    # Ranks alone count; torchmetrics would take a sigmoid of distances, where far ones become equal.
    ranks = scores.unique(return_inverse=True)[1].double()
    target = torch.cat([torch.zeros_like(inside), torch.ones_like(outside)]).long()
    area = float(binary_auroc(ranks / ranks.max().clamp_min(1.0), target))
    n, m = len(inside), len(outside)
    first, second = area / (2.0 - area), 2.0 * area**2 / (1.0 + area)
    variance = (
        area * (1.0 - area) + (m - 1) * (first - area**2) + (n - 1) * (second - area**2)
    ) / (n * m)
    half = QUANTILE * math.sqrt(max(0.0, variance))
    return Score(area, max(0.0, area - half), min(1.0, area + half), n + m)


def _figures() -> tuple[Figure, ...]:
    figures = []
    for network in _NETWORKS:
        is_student = network == "student"
        for source, (short, long) in _SOURCES.items():
            for detector, rule in _DETECTORS.items():
                figures.append(
                    Figure(
                        ("" if is_student else "teacher_") + f"auroc_{detector}_{source}",
                        ("" if is_student else "teacher's ") + f"AUROC {detector}, {short}",
                        "area",
                        "higher" if is_student else "neither",
                        f"Area under the ROC curve of the {network} telling {long} from the split's by "
                        f"{rule}; at most {MOST} images of each kind.",
                        _INTERVAL,
                        is_main=is_student and (detector, source) == ("knn", "outside"),
                    )
                )
    return tuple(figures)


@SCORES.register("ood")
class OutOfDistribution(ScoreGroup):
    """How well student and teacher tell images out of distribution."""

    title = "Out of distribution"
    order = 50
    figures = _figures()

    def inputs(self, pair: ScoredPair) -> dict[str, Any]:
        """See `ScoreGroup.inputs`: train examples are the reference of distances."""
        known = {**pair.outside_identity(), "train": pair.data_set.fingerprint("train")}
        # Figures of the test split keep their keys.
        return {**known, "reference": "the rest"} if pair.config.split == "train" else known

    def measure(self, pair: ScoredPair, progress: ProgressCallback | None) -> GroupScores:
        """See `ScoreGroup.measure`."""
        images, train = pair.load_split().images[:MOST], pair.load_split("train")
        first = 0
        if pair.config.split == "train":
            # An image that is its own reference, or moved a class mean, is nearer than any other can be.
            first = min(MOST, len(train) // 2)
            images = images[:first]
        bank = tuple(
            part[first : first + BANK].to(pair.device) for part in (train.images, train.labels)
        )
        sets = _image_sets(pair, images.to(pair.device))
        scores: dict[str, Score] = {}
        for done, network in enumerate(_NETWORKS):
            report(progress, "out of distribution", done, len(_NETWORKS))
            prefix = "" if network == "student" else "teacher_"
            exact = pair.networks[1 if network == "student" else 0]
            scored = _detect(exact, sets, bank)
            for detector in _DETECTORS:
                for source in _SOURCES:
                    name = f"{prefix}auroc_{detector}_{source}"
                    if source not in sets:
                        scores[name] = missing(pair.why_no_outside())
                    elif isinstance(scored[detector], str):
                        scores[name] = missing(scored[detector])
                    else:
                        by_set = scored[detector]
                        scores[name] = auroc(by_set["inside"], by_set[source])
        return GroupScores(scores)


def _image_sets(pair: ScoredPair, images: Tensor) -> dict[str, Tensor]:
    """Images by kind: the given ones as ``inside``, then what there is of the sources."""
    ids = torch.arange(len(images), device=pair.device)
    seed = pair.config.seed
    # One kind of corruption after the other, so that all together are as many as the images.
    kinds = list(CORRUPTIONS.values())
    corrupted = torch.cat(
        [
            kind.apply(images[number :: len(kinds)], ids[number :: len(kinds)], seed)
            for number, kind in enumerate(kinds)
        ]
    )
    sets = {
        "inside": images,
        "corrupted": corrupted,
        "noise": NOISE.apply(images, ids, seed),
    }
    others = pair.outside_images(MOST)
    return sets if others is None else {**sets, "outside": others}


def _detect(
    network: nn.Module, sets: dict[str, Tensor], bank: tuple[Tensor, Tensor]
) -> dict[str, dict[str, Tensor] | str]:
    """Each detector's scores of each set, or why it has none."""
    by_confidence = {name: doubt(logits_of(network, images)) for name, images in sets.items()}
    dtype = next(network.parameters()).dtype
    try:
        reference = Reference(latent_vectors(network, bank[0].to(dtype))[0], bank[1])
        latents = {
            name: latent_vectors(network, images.to(dtype))[0] for name, images in sets.items()
        }
    except UnsupportedModelError as error:
        return {"msp": by_confidence, "knn": str(error), "mahalanobis": str(error)}
    return {
        "msp": by_confidence,
        "knn": {name: reference.knn(part) for name, part in latents.items()},
        "mahalanobis": {name: reference.mahalanobis(part) for name, part in latents.items()},
    }
