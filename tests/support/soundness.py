"""Attack and certify a pair over many examples and radii, and count what must not happen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from fkd.attacks import PairAttackResult, attack_config, make_attack
from fkd.bounds import CertificateResult, certificate_config, make_certificate
from fkd.core.ball import Region
from fkd.core.paths import pretrained_dir
from fkd.data import Split, load_split
from fkd.models import list_models, load_model, read_card


@dataclass(frozen=True)
class SoundnessCount:
    """Examples looked at, and violations: witness above certificate, witness against agreement."""

    examples: int
    gap_violations: int
    agreement_violations: int
    largest_excess: float


def spread_region(split: Split, count: int, epsilons: Sequence[float]) -> Region:
    """The first ``count`` examples, radii taking turns through ``epsilons``."""
    ids = torch.arange(count)
    images = split.images[:count]
    radius = torch.tensor(epsilons, dtype=torch.float64)[ids % len(epsilons)]
    return Region.around(images, radius, ids)


def attack_and_certify(
    teacher: nn.Module, student: nn.Module, region: Region, labels: torch.Tensor, *, seed: int = 1
) -> tuple[PairAttackResult, CertificateResult]:
    """Both ends of the bracket, the attack with fewer steps than an analysis uses."""
    attack = make_attack(attack_config({"steps": 25}))
    attacked = attack.run(teacher, student, region, labels, seed=seed)
    certified = make_certificate(certificate_config({})).bound(teacher, student, region, labels)
    return attacked, certified


def count_violations(attacked: PairAttackResult, certified: CertificateResult) -> SoundnessCount:
    """How often the two ends contradict each other."""
    excess = attacked.gap - certified.gap
    return SoundnessCount(
        examples=len(excess),
        gap_violations=int((~(excess <= 1e-6)).sum()),
        agreement_violations=int((attacked.disagrees & certified.agrees).sum()),
        largest_excess=float(excess.max()),
    )


def students_of(teacher: str) -> list[str]:
    """Names of the shipped students of a shipped teacher."""
    model_hash = read_card(teacher).model_hash
    return [
        card.name
        for card in list_models(dataset=read_card(teacher).dataset, role="student")
        if card.teacher is not None
        and card.teacher.model_hash == model_hash
        and (pretrained_dir() / card.name).is_dir()
    ]


def check_shipped_pair(
    dataset: str, teacher: str, student: str, epsilons: Sequence[float] = (0.02, 0.05, 0.1, 0.2)
) -> None:
    """Assert that 500 examples, radii taking turns, hold no contradiction and no useless bound."""
    split = load_split(dataset, "test")
    region = spread_region(split, 500, epsilons)
    attacked, certified = attack_and_certify(
        load_model(teacher).network, load_model(student).network, region, split.labels[:500]
    )
    count = count_violations(attacked, certified)
    assert count.examples == 500
    assert (count.gap_violations, count.agreement_violations) == (0, 0), count
    small = region.radius < 0.03
    if small.any():
        # A certificate of 1 everywhere would be sound and useless.
        assert certified.gap[small].mean() < 0.6
