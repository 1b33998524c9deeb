"""Weights that keep interval widths constant from layer to layer."""

from __future__ import annotations

import math

import torch
from torch import nn


def ibp_initialise(network: nn.Module, seed: int) -> None:
    """Draw every convolution's and linear layer's weights from N(0, (sqrt(2 pi) / n)^2), n the fan-in.

    Shi et al. (2103.17268, section 3.1): an interval's mean width then neither grows nor shrinks
    through a layer and its ReLU, where usual initialisations let it explode.  Biases start at 0.

    Args:
        network: changed in place; normalisation layers are left alone.
        seed: of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                fan_in = module.weight[0].numel()
                noise = torch.randn(module.weight.shape, generator=generator)
                module.weight.copy_(noise * math.sqrt(2.0 * math.pi) / fan_in)
                if module.bias is not None:
                    module.bias.zero_()
