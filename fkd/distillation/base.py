"""What a training method is: one loss on one batch, from images, labels, teacher, student and clock."""

from __future__ import annotations

import math
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from fkd.bounds.engine.intervals import BoundedNetwork
from fkd.core.config import Config
from fkd.core.errors import ConfigError
from fkd.core.registry import Registry
from fkd.core.seeding import uniform_noise
from fkd.models.card import ModelCard, Role

METHODS: Registry = Registry("training method", "fkd.distillation")

#: Independent random draws a method may take in one step.
_STREAMS_PER_STEP = 8


@dataclass(frozen=True)
class Batch:
    """One step's examples, all on the training device.

    Attributes:
        images: float32 (N, C, H, W) in [0, 1], after augmentation.
        labels: int64 (N,).
        example_ids: int64 (N,), positions in the train split.
        seed: the run's seed.
        step: the step's number; with the seed it determines every random draw.
    """

    images: Tensor
    labels: Tensor
    example_ids: Tensor
    seed: int = 0
    step: int = 0

    def uniform(self, stream: int = 0) -> Tensor:
        """Numbers in [0, 1) shaped like the images; the same on every device and in every batch."""
        return uniform_noise(
            self.example_ids,
            tuple(self.images.shape[1:]),
            seed=self.seed,
            stream=self.step * _STREAMS_PER_STEP + stream,
        )

    def normal(self, stream: int = 0) -> Tensor:
        """Standard normal numbers shaped like the images (inverse distribution function)."""
        # Uniform numbers are multiples of 2**-24: half a step keeps them off 0.  The largest one
        # would be rounded to 1, whose normal number is infinite.
        centred = 2.0 * (self.uniform(stream) + 2.0**-25) - 1.0
        return math.sqrt(2.0) * torch.erfinv(centred.clamp_max(1.0 - 2.0**-24))


@dataclass(frozen=True)
class Setting:
    """A run as its method may look at it before the first step and between epochs.

    Attributes:
        teacher: frozen and in eval mode, on the training device; None where a teacher is made.
        student: the network being trained.
        images: float32 (N, C, H, W), the train split on the training device, not augmented.
        labels: int64 (N,).
        example_ids: int64 (M,), the positions among the N that the run trains on.
        num_classes: K of the data set.
        batch_size: of the run.
        seed: of the run.
    """

    teacher: nn.Module | None
    student: nn.Module
    images: Tensor
    labels: Tensor
    example_ids: Tensor
    num_classes: int
    batch_size: int
    seed: int


@dataclass(frozen=True)
class Clock:
    """Where training stands; schedules are functions of this alone, so a resumed run repeats them.

    Attributes:
        step: steps done before this one, from 0.
        epoch: epochs done before this one, from 0.
        total_steps: steps of the whole run.
    """

    step: int
    epoch: int
    total_steps: int

    @property
    def fraction(self) -> float:
        """Share of the run that is over, in [0, 1]."""
        return min(1.0, self.step / self.total_steps) if self.total_steps else 1.0

    def ramp(
        self, start: float, end: float, shape: Literal["linear", "smooth"] = "linear"
    ) -> float:
        """0 before fraction ``start``, 1 from ``end`` on, rising in between.

        Args:
            start: share of the run where the rise begins, in [0, 1].
            end: share where it ends, at least ``start``.
            shape: a straight line, or half a cosine wave, flat at both ends.
        """
        if self.fraction >= end:
            return 1.0
        if self.fraction <= start:
            return 0.0
        risen = (self.fraction - start) / (end - start)
        return risen if shape == "linear" else 0.5 * (1.0 - math.cos(math.pi * risen))


class LossParts(dict[str, Tensor]):
    """Named, weighted parts of a loss; ``"total"`` is their sum and what is differentiated.

    Attributes:
        observed: further numbers worth a curve (a ramp's value, a share), no part of the total.
        is_idle: whether the weight of every part is 0.
    """

    observed: dict[str, float | Tensor]
    is_idle: bool = False

    @classmethod
    def weighted(
        cls,
        terms: Mapping[str, tuple[float, Tensor]],
        observed: Mapping[str, float | Tensor] | None = None,
    ) -> LossParts:
        """Parts weight * value for each ``name: (weight, value)``.

        Example:
            >>> import torch
            >>> from fkd.distillation import LossParts
            >>> LossParts.weighted({"a": (2.0, torch.tensor(3.0)), "b": (1.0, torch.tensor(1.0))})
            {'a': tensor(6.), 'b': tensor(1.), 'total': tensor(7.)}
        """
        parts = cls({name: weight * value for name, (weight, value) in terms.items()})
        parts["total"] = torch.stack(list(parts.values())).sum()
        parts.observed = dict(observed or {})
        parts.is_idle = all(weight == 0 for weight, _ in terms.values())
        return parts


class Method(ABC):
    """A way of training; subclasses register in `METHODS`, one file each."""

    name: ClassVar[str]
    title: ClassVar[str]
    #: Whether it makes a teacher (needs none) or a student (needs one).
    role: ClassVar[Role]
    #: Where the objective is from.
    source: ClassVar[str]
    Config: ClassVar[type[Config]]
    #: Bounds need float32: no mixed precision.
    uses_bounds: ClassVar[bool] = False
    #: Whether a teacher of other classes, or of another data set of the same image shape, will do.
    takes_any_teacher: ClassVar[bool] = False

    #: What the method itself learns (parameters, trained with the student's weights) or remembers
    #: (buffers, which the step may change); both are part of a run's checkpoint, not of the model.
    extra: nn.Module

    def __init__(self, config: Any) -> None:
        self.config = config
        self.extra = nn.Module()
        self._bounded: weakref.WeakKeyDictionary[nn.Module, BoundedNetwork] = (
            weakref.WeakKeyDictionary()
        )

    @property
    def epsilon(self) -> float | None:
        """The training radius in pixel units; None for a method without a ball."""
        return getattr(self.config, "epsilon", None)

    def check_teacher(self, card: ModelCard, *, num_classes: int, is_same_task: bool) -> None:
        """Refuse a teacher that the settings cannot use; called before a run is begun.

        Only methods that take any teacher have something to refuse here.

        Args:
            card: the teacher's.
            num_classes: K of the data set to train on.
            is_same_task: whether the teacher was trained on that data set.

        Raises:
            ConfigError: the teacher does not do.
        """
        del card, num_classes, is_same_task

    def bounded(self, network: nn.Module) -> BoundedNetwork:
        """The network prepared for bounds; read once, since reading costs as much as a step.

        Raises:
            UnsupportedModelError: bounds cannot pass through it.
        """
        if network not in self._bounded:
            self._bounded[network] = BoundedNetwork(network)
        return self._bounded[network]

    @abstractmethod
    def loss(
        self, batch: Batch, teacher: nn.Module | None, student: nn.Module, clock: Clock
    ) -> LossParts:
        """The step's loss.

        Args:
            batch: the examples.
            teacher: frozen and in eval mode; None for methods that make a teacher.
            student: the network being trained (also where it will be a teacher), in train mode.
            clock: for schedules.
        """

    def set_up(self, setting: Setting) -> None:
        """Give ``extra`` its parameters and buffers; called first, in fresh and in resumed runs alike.

        What is put there must not depend on anything random but the seed: a resumed run's values come
        from its checkpoint.
        """
        del setting

    def prepare(self, setting: Setting) -> None:
        """Called once with fresh weights, before the first step; not when a run is resumed.

        Raises:
            UnsupportedModelError: the method cannot handle a network.
        """
        if self.uses_bounds:
            for network in (setting.teacher, setting.student):
                if network is not None:
                    self.bounded(network)

    def choose_examples(self, setting: Setting, epoch: int) -> Tensor | None:
        """Which examples take part in the epoch that begins, as a mask bool (N,); None for all.

        Called before each epoch's first step, with the student in eval mode.  At least one of
        ``setting.example_ids`` must be chosen.  An epoch of fewer examples has fewer steps; schedules
        go by epochs and are not changed by it.
        """
        del setting, epoch

    def finish_epoch(self, setting: Setting) -> None:
        """Called after each epoch's last step, before the student is measured; may change weights."""
        del setting


class RadiusConfig(Config):
    """The ball to be robust on."""

    epsilon: float = Field(
        default=0.1, ge=0.0, le=1.0, description="Radius of the L-infinity ball, in pixel units."
    )


class AttackConfig(RadiusConfig):
    """The ball, and the attack that searches it in each step."""

    steps: int = Field(default=10, ge=1, le=200, description="Steps of the inner attack.")
    step_size: float | None = Field(
        default=None,
        gt=0.0,
        le=1.0,
        description="Size of one attack step, in pixel units; empty: a quarter of epsilon.",
    )

    @property
    def step_length(self) -> float:
        """The step size in use."""
        return self.epsilon / 4 if self.step_size is None else self.step_size


class RampConfig(RadiusConfig):
    """The ball, and how it grows from nothing."""

    warm_up: float = Field(
        default=0.05, ge=0.0, le=1.0, description="Share of training before the ball grows."
    )
    ramp: float = Field(
        default=0.5, ge=0.0, le=1.0, description="Share of training in which it grows to epsilon."
    )
    ramp_shape: Literal["linear", "smooth"] = Field(
        default="smooth", description="Straight growth, or half a cosine wave."
    )

    @model_validator(mode="after")
    def _ends_in_time(self) -> RampConfig:
        if self.warm_up + self.ramp > 1.0:
            raise ValueError("warm_up and ramp must not exceed 1 together")
        return self

    def risen(self, clock: Clock) -> float:
        """How far the ramp is, in [0, 1]."""
        return clock.ramp(self.warm_up, self.warm_up + self.ramp, self.ramp_shape)


def kl_divergence(target_logits: Tensor, logits: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(p || q) of softened softmax outputs, summed over classes and averaged over the batch.

    Some published codes average over classes too, which makes the value K times smaller and, next
    to another term, another method.

    Args:
        target_logits: logits of p (N, K).
        logits: logits of q (N, K).
        temperature: both are divided by it.
    """
    return functional.kl_div(
        functional.log_softmax(logits / temperature, dim=1),
        functional.log_softmax(target_logits / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )


def kl_divergences(target_logits: Tensor, logits: Tensor, temperature: float = 1.0) -> Tensor:
    """As `kl_divergence`, for each example by itself: (N,)."""
    return functional.kl_div(
        functional.log_softmax(logits / temperature, dim=1),
        functional.log_softmax(target_logits / temperature, dim=1),
        reduction="none",
        log_target=True,
    ).sum(1)


def need_teacher(teacher: nn.Module | None) -> nn.Module:
    """The teacher itself.

    Raises:
        ConfigError: there is none.
    """
    if teacher is None:
        raise ConfigError("This method distils a teacher and was given none; name a teacher.")
    return teacher


def teacher_logits(teacher: nn.Module | None, images: Tensor) -> Tensor:
    """The teacher's logits (N, K) without a gradient.

    Raises:
        ConfigError: there is no teacher.
    """
    with torch.no_grad():
        return need_teacher(teacher)(images)
