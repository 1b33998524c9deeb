"""Networks read into layers: forwards and backwards as torch computes them, or refused."""

import pytest
import torch
from _tiny_training import frozen, sample
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from fkd.bounds.engine.intervals import BoundedNetwork
from fkd.bounds.engine.layers import AveragePooling, Convolution
from fkd.core.ball import Ball
from fkd.core.errors import UnsupportedModelError


@settings(deadline=None, max_examples=60)
@given(
    side=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2]),
)
def test_convolutions_and_their_transposes_agree_whatever_the_geometry(
    side, kernel, stride, padding, dilation, groups
):
    if any(
        dilation * (k - 1) + 1 > s + 2 * p for k, s, p in zip(kernel, side, padding, strict=True)
    ):
        return
    torch.manual_seed(0)
    module = nn.Conv2d(2, 4, kernel, stride, padding, dilation, groups).double()
    check_affine(Convolution(module), module, torch.randn(3, 2, *side).double())


@settings(deadline=None, max_examples=40)
@given(
    side=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 5), st.integers(1, 5)),
)
def test_average_pooling_and_its_transpose_agree_whatever_the_geometry(side, kernel, stride):
    torch.manual_seed(0)
    inputs = torch.randn(3, 2, *side).double()
    check_affine(AveragePooling(kernel, stride), nn.AvgPool2d(kernel, stride), inputs)
    whole = AveragePooling(None)
    check_affine(whole, lambda x: x.mean((2, 3), keepdim=True), inputs)
    check_affine(AveragePooling(None, keep_dimensions=False), lambda x: x.mean((2, 3)), inputs)


def check_affine(layer, function, inputs):
    """A f(x) = transpose(A) x + offset(A)."""
    outputs = function(inputs).detach()
    torch.testing.assert_close(layer.apply(inputs).detach(), outputs)
    rows = torch.randn(len(inputs), 5, *outputs.shape[1:]).double()
    expected = (rows * outputs[:, None]).flatten(2).sum(-1)
    back = layer.transpose(rows, inputs.shape[1:])
    assert back.shape == (len(inputs), 5, *inputs.shape[1:])
    found = (back * inputs[:, None]).flatten(2).sum(-1) + layer.offset(rows)
    torch.testing.assert_close(found.detach(), expected)


class Lambda(nn.Module):
    """Any forward pass between two layers."""

    def __init__(self, function):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.last = nn.Linear(2 * 36, 3)
        self.function = function

    def forward(self, images):
        return self.function(self, self.conv(images))


SOUND = {
    "functional": lambda s, x: s.last(torch.flatten(torch.relu(x), 1)),
    "methods": lambda s, x: s.last(x.relu().flatten(start_dim=1)),
    "functional_relu": lambda s, x: s.last(functional.relu(x).flatten(1, -1)),
    "in_place": lambda s, x: s.last(functional.relu(x, inplace=True).flatten(1)),
    "sum": lambda s, x: s.last((x + torch.relu(x)).flatten(1)),
    "twice": lambda s, x: s.last(torch.add(x, x).flatten(1)),
}


@pytest.mark.parametrize("name", SOUND)
def test_forward_passes_written_in_other_ways_are_followed(name):
    torch.manual_seed(0)
    network = frozen(Lambda(SOUND[name]).double())
    images = torch.rand(5, 1, 6, 6).double()
    lower, upper = Ball(epsilon=0.1).limits(images)
    bounder = BoundedNetwork(network)
    rows = torch.eye(3).double().expand(5, 3, 3)
    hidden = bounder.hidden(lower, upper)
    points = sample(lower, upper)
    logits = network(points.flatten(0, 1)).view(300, 5, 3)
    for high in (
        bounder.interval_rows(hidden, rows)[1],
        bounder.linear_rows(hidden, rows).highest(lower, upper),
    ):
        assert (logits <= high + 1e-9).all()
        # Tight to the point: the order of operations was read correctly.
        assert (high - logits.amax(0)).max() < 3.0
    hidden = bounder.hidden(images, images)
    torch.testing.assert_close(
        bounder.linear_rows(hidden, rows).highest(images, images), network(images)
    )


def overwritten(s, x):
    y = functional.relu(x, inplace=True)
    return s.last((x + y).flatten(1))


UNSOUND = {
    "torch.fft": (lambda s, x: s.last(torch.fft.fft(x).real.flatten(1)), "'fft_fft'"),
    "scaled sum": (lambda s, x: s.last(torch.add(x, x, alpha=2).flatten(1)), "operation 'add'"),
    "constant": (lambda s, x: s.last((x + 1.0).flatten(1)), "operation 'add'"),
    "by keyword": (lambda s, x: s.last(torch.relu(input=x).flatten(1)), "'relu'"),
    "flattened from 0": (lambda s, x: s.last(x.flatten(end_dim=1)), "operation 'flatten'"),
    "overwritten": (overwritten, "overwrites a value that is read elsewhere"),
    "weights": (lambda s, x: s.last(x.flatten(1)) @ s.last.weight, "the constant 'last.weight'"),
    "depends on data": (lambda s, x: s.last(x.flatten(1)) if x.sum() > 0 else x, "cannot be read"),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_what_cannot_be_followed_is_refused_in_one_sentence(name):
    function, words = UNSOUND[name]
    with pytest.raises(UnsupportedModelError) as caught:
        BoundedNetwork(Lambda(function))
    assert words in str(caught.value)
    assert str(caught.value).startswith("Bounds cannot pass through ")
    assert "use a network of convolutions" in str(caught.value)
    assert "\n" not in str(caught.value)


REFUSED_MODULES = {
    "circular": (nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), "padded by 'circular'"),
    "same": (nn.Conv2d(1, 1, 3, padding="same"), "'same'"),
    "padded average": (nn.AvgPool2d(2, padding=1), "average pooling with padding"),
    "adaptive": (nn.AdaptiveAvgPool2d(2), "adaptive pooling to 2"),
    "dropout": (nn.Dropout(0.5), "dropout"),
    "sigmoid": (nn.Sigmoid(), "the module Sigmoid"),
    "flatten": (nn.Flatten(0), "a flattening of axes 0 to -1"),
}


@pytest.mark.parametrize("name", REFUSED_MODULES)
def test_modules_that_cannot_be_followed_are_named(name):
    module, words = REFUSED_MODULES[name]
    with pytest.raises(UnsupportedModelError, match="cannot pass through") as caught:
        BoundedNetwork(nn.Sequential(module, nn.Flatten(), nn.Linear(4, 2)))
    assert words in str(caught.value)


def test_maximum_pooling_has_intervals_but_no_linear_relaxation():
    torch.manual_seed(0)
    network = frozen(
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)).double()
    )
    bounder = BoundedNetwork(network)
    lower, upper = Ball(epsilon=0.1).limits(torch.rand(4, 1, 6, 6).double())
    logits = network(sample(lower, upper).flatten(0, 1)).view(300, 4, 3)
    low, high = bounder.interval_logits(lower, upper)
    assert (logits >= low).all() and (logits <= high).all()
    hidden = bounder.hidden(lower, upper)
    with pytest.raises(UnsupportedModelError, match=r"MaximumPooling; use interval bounds \(ibp\)"):
        bounder.linear_rows(hidden, torch.eye(3).double().expand(4, 3, 3))
