"""Double precision where figures are reported: attacks search in float32, results are float64."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from fkd.core.errors import UnsupportedModelError


def double_copy(network: nn.Module) -> nn.Module:
    """A float64 copy in eval mode without gradients; the original is left as it is."""
    twin = copy.deepcopy(network).double().eval()
    # Not `twin.requires_grad_`: scripted modules refuse it.
    for parameter in twin.parameters():
        parameter.requires_grad_(False)
    return twin


def logits_of(network: nn.Module, images: Tensor, *, rows: int = 2048) -> Tensor:
    """Logits (N, K) in the network's own precision, in pieces of ``rows`` images.

    Raises:
        UnsupportedModelError: the network does not map (N, C, H, W) to (N, K).
    """
    dtype = next((p.dtype for p in network.parameters()), images.dtype)
    with torch.no_grad():
        parts = [network(part.to(dtype)) for part in images.split(rows)]
    logits = torch.cat(parts)
    if logits.ndim != 2 or len(logits) != len(images):
        raise UnsupportedModelError(
            f"A network must give one row of logits an image, got shape {tuple(logits.shape)} "
            f"for {len(images)} images; export it so that its output is (batch, classes)."
        )
    return logits
