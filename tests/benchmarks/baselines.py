"""What auto_LiRPA gives by itself: the baselines that the project's certificate is held against."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fkd.bounds.finish import odds_range
from fkd.bounds.joint import JointLogits
from fkd.core.ball import Region
from fkd.core.lirpa_compat import load_auto_lirpa
from fkd.core.precision import double_copy


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


def _bounded(module: nn.Module, region: Region, rows: Tensor) -> tuple[Tensor, Tensor]:
    lirpa = load_auto_lirpa()
    for part in module.modules():
        part._non_persistent_buffers_set.clear()
    images = region.images.double()
    bounded = lirpa.BoundedModule(module, images[:1], device=images.device)
    ball = lirpa.PerturbationLpNorm(
        norm=float("inf"), x_L=region.lower.double(), x_U=region.upper.double()
    )
    with torch.no_grad():
        lower, upper = bounded.compute_bounds(
            x=(lirpa.BoundedTensor(images, ball),), C=rows, method="CROWN"
        )
    return lower, upper


def softmax_in_graph(
    teacher: nn.Module, student: nn.Module, region: Region, classes: Tensor
) -> Tensor:
    """(A) CROWN on the module `SoftmaxGap`; upper bound of the gap, (N,), clamped to 1."""
    module = SoftmaxGap(double_copy(teacher), double_copy(student)).eval()
    with torch.no_grad():
        count = module(region.images[:1].double()).shape[1]
    rows = torch.eye(count, dtype=torch.float64, device=classes.device)[classes][:, None, :]
    lower, upper = _bounded(module, region, rows)
    return torch.maximum(upper, -lower).squeeze(1).nan_to_num(nan=1.0).clamp(0.0, 1.0)


def margins_alone(
    teacher: nn.Module, student: nn.Module, region: Region, classes: Tensor
) -> Tensor:
    """(B) each network's margins by CROWN, softmax exact, nothing joint; (N,)."""
    joint = JointLogits(double_copy(teacher), double_copy(student)).eval()
    with torch.no_grad():
        count = joint(region.images[:1].double()).shape[1] // 2
    eye = torch.eye(count, dtype=torch.float64, device=classes.device)
    places = torch.arange(count - 1, device=classes.device).expand(len(classes), -1)
    others = places + (places >= classes[:, None]).long()
    rows = eye[others] - eye[classes][:, None, :]
    ranges = [odds_range(*_bounded(double_copy(n), region, rows)) for n in (teacher, student)]
    (low_teacher, high_teacher), (low_student, high_student) = ranges
    above = torch.sigmoid(high_teacher) - torch.sigmoid(low_student)
    below = torch.sigmoid(high_student) - torch.sigmoid(low_teacher)
    return torch.maximum(above, below).clamp(0.0, 1.0)
