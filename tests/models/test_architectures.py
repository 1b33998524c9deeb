"""Every architecture in the registry: shapes, seeds, widths, normalisation first, bad settings."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fkd.core.errors import ConfigError
from fkd.models import ARCHITECTURES, Network, Normalisation, build, weight_shapes

SMALL = {
    "mlp": {"hidden": (6, 5)},
    "cnn_small": {"width": 2, "units": 5},
    "cnn_medium": {"width": 4, "units": 12},
    "resnet_small": {"width": 2},
}


def _build(name, shape=(1, 8, 8), classes=4, seed=0, config=None, **more):
    channels = shape[0]
    facts = {"mean": [0.3] * channels, "std": [0.4] * channels, **more}
    config = SMALL.get(name) if config is None else config
    return build(name, config, image_shape=shape, num_classes=classes, seed=seed, **facts)


def test_every_architecture_is_tested_here():
    assert set(ARCHITECTURES) == set(SMALL)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (3, 9, 13), (1, 28, 28)])
@pytest.mark.parametrize("name", sorted(SMALL))
def test_images_become_one_row_of_logits_each(name, shape):
    network = _build(name, shape).eval()
    images = torch.rand(5, *shape)
    with torch.no_grad():
        together = network(images)
        singly = torch.cat([network(image[None]) for image in images])
    assert together.shape == (5, 4)
    assert together.dtype == torch.float32
    torch.testing.assert_close(together, singly)
    assert together.std(0).min() > 0


@pytest.mark.parametrize("name", sorted(SMALL))
def test_the_seed_alone_decides_the_weights(name):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = _build(name, seed=5).state_dict()
    assert torch.equal(torch.rand(3), expected), "torch's own generator was moved"
    torch.manual_seed(2)
    again, other = _build(name, seed=5).state_dict(), _build(name, seed=6).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_without_a_seed_torchs_generator_decides():
    torch.manual_seed(3)
    first, second = (_build("mlp", seed=None).state_dict() for _ in range(2))
    torch.manual_seed(3)
    again = _build("mlp", seed=None).state_dict()
    key = "body.fc1.weight"
    assert torch.equal(first[key], again[key])
    assert not torch.equal(first[key], second[key])


@pytest.mark.parametrize("name", sorted(SMALL))
def test_normalisation_is_the_first_layer_and_no_weight(name):
    shape, mean, std = (3, 8, 8), [0.1, 0.5, 0.9], [0.2, 0.3, 0.7]
    network = _build(name, shape, mean=mean, std=std).eval()
    assert isinstance(network, Network)
    assert next(iter(network.children())) is network.normalisation
    assert all(key.startswith("body.") for key in network.state_dict())
    images = torch.rand(3, *shape)
    by_hand = (images - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(network.normalisation(images), by_hand)
    torch.testing.assert_close(network(images), network.body(by_hand))
    plain = _build(name, shape, mean=None, std=None).eval()
    assert torch.equal(plain(images), plain.body(images))


def test_widths_are_those_of_the_literature():
    small = weight_shapes("cnn_small", {}, image_shape=(1, 28, 28), num_classes=10)
    assert small["body.conv1.weight"] == (16, 1, 4, 4)
    assert small["body.conv2.weight"] == (32, 16, 4, 4)
    assert small["body.fc1.weight"] == (100, 32 * 7 * 7)
    medium = weight_shapes("cnn_medium", {}, image_shape=(3, 32, 32), num_classes=10)
    assert [medium[f"body.conv{i}.weight"] for i in (1, 2, 3, 4)] == [
        (32, 3, 3, 3),
        (32, 32, 4, 4),
        (64, 32, 3, 3),
        (64, 64, 4, 4),
    ]
    assert medium["body.fc1.weight"] == (512, 64 * 8 * 8)
    assert medium["body.logits.weight"] == (10, 512)
    wide = weight_shapes("cnn_small", {"width": 4}, image_shape=(1, 28, 28), num_classes=10)
    assert wide["body.conv2.weight"] == (8, 4, 4, 4)
    assert (
        len(weight_shapes("mlp", {"hidden": [3] * 8}, image_shape=(1, 2, 2), num_classes=2)) == 18
    )


@pytest.mark.parametrize("blocks", [1, 3])
def test_resnet_depth_and_shortcuts(blocks):
    network = _build("resnet_small", config={"width": 2, "blocks": blocks}).eval()
    convolutions = [m for m in network.body.modules() if isinstance(m, nn.Conv2d)]
    # 1 + 2 convolutions in each of 2 stages' blocks, and one projection where the width changes.
    assert len(convolutions) == 1 + 4 * blocks + 1
    relus = [m for m in network.body.modules() if isinstance(m, nn.ReLU)]
    assert len(relus) == 1 + 4 * blocks
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "norm2" in name:
                parameter.zero_()
    block = network.body.stage1_block1
    features = torch.randn(2, 2, 8, 8)
    assert torch.equal(block(features), features.relu()), "the shortcut adds the input as it is"


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("mlq", {}, r"no architecture called 'mlq'; did you mean 'mlp'\?"),
        ("mlp", {"hidden": []}, "'hidden' is not usable"),
        ("mlp", {"hidden": [0]}, "'hidden.0' is not usable.*got 0"),
        ("mlp", {"hiden": [3]}, "no setting called 'hiden'"),
        ("cnn_small", {"width": 257}, "'width' is not usable.*got 257"),
        ("cnn_medium", {"units": float("nan")}, "'units' is not usable"),
        ("resnet_small", {"blocks": 10}, "'blocks' is not usable.*got 10"),
    ],
)
def test_bad_settings_are_one_sentence(name, config, message):
    with pytest.raises(ConfigError, match=message) as caught:
        _build(name, config=config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"image_shape": (8, 8)}, "three positive numbers"),
        ({"image_shape": (1, 0, 8)}, "three positive numbers"),
        ({"num_classes": 1}, "at least 2 classes, got 1"),
        ({"mean": [0.1, 0.2]}, "needs 1 means and stds, got 2 and 1"),
        ({"mean": None}, "needs 1 means and stds, got 0 and 1"),
        ({"std": [0.0]}, "one positive std"),
        ({"std": [float("nan")]}, "finite"),
        ({"mean": [float("inf")]}, "finite"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_facts_are_one_sentence(facts, message):
    good = {"image_shape": (1, 8, 8), "num_classes": 3, "mean": [0.3], "std": [0.4]}
    with pytest.raises(ConfigError, match=message):
        build("mlp", {"hidden": (3,)}, **{**good, **facts})


@pytest.mark.parametrize("name", ["cnn_small", "cnn_medium", "resnet_small"])
def test_images_too_small_for_the_strides(name):
    with pytest.raises(ConfigError, match=f"too small for the architecture '{name}'"):
        _build(name, (1, 1, 1))


def test_settings_of_another_architecture_are_refused():
    settings = ARCHITECTURES.get("mlp").Config(hidden=(3,))
    assert weight_shapes("mlp", settings, image_shape=(1, 2, 2), num_classes=2)
    with pytest.raises(ConfigError, match="takes a CNNSmallConfig, got a MLPConfig"):
        _build("cnn_small", config=settings)


def test_normalisation_alone_checks_its_values():
    with pytest.raises(ConfigError, match="one mean and one positive std"):
        Normalisation([0.1], [0.1, 0.2])
