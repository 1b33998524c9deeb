"""A head from the teacher's latent space to one of the student's dimension that keeps distances."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import orthogonal

#: Examples in one step of the fit: enough that each has near and far neighbours among them.
_BATCH = 256
_LEARNING_RATE = 0.01


class LatentHead(nn.Module):
    """h(t) = W (t - m) / s, with W W^T = 1 (W^T W = 1 where the student's space is the larger).

    W, m and s are buffers: they are fitted once and then remembered.

    Args:
        teacher: D, length of the teacher's latent vectors.
        student: d, length of the student's.
    """

    weight: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, teacher: int, student: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.eye(student, teacher))
        self.register_buffer("mean", torch.zeros(teacher))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, latents: Tensor) -> Tensor:
        """Targets (N, d) of the teacher's latent vectors (N, D)."""
        return (latents - self.mean) @ self.weight.T / self.scale

    def pull_back(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """A layer on the teacher's latent vectors as one on targets, t being taken for s W^T u + m.

        Args:
            weight: (K, D).
            bias: (K,).

        Returns:
            Weight (K, d) and bias (K,).
        """
        return self.scale * weight @ self.weight.T, weight @ self.mean + bias

    def fit(self, latents: Tensor, *, steps: int, temperature: float, seed: int) -> None:
        """Fit W, m and s to latent vectors (N, D): neighbours of the teacher's stay neighbours.

        m is the mean.  W starts from the principal axes and, where it loses dimensions, follows the
        gradient of `similarity_divergence` on random batches.  s makes the targets' mean square 1.

        Args:
            latents: (N, D), at least 2.
            steps: steps of Adam; 0 keeps the principal axes.
            temperature: of the similarities.
            seed: chooses the batches.
        """
        student, teacher = self.weight.shape
        self.mean.copy_(latents.mean(0))
        centred = latents - self.mean
        weight = principal_axes(centred, student)
        # A square or tall W turns the space and loses nothing: there is nothing to fit.
        if student < teacher and steps:
            weight = _fitted(weight, centred, steps, temperature, seed)
        self.weight.copy_(weight)
        length = (centred @ weight.T).square().sum(1).mean().sqrt()
        # A teacher whose latent vectors are all the same leaves zeros, whatever they are divided by.
        self.scale.copy_(torch.where(length > 0, length, torch.ones_like(length)))


def principal_axes(centred: Tensor, count: int) -> Tensor:
    """The ``count`` directions of largest variance as orthonormal rows (count, D), largest first.

    Where ``count`` exceeds D there are zero rows below, and the columns are orthonormal.

    Args:
        centred: (N, D) of mean 0.
        count: how many rows.
    """
    double = centred.double()
    _, vectors = torch.linalg.eigh(double.T @ double)
    axes = vectors.flip(1).T[:count]
    # Eigenvectors have no sign of their own: without this it would be the library's choice.
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    axes = axes * largest.sign()
    return functional.pad(axes, (0, 0, 0, max(0, count - len(axes)))).to(centred.dtype)


def similarity_divergence(latents: Tensor, mapped: Tensor, temperature: float) -> Tensor:
    """KL between two batches' distributions over neighbours, averaged over the batch.

    Of an example i, p_ij = softmax_j(cos(t_i, t_j) / temperature) over all j but i.

    Args:
        latents: (N, D), the distribution's that is imitated.
        mapped: (N, d).
        temperature: the lower, the more the nearest neighbours count.
    """

    def log_probabilities(vectors: Tensor) -> Tensor:
        unit = functional.normalize(vectors, dim=1)
        count = len(unit)
        others = ~torch.eye(count, dtype=torch.bool, device=unit.device)
        similarity = (unit @ unit.T)[others].reshape(count, count - 1)
        return functional.log_softmax(similarity / temperature, dim=1)

    return functional.kl_div(
        log_probabilities(mapped),
        log_probabilities(latents),
        reduction="batchmean",
        log_target=True,
    )


def _fitted(start: Tensor, centred: Tensor, steps: int, temperature: float, seed: int) -> Tensor:
    """The orthonormal rows after ``steps`` steps from ``start``."""
    layer = nn.Module()
    layer.weight = nn.Parameter(start.clone())
    # torch completes the rows to a basis by random numbers of its own.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        orthogonal(layer, "weight")
    optimiser = torch.optim.Adam(layer.parameters(), lr=_LEARNING_RATE)
    generator = torch.Generator().manual_seed(seed)
    count = min(_BATCH, len(centred))
    with torch.enable_grad():
        for step in range(steps):
            rows = torch.randperm(len(centred), generator=generator)[:count].to(centred.device)
            part = centred[rows]
            loss = similarity_divergence(part, part @ layer.weight.T, temperature)
            for group in optimiser.param_groups:
                group["lr"] = _LEARNING_RATE * (1.0 - step / steps)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return layer.weight.detach()
