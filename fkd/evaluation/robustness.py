"""Standard robustness: how often one network alone stays right inside the ball.

Two measurements that others publish too, side by side and each on its own: PGD-50-10 and AutoAttack's
standard ensemble.  An example is robust where neither found a wrong prediction, which proves nothing: a
stronger attack may find one, so each share is an upper end of the true robust accuracy.
"""

from __future__ import annotations

import time
from typing import Literal

import pandas as pd
import pyarrow as pa
import torch
from pydantic import Field
from torch import Tensor, nn

from fkd.attacks.single import Standing, check_library, run_autoattack, run_pgd
from fkd.core.ball import Norm, Region
from fkd.core.device import choose_device
from fkd.core.errors import ConfigError
from fkd.core.precision import double_copy, logits_of
from fkd.core.progress import ProgressCallback, report
from fkd.data import DataSet, Split, get_data_set
from fkd.evaluation.config import InBallsConfig, check_count
from fkd.models import ModelCard, load_model, read_card
from fkd.records import Column

#: Examples attacked together.  No setting: Auto-PGD's random numbers depend on it.
_TOGETHER = 256

ROBUSTNESS_COLUMNS: tuple[Column, ...] = (
    Column("index", pa.int64(), "position", "Example id: position in the data set's split."),
    Column("label", pa.int64(), "class", "True class y of the example."),
    Column("predicted", pa.int64(), "class", "The model's prediction at the clean image."),
    Column(
        "robust_pgd",
        pa.bool_(),
        "yes/no",
        "Whether the model is right at the image and wherever PGD looked.",
    ),
    Column(
        "robust_autoattack",
        pa.bool_(),
        "yes/no",
        "Whether the model is right at the image and wherever AutoAttack looked.",
    ),
    Column("robust", pa.bool_(), "yes/no", "Whether neither of the two found a wrong prediction."),
    Column(
        "found_by",
        pa.string(),
        "name",
        "What found a wrong prediction: clean (the image itself), AutoAttack's member, or pgd where only "
        "PGD did; null where nothing did.",
        nullable=True,
    ),
)


class RobustnessConfig(InBallsConfig):
    """One measurement: a data set's first examples, one model, a ball, and the attacks' effort."""

    dataset: str = Field(description="Name of the data set.")
    model: str = Field(description="A model's name or folder, teacher or student.")
    epsilon: float = Field(
        description="Radius of the ball in pixel units: in [0, 1] for linf; an L2 radius may be larger."
    )
    count: int = Field(default=100, ge=1, description="How many examples, from the split's start.")
    seed: int = Field(default=0, description="Seed of the attacks' random numbers.")
    split: Literal["train", "test"] = Field(default="test", description="Which part of the set.")
    norm: Norm = Field(
        default="linf",
        description=(
            "Norm of the ball: linf, the largest pixel change, or l2, the root of the sum of squares."
        ),
    )
    channel_scale: tuple[float, ...] | None = Field(
        default=None,
        description=(
            "Epsilon's unit in each channel; with the std of the model's normalisation epsilon is the "
            "radius after that layer. Without it epsilon is in pixel units."
        ),
    )
    steps: int = Field(default=50, ge=1, le=2000, description="PGD: gradient steps from a start.")
    restarts: int = Field(
        default=10,
        ge=1,
        le=100,
        description="PGD: starts, the first from the image itself, the others at random.",
    )
    autoattack_steps: int = Field(
        default=100, ge=2, le=2000, description="AutoAttack: steps of Auto-PGD and FAB a target."
    )
    autoattack_queries: int = Field(
        default=5000, ge=2, le=100_000, description="AutoAttack: queries of Square an example."
    )


class ResolvedModel:
    """The data set and the card of a measurement, checked against each other.

    Raises:
        ConfigError: unknown names, a model that does not fit the data set, or a ball that does not fit
            its images.
    """

    def __init__(self, config: RobustnessConfig) -> None:
        self.config = config
        self.data_set: DataSet = get_data_set(config.dataset)
        self.card: ModelCard = read_card(config.model)
        wanted = (tuple(self.data_set.image_shape), self.data_set.num_classes)
        if (tuple(self.card.image_shape), self.card.num_classes) != wanted:
            raise ConfigError(
                f"The data set '{config.dataset}' has {_shape(wanted[0])} images of {wanted[1]} classes, "
                f"but '{self.card.name}' takes {_shape(self.card.image_shape)} and tells "
                f"{self.card.num_classes} apart; choose the data set it was trained on "
                f"('{self.card.dataset}')."
            )
        config.ball.check_fits(self.card.image_shape)


def check_measurement(config: RobustnessConfig) -> Split:
    """Refuse what cannot be measured; the images and labels it would be measured on.

    Raises:
        ConfigError: unknown names, a model, ball or count that does not fit, or a missing library.
        DataError: the images are absent or damaged; the message says what to do about it.
    """
    split = ResolvedModel(config).data_set.load(config.split)
    check_count(config.count, len(split), config.dataset, config.split)
    check_library()
    return split


def attack_model(
    config: RobustnessConfig,
    *,
    device: str = "auto",
    progress: ProgressCallback | None = None,
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Attack one model on the first examples of a data set, storing nothing.

    Args:
        config: what to measure.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: told about the stages ``pgd`` and AutoAttack's members; answering True cancels.

    Returns:
        One row an example (columns: `ROBUSTNESS_COLUMNS`), and the seconds that each measurement took,
        ``pgd_seconds`` and ``autoattack_seconds``.

    Raises:
        ConfigError: unknown names, a model, ball or count that does not fit, or a missing library.
        DataError: the data set is absent or damaged.
        CheckpointError: the model is damaged.
        Cancelled: ``progress`` asked to stop.
    """
    split = check_measurement(config)
    place = choose_device(device)
    network = load_model(config.model, device=str(place)).network
    images = split.images[: config.count].to(place)
    labels = split.labels[: config.count].to(place)
    region = config.ball.region(images, torch.arange(config.count, device=place))
    seconds = {"pgd_seconds": 0.0, "autoattack_seconds": 0.0}
    parts = [
        _measure_part(config, network, part, labels[rows], rows.start, progress, seconds)
        for rows, part in region.chunks(_TOGETHER)
    ]
    table = pd.concat(parts, ignore_index=True)
    table["label"] = labels.cpu().numpy()
    table["predicted"] = logits_of(double_copy(network), images).argmax(1).cpu().numpy()
    return table, {name: round(value, 3) for name, value in seconds.items()}


def _measure_part(
    config: RobustnessConfig,
    network: nn.Module,
    region: Region,
    labels: Tensor,
    before: int,
    progress: ProgressCallback | None,
    seconds: dict[str, float],
) -> pd.DataFrame:
    def tell(standing: Standing, stage: str, share: float) -> None:
        done = before + int(share * len(region))
        report(progress, stage, done, config.count, standing=len(standing.left()))

    by_pgd, by_ensemble = Standing(network, region, labels), Standing(network, region, labels)
    # A ball that is a point holds nothing but the image.
    if config.epsilon:
        started = time.perf_counter()
        run_pgd(
            by_pgd,
            steps=config.steps,
            restarts=config.restarts,
            seed=config.seed,
            tell=lambda share: tell(by_pgd, "pgd", share),
        )
        seconds["pgd_seconds"] += time.perf_counter() - started
        started = time.perf_counter()
        run_autoattack(
            by_ensemble,
            steps=config.autoattack_steps,
            queries=config.autoattack_queries,
            seed=config.seed,
            tell=lambda stage, share: tell(by_ensemble, stage, share),
        )
        seconds["autoattack_seconds"] += time.perf_counter() - started
    return pd.DataFrame(
        {
            "index": region.example_ids.cpu().numpy(),
            "robust_pgd": (~by_pgd.fooled).cpu().numpy(),
            "robust_autoattack": (~by_ensemble.fooled).cpu().numpy(),
            "robust": (~(by_pgd.fooled | by_ensemble.fooled)).cpu().numpy(),
            "found_by": [
                first or second
                for first, second in zip(by_ensemble.fell_to, by_pgd.fell_to, strict=True)
            ],
        }
    )


def _shape(image_shape: tuple[int, ...]) -> str:
    return "x".join(map(str, image_shape))
