"""Latent vectors are what the classifier is given."""

import pytest
import torch
from torch import nn

from fkd.core.errors import UnsupportedModelError
from fkd.models import LatentNetwork, build, latent_vectors


def make(architecture, config):
    return build(
        architecture,
        config,
        image_shape=(1, 8, 8),
        num_classes=10,
        mean=[0.3],
        std=[0.4],
        seed=0,
    ).eval()


@pytest.mark.parametrize(
    ("architecture", "config", "dimension"),
    [
        ("mlp", {"hidden": [9]}, 9),
        ("cnn_small", {"width": 2, "units": 7}, 7),
        ("resnet_small", {"width": 2}, None),
    ],
)
def test_the_classifier_makes_the_logits_of_them(architecture, config, dimension):
    network = make(architecture, config)
    images = torch.rand(5, 1, 8, 8)
    found, logits = latent_vectors(network, images, batch_size=2)
    reader = LatentNetwork(network)
    assert found.shape == (5, reader.dimension)
    assert dimension is None or reader.dimension == dimension
    torch.testing.assert_close(logits, network(images))
    torch.testing.assert_close(reader.classifier(found), logits)
    assert not found.requires_grad
    assert reader(images)[0].requires_grad
    assert not reader.classifier._forward_pre_hooks


def test_a_network_without_a_dense_layer_has_none():
    with pytest.raises(UnsupportedModelError, match="no dense layer"):
        LatentNetwork(nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten()))


def test_a_dense_layer_used_twice_is_no_classifier():
    layer = nn.Linear(4, 4)
    with pytest.raises(UnsupportedModelError, match="one latent vector an image"):
        LatentNetwork(nn.Sequential(layer, nn.ReLU(), layer))(torch.rand(2, 4))
