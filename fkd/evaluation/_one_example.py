"""One example of an analysis, loaded: both networks, its ball, the class compared."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn, tensor

from fkd.core.ball import Region
from fkd.core.errors import ConfigError
from fkd.evaluation.config import AnalysisConfig, ResolvedPair, check_count
from fkd.evaluation.pair import compared_classes


@dataclass(frozen=True)
class OneExample:
    """What pictures of one example are computed from, on the CPU.

    Attributes:
        teacher: images (N, C, H, W) to logits (N, K), float32, in eval mode.
        student: the same.
        region: the ball, one row.
        gap_class: class c whose confidences are compared.
    """

    teacher: nn.Module
    student: nn.Module
    region: Region
    gap_class: int


def one_example(config: AnalysisConfig, index: int) -> OneExample:
    """The example ``index`` of an analysis's split, whether it has been analysed or not.

    Raises:
        ConfigError: no such example, or a ball of radius 0, in which there is nothing to picture.
        DataError: the images are not on this machine.
    """
    pair = ResolvedPair(config)
    if config.epsilon == 0.0:
        raise ConfigError(
            "A ball of radius 0 is the image alone; choose a larger epsilon, 0.1 say."
        )
    split = pair.data_set.load(config.split)
    check_count(index + 1, len(split), config.dataset, config.split)
    if index < 0:
        raise ConfigError(f"The first example is 0, got {index}; choose one of at least 0.")
    teacher, student = pair.load("cpu")
    image, label = split.images[index : index + 1], split.labels[index : index + 1]
    return OneExample(
        teacher.network,
        student.network,
        config.ball.region(image, tensor([index])),
        int(compared_classes(config, label, teacher, image)[0]),
    )
