"""What a way of copying is: a trained network's weights in, the weights of its student out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from fkd.core.config import Config
from fkd.core.registry import Registry

COPIES: Registry = Registry("way of copying", "fkd.distillation.copies")


class Copying(ABC):
    """A way of making a network of the same shape; subclasses register in `COPIES`, one file each.

    It is no training method: there is no loss, no step and nothing to resume, and the architecture is
    the copied network's.  So it has a registry of its own beside `fkd.distillation.METHODS`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    #: Where it is from.
    source: ClassVar[str]
    Config: ClassVar[type[Config]]

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def alter(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """The copy's weights; the same weights always give the same copy, to the bit.

        Args:
            weights: of each convolution and each dense layer in turn, float32 on the CPU, output
                channels first.  Biases, batch statistics and the normalisation are not among them:
                every copy keeps those as they are.

        Returns:
            A tensor of the same shape and type for each; those given are left untouched.
        """


def weighted_layers(network: nn.Module) -> list[nn.Module]:
    """Convolutions and dense layers, in the order in which the network holds them."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return [module for module in network.modules() if isinstance(module, kinds)]
