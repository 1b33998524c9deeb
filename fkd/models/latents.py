"""A network's latent vectors: what its last dense layer, the classifier, is given."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fkd.core.errors import UnsupportedModelError


def classifier(network: nn.Module) -> nn.Linear:
    """The last dense layer, which makes logits of latent vectors.

    Raises:
        UnsupportedModelError: the network has none.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise UnsupportedModelError(
            "Latent vectors are what a network's last dense layer is given, and this network has no "
            "dense layer; choose a network with one."
        )
    return layers[-1]


class LatentNetwork(nn.Module):
    """A network that gives its latent vectors beside its logits.

    Shares the network's modules and weights; gradients pass through both outputs.

    Args:
        network: any network whose last dense layer is its classifier.

    Raises:
        UnsupportedModelError: it has no dense layer.

    Example:
        >>> import torch
        >>> from fkd.models import LatentNetwork, build
        >>> network = build(
        ...     "mlp", {"hidden": (8,)}, image_shape=(1, 8, 8), num_classes=10, mean=[0.3], std=[0.4]
        ... )
        >>> [tuple(t.shape) for t in LatentNetwork(network)(torch.rand(2, 1, 8, 8))]
        [(2, 8), (2, 10)]
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.classifier = classifier(network)

    @property
    def dimension(self) -> int:
        """Length of a latent vector."""
        return self.classifier.in_features

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Latent vectors (N, D) and logits (N, K) of images (N, C, H, W).

        Raises:
            UnsupportedModelError: what reaches the last dense layer is not one vector an image.
        """
        seen: list[Tensor] = []
        handle = self.classifier.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        try:
            logits = self.network(images)
        finally:
            handle.remove()
        if len(seen) != 1 or seen[0].dim() != 2 or len(seen[0]) != len(images):
            raise UnsupportedModelError(
                "This network's last dense layer is not given one latent vector an image; choose "
                "another network."
            )
        return seen[0], logits


@torch.no_grad()
def latent_vectors(
    network: nn.Module, images: Tensor, *, batch_size: int = 1000
) -> tuple[Tensor, Tensor]:
    """Latent vectors (N, D) and logits (N, K) of many images, without a gradient."""
    reader = LatentNetwork(network)
    pairs = [reader(part) for part in images.split(batch_size)]
    return torch.cat([pair[0] for pair in pairs]), torch.cat([pair[1] for pair in pairs])
