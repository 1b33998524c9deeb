"""What auto_LiRPA gives by itself: the baselines that the project's certificate is held against.

Both are given the better of what was tried: the graph is built once a call, and examples go through in
chunks of eight, which took 2/3 of the time of all 32 at once on MNIST (caches).  Bounds are compared in
float64, on the same real set as the project's (`Region.double_limits`); float32 is auto_LiRPA's usual
type and there to compare times.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fkd.bounds.finish import odds_range
from fkd.core.ball import Region
from fkd.core.lirpa_compat import load_auto_lirpa
from fkd.core.precision import double_copy
from tests.benchmarks.measure import Bounded

#: Examples bounded at once.
CHUNK = 8


class SoftmaxGap(nn.Module):
    """``softmax(T(x)) - softmax(S(x))`` with exponential, sum and division in the graph."""

    def __init__(self, teacher: nn.Module, student: nn.Module) -> None:
        super().__init__()
        self.teacher = teacher
        self.student = student

    def forward(self, images: Tensor) -> Tensor:
        """Differences of probabilities, (N, K)."""
        return _softmax(self.teacher(images)) - _softmax(self.student(images))


def _softmax(logits: Tensor) -> Tensor:
    exponentials = torch.exp(logits)
    return exponentials / exponentials.sum(1, keepdim=True)


def _bounded(
    module: nn.Module, region: Region, rows: Tensor, *, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """CROWN bounds of ``rows`` (N, R, K) of the module's outputs, each (N, R) of ``dtype``."""
    lirpa = load_auto_lirpa()
    module = double_copy(module).to(dtype)
    for part in module.modules():
        part._non_persistent_buffers_set.clear()
    images = region.images.to(dtype)
    lower, upper = (
        region.double_limits() if dtype == torch.float64 else (region.lower, region.upper)
    )
    bounded = lirpa.BoundedModule(module, images[:1], device=images.device)
    parts = []
    for start in range(0, len(region), CHUNK):
        some = slice(start, start + CHUNK)
        ball = lirpa.PerturbationLpNorm(norm=float("inf"), x_L=lower[some], x_U=upper[some])
        with torch.no_grad():
            parts.append(
                bounded.compute_bounds(
                    x=(lirpa.BoundedTensor(images[some], ball),),
                    C=rows[some].to(dtype),
                    method="CROWN",
                )
            )
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _classes_of(network: nn.Module, region: Region) -> int:
    with torch.no_grad():
        return network(region.images[:1]).shape[1]


def softmax_in_graph(
    teacher: nn.Module, student: nn.Module, region: Region, classes: Tensor
) -> Bounded:
    """(A) CROWN on the module `SoftmaxGap`, clamped to 1, in float64; says nothing of agreement."""
    count = _classes_of(teacher, region)
    rows = torch.eye(count, device=classes.device)[classes][:, None, :]
    lower, upper = _bounded(SoftmaxGap(teacher, student).eval(), region, rows)
    return Bounded(torch.maximum(upper, -lower).squeeze(1).nan_to_num(nan=1.0).clamp(0.0, 1.0))


def margins_alone(
    teacher: nn.Module,
    student: nn.Module,
    region: Region,
    classes: Tensor,
    *,
    dtype: torch.dtype = torch.float64,
) -> Bounded:
    """(B) each network's margins by CROWN, softmax exact (in float64), nothing joint.

    Agreement is certified where both margins are negative, which takes ``classes`` for both
    networks' predictions.
    """
    count = _classes_of(teacher, region)
    eye = torch.eye(count, device=classes.device)
    places = torch.arange(count - 1, device=classes.device).expand(len(classes), -1)
    others = places + (places >= classes[:, None]).long()
    rows = eye[others] - eye[classes][:, None, :]
    margins = [_bounded(network, region, rows, dtype=dtype) for network in (teacher, student)]
    (low_teacher, high_teacher), (low_student, high_student) = (
        odds_range(lower.double(), upper.double()) for lower, upper in margins
    )
    above = torch.sigmoid(high_teacher) - torch.sigmoid(low_student)
    below = torch.sigmoid(high_student) - torch.sigmoid(low_teacher)
    robust = [(upper < 0).all(1) for _, upper in margins]
    return Bounded(torch.maximum(above, below).clamp(0.0, 1.0), robust[0] & robust[1])


def margins_alone_single(
    teacher: nn.Module, student: nn.Module, region: Region, classes: Tensor
) -> Bounded:
    """(B) in float32, auto_LiRPA's usual type: for its time, its bounds are no proofs."""
    return margins_alone(teacher, student, region, classes, dtype=torch.float32)
