"""AutoAttack's standard ensemble (Croce and Hein, 2003.01690): four attacks, one after another.

1. ``apgd-ce``: Auto-PGD on the cross-entropy.
2. ``apgd-t``: Auto-PGD on the targeted difference of logits ratio,
   ``-(z_y - z_t) / (z_1 - (z_3 + z_4) / 2)``, against each other class t.  It needs four classes.
3. ``fab-t``: Fast Adaptive Boundary (1907.02044), against each other class.
4. ``square``: Square Attack (1912.00049), without gradients.

Each attacks what the ones before left standing.  The first three are adv_lib's, which adapted the
authors' code, with the paper's settings (one restart, 100 steps); Square is `fkd.attacks.single.square`.
In one thing ``apgd-t`` differs from the authors': a point counts where it reaches the class it aims at.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fkd.attacks.single._library import load_attacks
from fkd.attacks.single.square import run_square
from fkd.attacks.single.standing import Standing, Tell

#: In the order in which they attack.
MEMBERS = ("apgd-ce", "apgd-t", "fab-t", "square")
#: The ratio divides by a difference of the first and the mean of the third and fourth logits.
_DLR_CLASSES = 4

#: Images (N, C, H, W) to logits (N, K).
Network = Callable[[Tensor], Tensor]


def left_out(num_classes: int) -> dict[str, str]:
    """Members that cannot attack a network with so many classes, each with the reason in a sentence."""
    if num_classes >= _DLR_CLASSES:
        return {}
    return {
        "apgd-t": (
            f"apgd-t was left out: its loss needs at least {_DLR_CLASSES} classes, and there are "
            f"{num_classes}."
        )
    }


def run_autoattack(
    standing: Standing,
    *,
    steps: int,
    queries: int,
    seed: int,
    tell: Callable[[str, float], None],
) -> None:
    """Attack the examples that stand by each member in turn.

    Args:
        standing: the examples; those that are fooled fall.
        steps: steps of Auto-PGD and FAB, towards each target.
        queries: forward passes of Square.
        seed: chooses all random numbers.  Those of Auto-PGD also depend on which examples are attacked
            together.
        tell: told the member and the share of it that is done; may raise to stop it.

    Raises:
        ConfigError: the library is not installed.
    """
    num_classes = standing.num_classes
    for number, member in enumerate(MEMBERS):
        if member in left_out(num_classes) or not len(standing.left()):
            continue
        tell(member, 0.0)
        within: Tell = lambda share, name=member: tell(name, share)  # noqa: E731
        if member == "square":
            run_square(standing, queries=queries, seed=seed, tell=within)
        else:
            _by_library(standing, member, steps, _member_seed(seed, number), within)
        tell(member, 1.0)


def _by_library(standing: Standing, member: str, steps: int, seed: int, tell: Tell) -> None:
    attacks = load_attacks()
    targets = standing.num_classes - 1
    rows = standing.left()
    region, labels = standing.region[rows], standing.labels[rows]
    norm = 2 if region.norm == "l2" else math.inf
    # The library knows one radius for all channels.  With each channel in units of its scale there is
    # one; times the smallest scale, so that images stay within the library's [0, 1].
    smallest = region.pixel_scale().min()
    unit = (region.pixel_scale() / smallest).to(region.images.dtype)
    images = region.images / unit
    radius = (region.radius * smallest).to(images.dtype)
    passes = {
        "apgd-ce": steps + 1,
        "apgd-t": targets * (steps + 1) + 1,
        "fab-t": targets * (2 * steps + 1) + 1,
    }[member]
    network = _told_of(standing, passes, tell)
    if region.scale is not None:
        network = _of_units(network, unit)
    device = images.device
    # The library draws from torch's own generator, whose state is no one's business afterwards.
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed + int(standing.region.example_ids[0]))
        if member == "apgd-ce":
            points = attacks.apgd(
                network, images, labels, eps=radius, norm=norm, n_iter=steps, loss_function="ce"
            )
        elif member == "apgd-t":
            points = attacks.apgd_targeted(
                network, images, labels, eps=radius, norm=norm, n_iter=steps, loss_function="dlr"
            )
        else:
            points = attacks.fab(
                network, images, labels, norm=norm, n_iter=steps, targeted_restarts=True
            )
    standing.take(rows, points.detach() * unit, member)


def _told_of(standing: Standing, passes: int, tell: Tell) -> Network:
    """The network, reporting at each pass: the library takes no callback, and is stopped from here."""
    done = 0

    def call(points: Tensor) -> Tensor:
        nonlocal done
        done += 1
        tell(min(0.99, done / passes))
        return standing.network(points)

    return call


def _of_units(network: Network, unit: Tensor) -> Network:
    """The network of images whose channels are divided by ``unit``, (C, 1, 1) of at least 1.

    Such a channel's range ends below 1, which the library does not know: beyond it the network sees the
    end of the range, but with a gradient, so that a pixel finds back.
    """

    def call(points: Tensor) -> Tensor:
        images = points * unit
        return network(images + (images.clamp(0.0, 1.0) - images).detach())

    return call


def _member_seed(seed: int, number: int) -> int:
    return (seed * len(MEMBERS) + number) * 1_000_003
