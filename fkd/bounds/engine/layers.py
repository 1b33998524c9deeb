"""The layers that bounds can pass through: forwards as intervals, backwards as linear coefficients.

Every operation is written with torch's differentiable functions and reads the module's current
parameters, so a bound built from these layers can be trained on.  Coefficients of ``R`` linear
functions of a layer's output have the shape (N, R, \\*output shape).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fkd.models._strided import trained_transpose


class Layer(ABC):
    """One node of a traced network."""

    def resolve(self, centre: Tensor | None) -> Layer:
        """The layer to use in this pass; ``centre`` is its clean input where one is known."""
        del centre
        return self

    @abstractmethod
    def interval(self, *inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Element-wise lowest and highest output for inputs within the given intervals."""


def are_same(one: Layer, other: Layer) -> bool:
    """Whether two layers compute exactly the same: equal kinds, settings and parameters."""
    return type(one) is type(other) and all(
        _equal(value, vars(other)[name]) for name, value in vars(one).items()
    )


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, nn.Module):
        # What layers read of a module beside its settings.
        return all(_equal(getattr(one, name), getattr(other, name)) for name in ("weight", "bias"))
    return one == other


class Affine(Layer):
    """A layer y = W x + b of one input."""

    @abstractmethod
    def apply(self, inputs: Tensor) -> Tensor:
        """W x + b."""

    @abstractmethod
    def magnitude(self, radius: Tensor) -> Tensor:
        """|W| r: how far the output moves when each input moves by at most ``radius``."""

    @abstractmethod
    def transpose(self, coefficients: Tensor, shape: torch.Size) -> Tensor:
        """Coefficients on the input (``shape`` without the batch) of the given output's functions."""

    def offset(self, coefficients: Tensor) -> Tensor | float:
        """What b adds to each function, (N, R)."""
        del coefficients
        return 0.0

    def constant_size(self, like: Tensor) -> Tensor:
        """|b|, or the sizes of what b was computed from, for an input shaped like ``like``."""
        return self.apply(torch.zeros_like(like)).abs()

    def interval(self, *inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Centre and radius arithmetic: W c + b -+ |W| r."""
        ((lower, upper),) = inputs
        centre, radius = (upper + lower) / 2, (upper - lower) / 2
        middle, reach = self.apply(centre), self.magnitude(radius)
        return middle - reach, middle + reach


def _rows(coefficients: Tensor) -> Tensor:
    """(N, R, ...) to (N R, ...)."""
    return coefficients.flatten(0, 1)


def _channel_offset(coefficients: Tensor, bias: Tensor) -> Tensor:
    """Sum over channels and positions of coefficient times the channel's bias, (N, R)."""
    return coefficients.flatten(3).sum(-1) @ bias if coefficients.dim() > 3 else coefficients @ bias


class Convolution(Affine):
    """`torch.nn.Conv2d` with zero padding."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.stride = module.stride
        self.padding = module.padding
        self.dilation = module.dilation
        self.groups = module.groups

    def _convolve(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return functional.conv2d(
            inputs, weight, bias, self.stride, self.padding, self.dilation, self.groups
        )

    def apply(self, inputs: Tensor) -> Tensor:
        """Convolution with the bias."""
        return self._convolve(inputs, self.module.weight, self.module.bias)

    def magnitude(self, radius: Tensor) -> Tensor:
        """Convolution with the absolute weights."""
        return self._convolve(radius, self.module.weight.abs(), None)

    def transpose(self, coefficients: Tensor, shape: torch.Size) -> Tensor:
        """Transposed convolution, padded at the far edge so that it fills ``shape``."""
        kernel = self.module.weight.shape[-2:]
        if self._is_even():
            quick = trained_transpose(
                _rows(coefficients),
                self.module.weight,
                self.stride[0],
                self.padding[0],
                (shape[1], shape[2]),
            )
            if quick is not None:
                return quick.unflatten(0, coefficients.shape[:2])
        missing = tuple(
            shape[1 + axis]
            - (
                (coefficients.shape[3 + axis] - 1) * self.stride[axis]
                - 2 * self.padding[axis]
                + self.dilation[axis] * (kernel[axis] - 1)
                + 1
            )
            for axis in (0, 1)
        )
        back = functional.conv_transpose2d(
            _rows(coefficients),
            self.module.weight,
            None,
            self.stride,
            self.padding,
            missing,
            self.groups,
            self.dilation,
        )
        return back.unflatten(0, coefficients.shape[:2])

    def _is_even(self) -> bool:
        """Whether both directions are alike, and each output sees every channel."""
        sides = (self.module.weight.shape[-2:], self.stride, self.padding)
        return (
            self.groups == 1
            and tuple(self.dilation) == (1, 1)
            and all(side[0] == side[1] for side in sides)
        )

    def offset(self, coefficients: Tensor) -> Tensor | float:
        """Bias times the coefficients' sum over positions."""
        bias = self.module.bias
        return 0.0 if bias is None else _channel_offset(coefficients, bias)


class FullyConnected(Affine):
    """`torch.nn.Linear`."""

    def __init__(self, module: nn.Linear) -> None:
        self.module = module

    def apply(self, inputs: Tensor) -> Tensor:
        """W x + b."""
        return functional.linear(inputs, self.module.weight, self.module.bias)

    def magnitude(self, radius: Tensor) -> Tensor:
        """|W| r."""
        return functional.linear(radius, self.module.weight.abs())

    def transpose(self, coefficients: Tensor, shape: torch.Size) -> Tensor:
        """A W."""
        del shape
        return coefficients @ self.module.weight

    def offset(self, coefficients: Tensor) -> Tensor | float:
        """A b."""
        return 0.0 if self.module.bias is None else coefficients @ self.module.bias


class ChannelAffine(Affine):
    """scale x + shift per channel (axis 1): a batch normalisation with known statistics.

    Args:
        scale: (C,).
        shift: (C,).
        shift_size: the sum of the absolute values that ``shift`` is the sum of.
    """

    def __init__(self, scale: Tensor, shift: Tensor, shift_size: Tensor) -> None:
        self.scale = scale
        self.shift = shift
        self.shift_size = shift_size

    @staticmethod
    def _spread(values: Tensor, dimensions: int, axis: int) -> Tensor:
        return values.reshape(*(1,) * axis, -1, *(1,) * (dimensions - axis - 1))

    def apply(self, inputs: Tensor) -> Tensor:
        """Scale x + shift."""
        dims = inputs.dim()
        return inputs * self._spread(self.scale, dims, 1) + self._spread(self.shift, dims, 1)

    def magnitude(self, radius: Tensor) -> Tensor:
        """|scale| r."""
        return radius * self._spread(self.scale.abs(), radius.dim(), 1)

    def transpose(self, coefficients: Tensor, shape: torch.Size) -> Tensor:
        """A scale."""
        del shape
        return coefficients * self._spread(self.scale, coefficients.dim(), 2)

    def offset(self, coefficients: Tensor) -> Tensor | float:
        """Shift times the coefficients' sum over positions."""
        return _channel_offset(coefficients, self.shift)

    def constant_size(self, like: Tensor) -> Tensor:
        """What rounding of the shift is relative to: its terms may cancel."""
        return self._spread(self.shift_size, like.dim(), 1).expand_as(like)


class PerChannel(Layer):
    """A map of each channel that is known only when its module is asked."""

    def __init__(self, module: Any) -> None:
        self.module = module

    @abstractmethod
    def resolve(self, centre: Tensor | None) -> Layer:
        """The map of this pass."""

    def interval(self, *inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Intervals through the resolved map."""
        return self.resolve(None).interval(*inputs)


class ChannelScaling(PerChannel):
    """`fkd.models.base.ChannelAffine`: the normalisation in front of every network."""

    def resolve(self, centre: Tensor | None) -> Layer:
        """The per-channel map, in the type that the module has by now."""
        del centre
        shift = self.module.bias
        return ChannelAffine(self.module.scale, shift, shift.abs())


class BatchNormalisation(PerChannel):
    """Batch normalisation: running statistics in eval mode, the *clean* batch's when training.

    Statistics of the interval's ends would belong to no network; those of the clean batch are the
    ones the clean forward pass of the same step uses.
    """

    def resolve(self, centre: Tensor | None) -> Layer:
        """The per-channel map with this pass's statistics."""
        module = self.module
        if module.training and centre is not None:
            axes = [axis for axis in range(centre.dim()) if axis != 1]
            mean = centre.mean(axes)
            variance = centre.var(axes, unbiased=False)
        else:
            mean, variance = module.running_mean, module.running_var
        scale = torch.rsqrt(variance + module.eps)
        if module.weight is not None:
            scale = scale * module.weight
        shift = -mean * scale
        size = shift.abs()
        if module.bias is not None:
            shift, size = shift + module.bias, size + module.bias.abs()
        return ChannelAffine(scale, shift, size)


class AveragePooling(Affine):
    """Average over windows without padding, or over the whole image (``kernel`` None)."""

    def __init__(
        self,
        kernel: tuple[int, int] | None,
        stride: tuple[int, int] | None = None,
        keep_dimensions: bool = True,
    ) -> None:
        self.kernel = kernel
        self.stride = stride or kernel
        self.keep_dimensions = keep_dimensions

    def apply(self, inputs: Tensor) -> Tensor:
        """Window means."""
        if self.kernel is None:
            return inputs.mean((-2, -1), keepdim=self.keep_dimensions)
        return functional.avg_pool2d(inputs, self.kernel, self.stride)

    def magnitude(self, radius: Tensor) -> Tensor:
        """Window means: all weights are positive."""
        return self.apply(radius)

    def transpose(self, coefficients: Tensor, shape: torch.Size) -> Tensor:
        """Each coefficient spread evenly over its window."""
        channels, height, width = shape
        if self.kernel is None:
            flat = coefficients.reshape(*coefficients.shape[:2], channels, 1, 1)
            return flat.expand(-1, -1, -1, height, width) / (height * width)
        weight = coefficients.new_full(
            (channels, 1, *self.kernel), 1.0 / (self.kernel[0] * self.kernel[1])
        )
        back = functional.conv_transpose2d(
            _rows(coefficients), weight, stride=self.stride, groups=channels
        )
        # Rows and columns that no window covers have coefficient 0.
        back = functional.pad(back, (0, width - back.shape[-1], 0, height - back.shape[-2]))
        return back.unflatten(0, coefficients.shape[:2])


class Reshape(Affine):
    """Flattening of everything but the batch, or no change at all."""

    def __init__(self, flatten: bool) -> None:
        self.flatten = flatten

    def apply(self, inputs: Tensor) -> Tensor:
        """The same numbers in another shape."""
        return inputs.flatten(1) if self.flatten else inputs

    def magnitude(self, radius: Tensor) -> Tensor:
        """The same numbers in another shape."""
        return self.apply(radius)

    def transpose(self, coefficients: Tensor, shape: torch.Size) -> Tensor:
        """Back to the input's shape."""
        return coefficients.reshape(*coefficients.shape[:2], *shape)


class Rectifier(Layer):
    """max(0, x)."""

    def interval(self, *inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Monotone: the ends map to the ends."""
        ((lower, upper),) = inputs
        return torch.relu(lower), torch.relu(upper)


class MaximumPooling(Layer):
    """Maximum over windows (intervals only)."""

    def __init__(self, module: nn.MaxPool2d) -> None:
        self.module = module

    def interval(self, *inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Monotone: the ends map to the ends."""
        ((lower, upper),) = inputs
        return self.module(lower), self.module(upper)


class Addition(Layer):
    """The sum of two inputs: where a residual branch joins."""

    def interval(self, *inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Ends add up."""
        (lower_1, upper_1), (lower_2, upper_2) = inputs
        return lower_1 + lower_2, upper_1 + upper_2
