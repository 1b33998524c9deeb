"""Copies without their smallest weights."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import prune

from fkd.core.config import Config
from fkd.distillation.copies.base import COPIES, Copying


class PrunedConfig(Config):
    """How much is taken away."""

    share: float = Field(
        default=0.3, gt=0.0, lt=1.0, description="Share of all weights that are set to 0."
    )


@COPIES.register("pruned")
class Pruned(Copying):
    """The smallest weights of the whole network set to 0 (magnitude pruning), without fine-tuning.

    Han et al. prune by magnitude with a threshold for each layer and train what is left; here all layers
    are ranked together and nothing is trained.  Zeros are stored: the architecture is the copied
    network's.
    """

    title = "Magnitude pruning"
    source = "Han et al., Learning both weights and connections, NeurIPS 2015, 1506.02626"
    Config = PrunedConfig

    def alter(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """The same weights with round(share * number of weights) zeros or more."""
        config: PrunedConfig = self.config
        holders = [_Holder(weight) for weight in weights]
        parameters = [(holder, "weight") for holder in holders]
        prune.global_unstructured(
            parameters, pruning_method=prune.L1Unstructured, amount=config.share
        )
        for holder, name in parameters:
            prune.remove(holder, name)
        return [holder.weight.detach() for holder in holders]


class _Holder(nn.Module):
    """A weight as `torch.nn.utils.prune` wants it: a parameter of a module."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.clone(), requires_grad=False)
