"""Convolutions with strides whose gradient in the image is quick on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Entries of the weight up to which the detour pays: at 16 x 32 kernels of 4x4 it no longer does.
_LARGEST_WEIGHT = 4096


def input_gradient(
    gradient: Tensor, weight: Tensor, stride: int, padding: int, size: tuple[int, int]
) -> Tensor:
    """Gradient of a convolution in its input, by a convolution without stride.

    Pixel s q + r of the padded input meets only the taps r + s t of the kernel, at output q - t: one
    small kernel for each r, all of them one convolution with s^2 times as many channels, whose results
    are interleaved.  oneDNN's own backward pass with strides takes three to five times as long where
    channels are few.

    Args:
        gradient: in the output, (N, O, H', W').
        weight: (O, I, K, K).
        stride: s.
        padding: zeros around the input.
        size: (H, W) of the input.
    """
    outputs, inputs, kernel, _ = weight.shape
    taps = -(-kernel // stride)
    beyond = taps * stride - kernel
    split = functional.pad(weight, (0, beyond, 0, beyond))
    split = split.view(outputs, inputs, taps, stride, taps, stride).flip(2, 4)
    kernels = split.permute(1, 3, 5, 0, 2, 4).reshape(-1, outputs, taps, taps)
    spread = functional.pixel_shuffle(
        functional.conv2d(gradient, kernels, padding=taps - 1), stride
    )
    # Pixels at the far edge that no window reached are missing, and have no gradient.
    missing = [padding + side - have for side, have in zip(size, spread.shape[-2:], strict=True)]
    if max(missing) > 0:
        spread = functional.pad(spread, (0, max(0, missing[1]), 0, max(0, missing[0])))
    return spread[..., padding : padding + size[0], padding : padding + size[1]]


class _Convolve(torch.autograd.Function):
    """A convolution that passes gradients to its input by `input_gradient`."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int
    ) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(images, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        of_images = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            size = tuple(images.shape[-2:])
            of_images = input_gradient(gradient, weight, ctx.stride, ctx.padding, size)
        if ctx.needs_input_grad[1]:
            of_weight = nn.grad.conv2d_weight(
                images, weight.shape, gradient, ctx.stride, ctx.padding
            )
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_images, of_weight, of_bias, None, None


class _Transposed(torch.autograd.Function):
    """A convolution's transpose by `input_gradient`, its own gradients by convolutions."""

    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, weight: Tensor, stride: int, padding: int, size: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(maps, weight)
        ctx.stride, ctx.padding = stride, padding
        return input_gradient(maps, weight, stride, padding, size)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight = ctx.saved_tensors
        of_maps = of_weight = None
        if ctx.needs_input_grad[0]:
            of_maps = functional.conv2d(gradient, weight, None, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            of_weight = nn.grad.conv2d_weight(gradient, weight.shape, maps, ctx.stride, ctx.padding)
        return of_maps, of_weight, None, None, None


def trained_transpose(
    maps: Tensor, weight: Tensor, stride: int, padding: int, size: tuple[int, int]
) -> Tensor | None:
    """The transpose of a convolution that is being trained; None where the usual way is as quick.

    Args:
        maps: in the convolution's output, (N, O, H', W').
        weight: (O, I, K, K).
        stride: s.
        padding: zeros around the input.
        size: (H, W) of the input.
    """
    is_quick = (
        stride > 1 and torch.is_grad_enabled() and weight.requires_grad and _pays(maps, weight)
    )
    return _Transposed.apply(maps, weight, stride, padding, size) if is_quick else None


def _pays(maps: Tensor, weight: Tensor) -> bool:
    """Whether `input_gradient` is quicker than torch's own."""
    return (
        maps.device.type == "cpu"
        and maps.dtype == weight.dtype == torch.float32
        and weight.numel() <= _LARGEST_WEIGHT
        and not torch.is_autocast_enabled("cpu")
    )


class StridedConv2d(nn.Conv2d):
    """`torch.nn.Conv2d` with square kernels and equal strides, its input gradient quick on a CPU.

    Results equal the plain layer's, gradients up to rounding.  Where nothing is won (no gradient in the
    input, another device or type, many channels) or a tracer looks on, it is the plain layer.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, I, H, W) to (N, O, H', W')."""
        is_quick = (
            # First: a traced size is no number.
            not torch.jit.is_tracing()
            and not torch.compiler.is_compiling()
            and input.requires_grad
            and torch.is_grad_enabled()
            and input.dim() == 4
            and _pays(input, self.weight)
        )
        if not is_quick:
            return super().forward(input)
        return _Convolve.apply(input, self.weight, self.bias, self.stride[0], self.padding[0])
