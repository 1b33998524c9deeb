"""A pair whose figures are wanted: the configuration, and what several groups of figures share."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from pydantic import Field, field_validator
from torch import Tensor, nn

from fkd.attacks.objectives import confidence
from fkd.core.device import choose_device
from fkd.core.errors import ConfigError
from fkd.core.precision import double_copy, logits_of
from fkd.core.progress import ProgressCallback
from fkd.data import DATA_SETS, DataSet, Split, SplitName, get_data_set
from fkd.evaluation.config import AnalysisConfig, ResolvedPair, check_count
from fkd.evaluation.pair import analyse
from fkd.evaluation.robustness import RobustnessConfig
from fkd.evaluation.robustness_store import Robustness, measure_robustness
from fkd.evaluation.scores import SCORES, group_names
from fkd.evaluation.store import Analysis
from fkd.models import Model


class ScoresConfig(AnalysisConfig):
    """Figures of one student: as an analysis, with the groups of figures that are wanted.

    Figures at images are of the whole split, figures of attacks and certificates, and what is compared
    with them (relative calibration), of its first ``count`` examples.
    """

    groups: tuple[str, ...] = Field(
        default_factory=lambda: tuple(group_names()),
        description="Which groups of figures, in any order; all if none are named.",
    )
    outside: str | None = Field(
        default=None,
        description=(
            "Data set that counts as out of distribution, of the same image shape; without one a "
            "built-in one is taken where there is one."
        ),
    )

    @field_validator("groups")
    @classmethod
    def _check_groups(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = group_names()
        if not value:
            raise ConfigError(
                f"At least one group of figures is needed, got none; name some of {', '.join(known)}."
            )
        for name in value:
            SCORES.get(name)
        # Their order says nothing: the same groups are the same figures.
        return tuple(name for name in known if name in value)

    def analysis(self) -> AnalysisConfig:
        """The analysis whose table the figures of faithfulness are from."""
        shared = {name: getattr(self, name) for name in AnalysisConfig.model_fields}
        return AnalysisConfig(**shared)

    def robustness(self) -> RobustnessConfig:
        """The measurement of the student alone, on the same examples in the same ball."""
        shared = ("dataset", "epsilon", "count", "seed", "split", "norm", "channel_scale")
        return RobustnessConfig(
            **{name: getattr(self, name) for name in shared}, model=self.student
        )


class ScoredPair:
    """A pair with what groups of figures share, each made when it is first asked for.

    Args:
        config: what is wanted.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ConfigError: unknown names, a pair or ball that does not fit, or a data set out of distribution
            that is of another image shape.
    """

    def __init__(self, config: ScoresConfig, *, device: str = "auto") -> None:
        self.config = config
        self.device = choose_device(device)
        self.resolved = ResolvedPair(config.analysis())
        self.outside = _outside_set(config, self.resolved.data_set)
        #: For keys alone: figures measured where the set is are found where it is not.
        self.as_if_outside_were_here = False

    @property
    def data_set(self) -> DataSet:
        """The data set in distribution."""
        return self.resolved.data_set

    def load_split(self, name: SplitName | None = None) -> Split:
        """One split, the configuration's by default.

        Raises:
            ConfigError: the configuration's has fewer than ``count`` examples.
            DataError: the images are absent or damaged.
        """
        split = self.data_set.load(name or self.config.split)
        if name is None:
            check_count(self.config.count, len(split), self.config.dataset, self.config.split)
        return split

    @cached_property
    def models(self) -> tuple[Model, Model]:
        """Teacher and student."""
        return self.resolved.load(str(self.device))

    @cached_property
    def networks(self) -> tuple[nn.Module, nn.Module]:
        """Both in float64, in which figures are reported."""
        teacher, student = self.models
        return double_copy(teacher.network), double_copy(student.network)

    def logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Teacher's and student's logits, float64 (N, K) each, of images (N, C, H, W)."""
        images = images.to(self.device)
        return logits_of(self.networks[0], images), logits_of(self.networks[1], images)

    @cached_property
    def clean(self) -> tuple[Tensor, Tensor]:
        """Both networks' logits of the whole split."""
        return self.logits(self.load_split().images)

    @cached_property
    def labels(self) -> Tensor:
        """Labels of the whole split, on the device."""
        return self.load_split().labels.to(self.device)

    def compared_confidences(self) -> tuple[np.ndarray, np.ndarray]:
        """Both networks' confidences in the compared class at every image of the split, (N,) each."""
        teacher, student = self.clean
        by_label = self.config.gap_class == "label"
        classes = self.labels if by_label else teacher.argmax(1)
        first, second = (confidence(part, classes).cpu().numpy() for part in (teacher, student))
        return first, second

    def analysis(self, progress: ProgressCallback | None = None) -> Analysis:
        """The pair's analysis, stored or new."""
        return analyse(self.config.analysis(), device=str(self.device), progress=progress)

    def robustness(self, progress: ProgressCallback | None = None) -> Robustness:
        """Standard robustness of the student, stored or new."""
        return measure_robustness(
            self.config.robustness(), device=str(self.device), progress=progress
        )

    def outside_images(self, most: int) -> Tensor | None:
        """The first images of the set out of distribution; None where there is no such set here."""
        if self.outside is None or not self.outside.is_available():
            return None
        return self.outside.load("test").images[:most].to(self.device)

    def why_no_outside(self) -> str:
        """Why `outside_images` has none, in one sentence."""
        if self.outside is None:
            return (
                f"No built-in data set has images of the same shape as '{self.config.dataset}'; name one "
                "of your own with the setting 'outside'."
            )
        return (
            f"The data set '{self.outside.name}', which is out of distribution here, is not on this "
            f"machine; fetch it with python -m fkd data download {self.outside.name}."
        )

    def outside_identity(self) -> dict[str, Any]:
        """Which set is out of distribution, for a key: it changes once the set is there."""
        if self.outside is None or not (
            self.outside.is_available() or self.as_if_outside_were_here
        ):
            return {"outside": None}
        return {"outside": [self.outside.name, self.outside.fingerprint("test")]}


def _outside_set(config: ScoresConfig, data_set: DataSet) -> DataSet | None:
    """The set out of distribution, whether it is on this machine or not.

    Raises:
        ConfigError: a name that does not exist, is the data set itself, or has other images.
    """
    shape = tuple(data_set.image_shape)
    if config.outside is not None:
        found = get_data_set(config.outside)
        if found.name == data_set.name or tuple(found.image_shape) != shape:
            size = "x".join(map(str, shape))
            raise ConfigError(
                f"'{config.outside}' cannot be out of distribution for '{config.dataset}': another data "
                f"set with {size} images is needed; name one, or leave 'outside' out."
            )
        return found
    others = [get_data_set(name) for name in DATA_SETS if name != data_set.name]
    # The same classes in other files (CIFAR-10 as JPEG) are the same distribution.
    fitting = [
        one for one in others if tuple(one.image_shape) == shape and one.classes != data_set.classes
    ]
    there = [one for one in fitting if one.is_available()]
    return next(iter(there or fitting), None)
