"""Copies whose weights are rounded to few bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from fkd.core.config import Config
from fkd.distillation.copies.base import COPIES, Copying


class QuantisedConfig(Config):
    """How finely weights are rounded."""

    bits: int = Field(
        default=8, ge=2, le=16, description="Bits of a weight: it takes one of 2^bits - 1 values."
    )
    granularity: Literal["channel", "tensor"] = Field(
        default="channel",
        description="One step size for each output channel, or one for a layer's whole weight.",
    )


@COPIES.register("quantised")
class Quantised(Copying):
    """Weights rounded to a symmetric uniform grid, w' = s round(w / s), s = max |w| / (2^(bits-1) - 1).

    With s for each output channel this is Krishnamoorthi's scheme for weights (section 2.2; symmetric,
    zero point 0, halves to even).  The rounded values are stored as float32 again, so the copy is an
    ordinary network that computes what integer weights would; biases and activations stay float, as
    integer arithmetic keeps the former in 32 bits and the latter are no part of a model's weights.
    """

    title = "Rounding to few bits"
    source = "Krishnamoorthi, Quantizing deep convolutional networks, 1806.08342"
    Config = QuantisedConfig

    def alter(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """Each weight rounded; at most half a step away from what it was."""
        return [self._round(weight) for weight in weights]

    def _round(self, weight: Tensor) -> Tensor:
        config: QuantisedConfig = self.config
        highest = 2 ** (config.bits - 1) - 1
        largest = weight.abs().flatten(1).amax(1)
        if config.granularity == "tensor":
            largest = largest.max().expand_as(largest)
        step = (largest / highest).contiguous()
        # A channel of zeros, or of numbers too small for a step, keeps what rounds to 0 under any.
        step = torch.where(step > torch.finfo(step.dtype).tiny, step, torch.ones_like(step))
        zero = torch.zeros(len(step), dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, step, zero, 0, -highest, highest)
