"""What is known of the two log-odds on a set, and the bound of the gap that follows from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fkd.bounds.finish import gap_upper_on_lines


@dataclass(frozen=True)
class Lines:
    """Ranges of ``a_P`` and ``a_Q`` and support lines ``rho a_P - a_Q <= d``, for N sets.

    Everything known of a set holds on its subsets, so lines are only ever added.

    Attributes:
        amin_p: (N,), lower end of a_P.
        amax_p: upper end of a_P.
        amin_q: lower end of a_Q.
        slopes: rho >= 0, (N, L).
        shifts: d, (N, L).
    """

    amin_p: Tensor
    amax_p: Tensor
    amin_q: Tensor
    slopes: Tensor
    shifts: Tensor

    def gap(self, cells: int = 1024) -> Tensor:
        """Upper bound of p_P - p_Q, (N,)."""
        return gap_upper_on_lines(
            self.amin_p, self.amax_p, self.amin_q, self.slopes, self.shifts, cells=cells
        )

    def where(self, points: int = 65, rounds: int = 3) -> tuple[Tensor, Tensor]:
        """Log-odds (a, b) near which the bound is attained, (N,) each; a search, nothing proved."""
        high = torch.maximum(self.amax_p, self.amin_p).clamp(-40.0, 40.0)
        low = torch.minimum(self.amin_p.clamp(-40.0, 40.0), high)
        steps = torch.linspace(0.0, 1.0, points, dtype=low.dtype, device=low.device)
        start, end = low, high
        for _ in range(rounds):
            a = start[:, None] + (end - start)[:, None] * steps
            b = self.slopes[:, :, None] * a[:, None, :] - self.shifts[:, :, None]
            b = torch.maximum(b.amax(1), self.amin_q[:, None])
            best = (torch.sigmoid(a) - torch.sigmoid(b)).argmax(1, keepdim=True)
            found = a.gather(1, best)[:, 0], b.gather(1, best)[:, 0]
            width = (end - start) / (points - 1)
            start = torch.maximum(found[0] - width, low)
            end = torch.minimum(found[0] + width, high)
        return found

    def sensitivity(self, cells: int) -> tuple[Tensor, Tensor, Tensor]:
        """How the bound moves with ``amax_p``, ``-amin_q`` and all shifts together; (N,) each."""
        with torch.enable_grad():
            ends = [
                part.detach().clone().requires_grad_(True)
                for part in (self.amax_p, self.amin_q, self.shifts)
            ]
            lines = Lines(self.amin_p, ends[0], ends[1], self.slopes, ends[2])
            grads = torch.autograd.grad(lines.gap(cells).sum(), ends, allow_unused=True)
        top, floor, shifts = (
            torch.zeros_like(end) if grad is None else torch.nan_to_num(grad)
            for end, grad in zip(ends, grads, strict=True)
        )
        return top.clamp_min(0.0), (-floor).clamp_min(0.0), shifts.clamp_min(0.0).sum(1)

    def also(self, slopes: Tensor, shifts: Tensor) -> Lines:
        """With one more line a set, (N,) each."""
        return Lines(
            self.amin_p,
            self.amax_p,
            self.amin_q,
            torch.cat([self.slopes, slopes[:, None]], 1),
            torch.cat([self.shifts, shifts[:, None]], 1),
        )

    def narrowed(self, amax_p: Tensor, amin_q: Tensor) -> Lines:
        """With ranges that are also known; NaN (an overflow) tells nothing."""
        return Lines(
            self.amin_p,
            torch.fmin(self.amax_p, amax_p),
            torch.fmax(self.amin_q, amin_q),
            self.slopes,
            self.shifts,
        )

    def meet(self, other: Lines) -> Lines:
        """Everything that is known in either, of the same sets."""
        return Lines(
            torch.fmax(self.amin_p, other.amin_p),
            torch.fmin(self.amax_p, other.amax_p),
            torch.fmax(self.amin_q, other.amin_q),
            torch.cat([self.slopes, other.slopes], 1),
            torch.cat([self.shifts, other.shifts], 1),
        )

    def put(self, rows: Tensor, other: Lines) -> Lines:
        """With more known of some sets: ``other`` (M sets) belongs to ``rows`` and has lines besides."""
        more = other.slopes.shape[1] - self.slopes.shape[1]
        # Sets that learnt nothing say their first line again.
        again = [part[:, :1].expand(-1, more) for part in (self.slopes, self.shifts)]
        return Lines(
            self.amin_p.index_put((rows,), other.amin_p),
            self.amax_p.index_put((rows,), other.amax_p),
            self.amin_q.index_put((rows,), other.amin_q),
            torch.cat([self.slopes, again[0]], 1).index_put((rows,), other.slopes),
            torch.cat([self.shifts, again[1]], 1).index_put((rows,), other.shifts),
        )

    def __getitem__(self, rows: Tensor | slice) -> Lines:
        return Lines(
            self.amin_p[rows],
            self.amax_p[rows],
            self.amin_q[rows],
            self.slopes[rows],
            self.shifts[rows],
        )
