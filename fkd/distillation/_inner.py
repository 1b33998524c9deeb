"""The batched attack inside adversarial training: projected gradient ascent on a given loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from fkd.bounds.joint import JointLogits
from fkd.core.ball import Ball
from fkd.distillation.base import Batch

#: Standard deviation of the Gaussian start of TRADES's and RSLAD's attacks.
GAUSSIAN_START = 0.001


@contextmanager
def frozen_statistics(network: nn.Module) -> Iterator[None]:
    """Eval mode inside, each module's own mode again after.

    An attack in train mode would move batch normalisation's running statistics, and each example's
    gradient would depend on its neighbours.
    """
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _frozen_parameters(network: nn.Module) -> Iterator[None]:
    """No gradient for parameters inside: layers that compute their own would compute it all the same."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def uniform_start(batch: Batch, epsilon: float, stream: int = 0) -> Tensor:
    """A uniform point of each image's ball, shaped like the images."""
    lower, upper = Ball(epsilon=epsilon).limits(batch.images)
    start = batch.images + epsilon * (2.0 * batch.uniform(stream) - 1.0)
    return torch.minimum(torch.maximum(start, lower), upper)


def gaussian_start(batch: Batch, epsilon: float, stream: int = 0) -> Tensor:
    """The image plus a little Gaussian noise, inside the ball."""
    lower, upper = Ball(epsilon=epsilon).limits(batch.images)
    start = batch.images + GAUSSIAN_START * batch.normal(stream)
    return torch.minimum(torch.maximum(start, lower), upper)


def ascend(
    network: nn.Module,
    images: Tensor,
    start: Tensor,
    objective: Callable[[Tensor], Tensor],
    *,
    epsilon: float,
    steps: int,
    step_size: float,
) -> Tensor:
    """Signed gradient ascent within the ball around ``images``.

    x <- clip(x + step_size * sign(grad_x objective(network(x)))) with clip to the ball and to [0, 1].

    Args:
        network: attacked in eval mode; its modes are restored.
        images: centres of the balls (N, C, H, W).
        start: first points, inside the balls.
        objective: logits (N, K) to a scalar that is a sum over examples, to be increased.
        epsilon: radius in pixel units.
        steps: how many steps.
        step_size: length of one step in pixel units.

    Returns:
        The last points, without a gradient.
    """
    lower, upper = Ball(epsilon=epsilon).limits(images)
    points = start.detach()
    with frozen_statistics(network), _frozen_parameters(network):
        for _ in range(steps):
            points.requires_grad_(True)
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(objective(network(points)), points)
            points = points.detach() + step_size * gradient.sign()
            points = torch.minimum(torch.maximum(points, lower), upper)
    return points.detach()


def cross_entropy_objective(labels: Tensor) -> Callable[[Tensor], Tensor]:
    """CE(p(x'), y) summed over examples."""
    return lambda logits: functional.cross_entropy(logits.float(), labels, reduction="sum")


def attacked_on_labels(
    batch: Batch, network: nn.Module, *, epsilon: float, steps: int, step_size: float
) -> Tensor:
    """PGD on CE(p(x'), y) from a uniform point of each image's ball, like the images.

    Args:
        batch: images and labels.
        network: attacked in eval mode.
        epsilon: radius in pixel units.
        steps: how many steps.
        step_size: length of one step in pixel units.
    """
    return ascend(
        network,
        batch.images,
        uniform_start(batch, epsilon),
        cross_entropy_objective(batch.labels),
        epsilon=epsilon,
        steps=steps,
        step_size=step_size,
    )


def divergence_objective(target_logits: Tensor) -> Callable[[Tensor], Tensor]:
    """KL(p || q(x')) summed over examples, p fixed."""
    target = functional.log_softmax(target_logits.detach().float(), dim=1)

    def objective(logits: Tensor) -> Tensor:
        return functional.kl_div(
            functional.log_softmax(logits.float(), dim=1), target, reduction="sum", log_target=True
        )

    return objective


def attacked_on_divergence(
    batch: Batch,
    teacher: nn.Module,
    student: nn.Module,
    start: Tensor,
    *,
    epsilon: float,
    steps: int,
    step_size: float,
) -> Tensor:
    """Points of the balls where the student diverges from its teacher *at the same point*.

    Args:
        batch: images.
        teacher: moves with the points, too.
        student: attacked in eval mode.
        start: first points, inside the balls.
        epsilon: radius in pixel units.
        steps: how many steps.
        step_size: length of one step in pixel units.
    """
    return ascend(
        JointLogits(teacher, student),
        batch.images,
        start,
        joint_divergence,
        epsilon=epsilon,
        steps=steps,
        step_size=step_size,
    )


def joint_divergence(logits: Tensor) -> Tensor:
    """KL(p^T(x') || p^S(x')) of `JointLogits`, summed over examples; both move with x'."""
    teacher, student = logits.float().chunk(2, dim=1)
    return functional.kl_div(
        functional.log_softmax(student, dim=1),
        functional.log_softmax(teacher, dim=1),
        reduction="sum",
        log_target=True,
    )
