"""Both networks as one module, bounded jointly by auto_LiRPA.

The module returns ``cat(z^T, z^S)`` (N, 2K).  A specification row on that vector is propagated through
both networks to the *same* input, where the coefficients are added before their absolute value is
taken, so that what the networks share cancels.  Everything runs in float64.
"""

from __future__ import annotations

import contextlib
import io
import threading
import warnings
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from fkd.bounds._double import DoubleByDefault
from fkd.bounds._perturbation import perturbation
from fkd.core.ball import Region
from fkd.core.errors import UnsupportedModelError
from fkd.core.lirpa_compat import lirpa_version, load_auto_lirpa
from fkd.core.precision import double_copy

# Tracing goes through torch.jit's global state and a BoundedModule keeps intermediate bounds on its
# nodes, so one thread at a time: two sessions mixing bounds would be silently unsound.
LOCK = threading.RLock()

#: Relative and absolute widening of every bound: float64 CROWN on networks of this size errs by less
#: than 1e-11 of the bound's size, so this is a wide margin (a proved slack is a later issue's).
_SLACK = 1e-9

#: What rounding may add where a bound is held against the value at the image, relative and absolute.
_PROBE_SLACK = 1e-6

_BYTES = 8

#: Tensors of coefficients that a gradient keeps for each pair of units.
_KEPT = 6


class JointLogits(nn.Module):
    """Images to both networks' logits side by side, (N, 2K)."""

    def __init__(self, teacher: nn.Module, student: nn.Module) -> None:
        super().__init__()
        self.teacher = teacher
        self.student = student

    def forward(self, images: Tensor) -> Tensor:
        """``cat(z^T, z^S)``."""
        return torch.cat([self.teacher(images), self.student(images)], dim=1)


def joint_double(teacher: nn.Module, student: nn.Module) -> JointLogits:
    """A float64 copy of both networks, ready for auto_LiRPA."""
    joint = JointLogits(double_copy(teacher), double_copy(student)).eval()
    for module in joint.modules():
        # auto_LiRPA takes constants of a linear operation from the state dictionary only.
        module._non_persistent_buffers_set.clear()
    return joint


class JointBounder:
    """Bounds on rows of ``C @ cat(z^T, z^S)`` over boxes; build one per certificate call.

    Args:
        teacher: images (N, C, H, W) to logits (N, K).
        student: the same.
        example: one image (1, C, H, W), for tracing.
        method: auto_LiRPA's name, ``"CROWN"`` or ``"CROWN-IBP"``.

    Raises:
        UnsupportedModelError: auto_LiRPA cannot parse one of the networks.
    """

    def __init__(
        self, teacher: nn.Module, student: nn.Module, example: Tensor, *, method: str = "CROWN"
    ) -> None:
        self.joint = joint_double(teacher, student)
        self.method = method
        self._example = example.double()
        self._conv_mode = _first_conv_mode(self.joint)
        self._is_probed = False
        self._module = self.build()
        shapes = _layer_shapes(self.joint, self._example)
        ends = max(self._example[0].numel(), self.logits(self._example)[0].shape[1] * 2)
        self._widest = max([ends, *(numel for _, numel in shapes)])
        self._units = ends + sum(numel for _, numel in shapes)
        self.bytes_per_example = _dearest_bytes(shapes, self._widest)

    def build(self, **options: Any) -> Any:
        """A fresh ``BoundedModule`` of both networks, with more ``bound_opts``.

        Raises:
            UnsupportedModelError: auto_LiRPA cannot parse one of the networks.
        """
        lirpa = load_auto_lirpa()
        # What tracing and auto_LiRPA have to remark and to print is not for the user.
        with LOCK, warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            try:
                module = lirpa.BoundedModule(
                    self.joint,
                    self._example,
                    bound_opts={"conv_mode": self._conv_mode, "verbosity": 0, **options},
                    device=self._example.device,
                )
            except Exception as error:
                raise UnsupportedModelError(
                    "auto_LiRPA cannot bound this pair of networks "
                    f"({_last_line(error)}); use networks built from linear, convolutional, "
                    "batch-norm, pooling and ReLU layers."
                ) from error
        _refuse_wrong(module)
        return module

    def bound(self, region: Region, specification: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds of every row on every box.

        Args:
            region: N boxes.
            specification: float64 (N, R, 2K).

        Returns:
            Two float64 tensors (N, R), widened outwards by a small slack.

        Raises:
            UnsupportedModelError: auto_LiRPA fails on an operation of one of the networks.
        """
        lower, upper = self._attempt(region, specification, is_second=False)
        return widened(lower, -1.0), widened(upper, 1.0)

    def upper_again(self, region: Region, specification: Tensor) -> Tensor:
        """Upper bounds (N, R) of more rows on the boxes of the last `bound`, reusing hidden bounds."""
        return widened(self._attempt(region, specification, is_second=True)[1], 1.0)

    def _attempt(
        self, region: Region, specification: Tensor, *, is_second: bool
    ) -> tuple[Tensor, Tensor]:
        try:
            if not self._is_probed:
                self._probe()
            lower, upper = self._compute(region, specification, is_second)
            self.check_clean(region.images, specification, lower, upper)
            return lower, upper
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise MemoryError(str(error)) from error
            if self._conv_mode == "matrix":
                raise UnsupportedModelError(
                    "auto_LiRPA cannot bound an operation of this pair of networks "
                    f"({_last_line(error)}); use linear, convolutional, batch-norm, pooling and "
                    "ReLU layers."
                ) from error
            # Release 0.3's patches mode lacks some operations that the slower matrix mode has.
            self._conv_mode = "matrix"
            self._is_probed = False
            self._module = self.build()
            return self._attempt(region, specification, is_second=False)

    def _probe(self) -> None:
        """Refuse operations whose bounds are wrong already on a single point.

        Release 0.3 ignores the padding of an average and the value or mode of other paddings.  On a box
        of one image every relaxation is exact, so the bounds have to hold its logits.
        """
        generator = torch.Generator().manual_seed(0)
        image = torch.rand(self._example.shape, generator=generator, dtype=torch.float64)
        image = image.to(self._example.device)
        ids = torch.zeros(1, dtype=torch.int64, device=image.device)
        point = Region(image, image, image, ids.double(), ids)
        width = sum(part.shape[1] for part in self.logits(image))
        rows = torch.eye(width, dtype=torch.float64, device=image.device)[None]
        self.check_clean(image, rows, *self._compute(point, rows, False))
        self._is_probed = True

    def check_clean(
        self, images: Tensor, specification: Tensor, lower: Tensor | None, upper: Tensor
    ) -> None:
        """Hold bounds against the rows' values at points of the boxes.

        Raises:
            ArithmeticError: a value is beyond its bound by more than rounding.
        """
        logits = torch.cat(self.logits(images), dim=1)
        clean = (specification @ logits[:, :, None])[:, :, 0]
        slack = _PROBE_SLACK * (1.0 + clean.abs())
        is_wrong = clean > upper + slack
        if lower is not None:
            is_wrong = is_wrong | (clean < lower - slack)
        if bool(is_wrong.any()):
            raise ArithmeticError("its bounds do not hold the value at the image itself")

    def _compute(
        self, region: Region, specification: Tensor, is_second: bool
    ) -> tuple[Tensor, Tensor]:
        lirpa = load_auto_lirpa()
        ball = perturbation(region)
        # Without an input auto_LiRPA keeps the last one and the hidden bounds on its nodes.
        inputs = None if is_second else (lirpa.BoundedTensor(region.images.double(), ball),)
        with LOCK, torch.no_grad(), DoubleByDefault():
            return self._module.compute_bounds(
                x=inputs, C=specification, method=self.method, bound_lower=not is_second
            )

    def logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Both networks' float64 logits (N, K)."""
        with torch.no_grad():
            both = self.joint(images.double())
        half = both.shape[1] // 2
        return both[:, :half], both[:, half:]

    def chunk_size(self, largest: int = 64, *, rows: int = 0, keeps_all: bool = False) -> int:
        """How many boxes with ``rows`` specification rows fit at once into a quarter of free memory.

        Args:
            largest: never more than these.
            rows: specification rows of a box.
            keeps_all: whether the coefficients between all layers are kept, for their gradients.
        """
        device = self._example.device
        if device.type == "cuda":
            free = torch.cuda.mem_get_info(device)[0]
        else:
            free = psutil.virtual_memory().available
        # With many classes the rows themselves, and their way back through the networks, are dearest.
        needed = max(self.bytes_per_example, 4 * _BYTES * rows * self._widest)
        if keeps_all:
            # Each unit may have coefficients for every unit below, and so has each row.
            needed = _KEPT * _BYTES * self._units * (self._units // 2 + rows)
        return max(1, min(largest, int(0.25 * free / needed)))


def _refuse_wrong(module: nn.Module) -> None:
    """Refuse operations that auto_LiRPA bounds wrongly where no check at a point need see it.

    Square roots: release 0.3 has their derivative wrong.  Leaky ReLUs of a slope outside [0, 1]: those of
    a slope above 1 are concave, and release 0.3 bounds them as if they were convex.  On a single point,
    which `_probe` looks at, that is exact, and on a box the looseness of other layers can hide it at the
    image.  Those of a slope below 0 do not grow with their input, and its intervals (CROWN-IBP's,
    and what CROWN itself takes for units that never switch before a ReLU) are the values at the ends;
    later releases take them for ReLUs.  There ``alpha`` is what is optimised, the slope ``leaky_alpha``.

    Raises:
        UnsupportedModelError: there is one.
    """
    for node in module.modules():
        kind = type(node).__name__
        if kind == "BoundSqrt" and lirpa_version() < (0, 7):
            raise UnsupportedModelError(
                "A square root cannot be bounded, for this release of auto_LiRPA has its slope wrong; "
                "use networks without it."
            )
        if kind == "BoundLeakyRelu":
            slope = float(node.leaky_alpha if hasattr(node, "leaky_alpha") else node.alpha)
            if not 0.0 <= slope <= 1.0:
                raise UnsupportedModelError(
                    f"A leaky ReLU with the slope {slope:g} cannot be bounded; use a slope in [0, 1]."
                )


def _first_conv_mode(joint: nn.Module) -> str:
    """Patches mode is faster; release 0.3 has it wrong for convolutions with groups or dilation."""
    for module in joint.modules():
        if isinstance(module, nn.Conv2d) and (module.groups != 1 or module.dilation != (1, 1)):
            return "matrix"
        # Padding of its own (onnx2torch's modules for ONNX's Pad).
        if "Pad" in type(module).__name__:
            return "matrix"
    return "patches"


def widened(bound: Tensor, outwards: float) -> Tensor:
    """``bound`` moved up (1.0) or down (-1.0) by more than auto_LiRPA's float64 arithmetic errs."""
    return bound.detach() + outwards * _SLACK * (1.0 + bound.detach().abs())


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory is short."""
    is_said = isinstance(error, torch.OutOfMemoryError | MemoryError)
    # The CPU allocator's refusal is a plain RuntimeError.
    return is_said or "can't allocate memory" in str(error)


def _layer_shapes(joint: nn.Module, example: Tensor) -> list[tuple[bool, int]]:
    """Whether dense, and how many units, of every linear layer of both networks."""
    shapes: list[tuple[bool, int]] = []

    def note(module: nn.Module, _inputs: Any, output: Tensor) -> None:
        shapes.append((isinstance(module, nn.Linear), output[0].numel()))

    hooks = [
        module.register_forward_hook(note)
        for module in joint.modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    try:
        with torch.no_grad():
            joint(example)
    finally:
        for hook in hooks:
            hook.remove()
    return shapes


def _dearest_bytes(shapes: list[tuple[bool, int]], widest: int) -> int:
    """Rough bytes a box needs in CROWN: coefficients of the dearest pair of layers.

    A dense layer's neurons each carry coefficients for the widest layer below, a convolution's only
    for their receptive field (patches mode); lower and upper coefficients and a temporary of each are
    alive at once.
    """
    receptive = min(widest, 2048)
    dearest = max(
        (numel * (widest if is_dense else receptive) for is_dense, numel in shapes), default=widest
    )
    return max(1, 4 * _BYTES * dearest)


def _last_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[-1][:160]
