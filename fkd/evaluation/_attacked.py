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
    hints: Tensor | None = None,
    progress: ProgressCallback | None = None,
) -> PairAttackResult:
    """Run an attack.

    Args:
        config: the attack.
        networks: teacher and student, images (N, C, H, W) to logits (N, K), in eval mode.
        region: N balls.
        classes: int64 (N,), the class whose confidences are compared.
        seed: of everything random.
        hints: points (N, P, C, H, W) to start from, in place of a certificate's corners.
        progress: told how far it is; answering True cancels.
    """
    attack = make_attack(config)
    if hints is None and attack.wants_corners:
        hints = worst_corners(*networks, region, classes)
    return attack.run(*networks, region, classes, seed=seed, hints=hints, progress=progress)
