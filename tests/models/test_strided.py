"""Strided convolutions: the same numbers as torch's, the input's gradient by another way."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from fkd.models import build
from fkd.models._strided import (
    StridedConv2d,
    _Convolve,
    _Transposed,
    input_gradient,
    trained_transpose,
)


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_the_input_gradient_is_torchs(kernel: int, stride: int, padding: int) -> None:
    """Whatever does not divide: windows that end before the edge, kernels narrower than the stride."""
    torch.manual_seed(0)
    for height, width in ((9, 12), (10, 7)):
        images = torch.randn(3, 2, height, width, dtype=torch.float64, requires_grad=True)
        weight = torch.randn(4, 2, kernel, kernel, dtype=torch.float64)
        out = functional.conv2d(images, weight, None, stride, padding)
        gradient = torch.randn_like(out)
        (expected,) = torch.autograd.grad(out, images, gradient)
        found = input_gradient(gradient, weight, stride, padding, (height, width))
        torch.testing.assert_close(found, expected)


def test_first_and_second_derivatives_are_those_of_the_map() -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 1, 6, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)

    def convolve(images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return _Convolve.apply(images, weight, bias, 2, 1)

    assert torch.autograd.gradcheck(convolve, (images, weight, bias))
    assert torch.autograd.gradgradcheck(convolve, (images, weight, bias))


def test_the_layer_is_the_plain_one_up_to_rounding() -> None:
    torch.manual_seed(0)
    layer, plain = StridedConv2d(3, 8, 4, 2, padding=1), nn.Conv2d(3, 8, 4, 2, padding=1)
    plain.load_state_dict(layer.state_dict())
    images = torch.rand(5, 3, 11, 14)
    outs, gradients = [], []
    for module in (layer, plain):
        points = images.clone().requires_grad_()
        outs.append(module(points))
        outs[-1].square().sum().backward()
        gradients.append([points.grad, module.weight.grad, module.bias.grad])
    assert outs[0].grad_fn.name() == "_ConvolveBackward"
    torch.testing.assert_close(outs[0], outs[1], rtol=0, atol=0)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-4)


def test_who_looks_on_sees_the_plain_layer() -> None:
    """Tracers, and passes that want no gradient in the images."""
    network = build(
        "cnn_small", {"width": 2}, image_shape=(1, 8, 8), num_classes=3, mean=[0.1], std=[0.3]
    )
    images = torch.rand(2, 1, 8, 8, requires_grad=True)
    traced = torch.jit.trace(network, images)
    assert "_convolution" in str(traced.inlined_graph)
    assert "PythonOp" not in str(traced.inlined_graph)
    conv = network.body.conv1
    assert conv(images.detach()).grad_fn.name() == "ConvolutionBackward0"
    assert conv.double()(images.double()).grad_fn.name() == "ConvolutionBackward0"


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(4, 2, 1), (3, 2, 1), (2, 2, 0), (2, 3, 0)]
)
def test_a_trained_transpose_is_torchs(kernel: int, stride: int, padding: int) -> None:
    """Values, and gradients in the maps and in the kernel."""
    torch.manual_seed(0)
    size = (9, 10)
    weight = torch.randn(4, 2, kernel, kernel, requires_grad=True)
    like = functional.conv2d(torch.zeros(1, 2, *size), weight, None, stride, padding)
    maps = torch.randn(5, *like.shape[1:], requires_grad=True)
    missing = [
        side - ((have - 1) * stride - 2 * padding + kernel)
        for side, have in zip(size, like.shape[-2:], strict=True)
    ]
    expected = functional.conv_transpose2d(maps, weight, None, stride, padding, missing)
    found = trained_transpose(maps, weight, stride, padding, size)
    assert found is not None and found.grad_fn.name() == "_TransposedBackward"
    torch.testing.assert_close(found, expected)
    outer = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, (maps, weight), outer),
        torch.autograd.grad(expected, (maps, weight), outer),
        rtol=1e-4,
        atol=1e-4,
    )


def test_derivatives_of_the_transpose_are_those_of_the_map() -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 1, 4, 4, dtype=torch.float64, requires_grad=True)

    def transpose(maps: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return _Transposed.apply(maps, weight, 2, 1, (6, 6))

    assert torch.autograd.gradcheck(transpose, (maps, weight))
    assert torch.autograd.gradgradcheck(transpose, (maps, weight))


def test_certificates_keep_to_the_usual_transpose() -> None:
    """What is proved and stored does not move with a detour made for training."""
    maps, weight = torch.randn(2, 3, 3, 3), torch.randn(3, 1, 4, 4, requires_grad=True)
    assert trained_transpose(maps, weight.detach(), 2, 1, (6, 6)) is None
    assert trained_transpose(maps.double(), weight.double(), 2, 1, (6, 6)) is None
    with torch.no_grad():
        assert trained_transpose(maps, weight, 2, 1, (6, 6)) is None
