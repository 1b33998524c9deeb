"""The attack of an analysis, with a certificate's worst corners to start from where it takes them."""

from __future__ import annotations

from torch import Tensor, nn

from fkd.attacks import PairAttackConfig, PairAttackResult, make_attack
from fkd.bounds.corners import worst_corners
from fkd.core.ball import Region
from fkd.core.progress import ProgressCallback


def attack_pair(
    config: PairAttackConfig,
    networks: tuple[nn.Module, nn.Module],
    region: Region,
    classes: Tensor,
    *,
    seed: int,
    progress: ProgressCallback | None = None,
) -> PairAttackResult:
    """Run an attack.

    Args:
        config: the attack.
        networks: teacher and student, images (N, C, H, W) to logits (N, K), in eval mode.
        region: N balls.
        classes: int64 (N,), the class whose confidences are compared.
        seed: of everything random.
        progress: told how far it is; answering True cancels.
    """
    attack = make_attack(config)
    hints = worst_corners(*networks, region, classes) if attack.wants_corners else None
    return attack.run(*networks, region, classes, seed=seed, hints=hints, progress=progress)
