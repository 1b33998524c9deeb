"""Attack, sample and certify a pair over many examples and radii, and count what must not happen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fkd.attacks import PairAttackResult, attack_config, make_attack
from fkd.attacks.objectives import confidence
from fkd.bounds import CertificateResult, certificate_config, make_certificate
from fkd.core.ball import Region
from fkd.core.precision import double_copy
from fkd.data import Split, load_split
from fkd.distillation import COPIES
from fkd.models import load_model, read_card


@dataclass(frozen=True)
class SoundnessCount:
    """Examples looked at, and violations: witness above certificate, witness against a proof."""

    examples: int
    gap_violations: int
    agreement_violations: int
    largest_excess: float

    @property
    def violations(self) -> int:
        """Of both kinds."""
        return self.gap_violations + self.agreement_violations


@dataclass(frozen=True)
class Seen:
    """What points of each set show, measured in float64 at the points that matter; (N,) each.

    Attributes:
        highest: largest ``p_T - p_S`` seen.
        lowest: smallest.
        disagrees: whether a point has different predictions.
        teacher_moves: whether a point has another prediction of the teacher than the image.
        student_moves: likewise of the student.
        points: how many points were looked at, over all sets.
    """

    highest: Tensor
    lowest: Tensor
    disagrees: Tensor
    teacher_moves: Tensor
    student_moves: Tensor
    points: int


def spread_region(split: Split, count: int, epsilons: Sequence[float]) -> Region:
    """The first ``count`` examples, radii taking turns through ``epsilons``."""
    ids = torch.arange(count)
    images = split.images[:count]
    radius = torch.tensor(epsilons, dtype=torch.float64)[ids % len(epsilons)]
    return Region.around(images, radius, ids)


def attack(
    teacher: nn.Module, student: nn.Module, region: Region, labels: Tensor, *, seed: int = 1
) -> PairAttackResult:
    """The lower end of the bracket, with fewer steps than an analysis uses."""
    return make_attack(attack_config({})).run(teacher, student, region, labels, seed=seed)


def certify(
    teacher: nn.Module, student: nn.Module, region: Region, labels: Tensor, **settings: Any
) -> CertificateResult:
    """The upper end; without ``settings`` by the default certificate."""
    return make_certificate(certificate_config(settings)).bound(teacher, student, region, labels)


def sample(
    teacher: nn.Module,
    student: nn.Module,
    region: Region,
    labels: Tensor,
    *,
    count: int,
    seed: int = 0,
    rows: int = 2048,
) -> Seen:
    """Look at ``count`` points of each set: uniform ones, and corners in turn.

    All are looked at in float32; those that show most, in float64.
    """
    generator = torch.Generator().manual_seed(seed)
    parts: list[Seen] = []
    networks = double_copy(teacher), double_copy(student)
    for _, part in region.chunks(max(1, rows // count)):
        chosen = labels[sum(len(seen.highest) for seen in parts) :][: len(part)]
        share = torch.rand(len(part), count, *region.images.shape[1:], generator=generator)
        share[:, 1::2] = share[:, 1::2].round()
        wide = part.repeat(count)
        low, high = wide.lower, wide.upper
        points = wide.clamp(low + share.flatten(0, 1) * (high - low))
        points = points.unflatten(0, (len(part), count))
        points[:, 0] = part.images
        with torch.no_grad():
            parts.append(_look(teacher, student, networks, points, chosen))
    return Seen(
        *(torch.cat([getattr(seen, name) for seen in parts]) for name in _FLAGS),
        points=sum(seen.points for seen in parts),
    )


_FLAGS = ("highest", "lowest", "disagrees", "teacher_moves", "student_moves")


def _look(
    teacher: nn.Module,
    student: nn.Module,
    exact: tuple[nn.Module, nn.Module],
    points: Tensor,
    labels: Tensor,
) -> Seen:
    """Points (N, P, C, H, W), the image first."""
    shape = points.shape[:2]
    z_teacher, z_student = (
        network(points.flatten(0, 1)).unflatten(0, shape) for network in (teacher, student)
    )
    each = labels[:, None].expand(shape).flatten()
    gap = confidence(z_teacher.flatten(0, 1), each) - confidence(z_student.flatten(0, 1), each)
    gap = gap.view(shape)
    said = z_teacher.argmax(2), z_student.argmax(2)
    # A point that seems to show something, or the image where none does.
    suspects = torch.stack(
        [
            gap.argmax(1),
            gap.argmin(1),
            (said[0] != said[1]).int().argmax(1),
            (said[0] != said[0][:, :1]).int().argmax(1),
            (said[1] != said[1][:, :1]).int().argmax(1),
            torch.zeros_like(labels),
        ],
        dim=1,
    )
    chosen = points[torch.arange(len(points))[:, None], suspects].flatten(0, 1).double()
    again = [network(chosen).unflatten(0, suspects.shape) for network in exact]
    each = labels[:, None].expand(suspects.shape).flatten()
    gap = confidence(again[0].flatten(0, 1), each) - confidence(again[1].flatten(0, 1), each)
    gap = gap.view(suspects.shape)
    sure = [logits.argmax(2) for logits in again]
    return Seen(
        highest=gap.amax(1),
        lowest=gap.amin(1),
        disagrees=(sure[0] != sure[1]).any(1),
        teacher_moves=(sure[0] != sure[0][:, -1:]).any(1),
        student_moves=(sure[1] != sure[1][:, -1:]).any(1),
        points=gap.shape[0] * shape[1],
    )


def count_violations(
    attacked: PairAttackResult, certified: CertificateResult, seen: Seen | None = None
) -> SoundnessCount:
    """How often the ends contradict each other."""
    signed = attacked.teacher_conf - attacked.student_conf
    wrong = attacked.disagrees & certified.agrees
    excess = torch.maximum(signed - certified.gap_upper, certified.gap_lower - signed)
    if seen is not None:
        excess = torch.maximum(excess, seen.highest - certified.gap_upper)
        excess = torch.maximum(excess, certified.gap_lower - seen.lowest)
        wrong = wrong | (seen.disagrees & certified.agrees)
        wrong = wrong | (seen.teacher_moves & certified.teacher_robust)
        wrong = wrong | (seen.student_moves & certified.student_robust)
    return SoundnessCount(
        examples=len(excess),
        gap_violations=int((~(excess <= 1e-6)).sum()),
        agreement_violations=int(wrong.sum()),
        largest_excess=float(excess.max()),
    )


#: Ways of making a student, one for each teacher, that stand for the zoo in tests that take seconds a
#: pair; `tests.benchmarks.soundness` goes through all pairs.
SAMPLE = ("kd", "rslad", "faithful", "8bit")


def sampled_students(dataset: str) -> list[str]:
    """The sample's students of both robust teachers; their number does not grow with the zoo."""
    return [f"{dataset}-{method}-of-{teacher}" for teacher in ("pgd", "ibp") for method in SAMPLE]


def check_shipped_pair(
    dataset: str,
    student: str,
    examples: int,
    epsilons: Sequence[float] = (0.02, 0.05, 0.1, 0.2),
) -> None:
    """Assert that examples, radii taking turns, hold no contradiction and no useless bound.

    Copies, whose paired units are dearer to bound, get a tenth of the examples.
    """
    split = load_split(dataset, "test")
    teacher = read_card(student).teacher.name
    examples = examples // 10 if read_card(student).method in COPIES else examples
    region = spread_region(split, examples, epsilons)
    labels = split.labels[:examples]
    networks = load_model(teacher).network, load_model(student).network
    certified = certify(*networks, region, labels)
    count = count_violations(attack(*networks, region, labels), certified)
    assert count.examples == examples
    assert (count.gap_violations, count.agreement_violations) == (0, 0), count
    small = region.radius < 0.03
    if small.any():
        # A certificate of 1 everywhere would be sound and useless.
        assert certified.gap[small].mean() < 0.6
