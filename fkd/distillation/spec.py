"""What to train: one validated description, from which the CLI and the dashboard's form are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field

from fkd.core.ball import check_epsilon
from fkd.core.config import Config
from fkd.core.device import choose_device
from fkd.core.errors import ConfigError
from fkd.data import DataSet, get_data_set
from fkd.distillation.base import METHODS, Method
from fkd.models import ARCHITECTURES, Model, check_name, load_model, weight_shapes


class TrainSpec(Config):
    """Everything that determines a training run."""

    called: ClassVar[str] = "training"

    name: str = Field(description="Name of the new model; also its folder's name.")
    dataset: str = Field(default="digits", description="Data set to train on.")
    method: str = Field(default="standard", description="Training or distillation method.")
    method_config: dict[str, Any] = Field(
        default_factory=dict, description="The method's own settings; those left out have defaults."
    )
    teacher: str | None = Field(
        default=None, description="Model to distil; needed by the student methods only."
    )
    architecture: str = Field(default="cnn_small", description="Architecture of the new model.")
    architecture_config: dict[str, Any] = Field(
        default_factory=dict, description="The architecture's own settings."
    )
    seed: int = Field(
        default=0, ge=0, lt=2**31, description="Determines weights, batches and random starts."
    )
    epochs: int = Field(default=20, ge=1, le=10_000, description="Passes over the training data.")
    batch_size: int = Field(default=128, ge=1, le=65_536, description="Examples in one step.")
    optimiser: Literal["adam", "adamw", "sgd"] = Field(
        default="adam", description="Rule for the steps; sgd has Nesterov momentum 0.9."
    )
    learning_rate: float = Field(
        default=2e-3, gt=0.0, le=10.0, description="Largest step size of the schedule."
    )
    weight_decay: float = Field(
        default=0.0, ge=0.0, le=1.0, description="Pull of the weights towards 0."
    )
    schedule: Literal["constant", "cosine", "one_cycle", "steps"] = Field(
        default="one_cycle",
        description="Learning rate over time: constant; half a cosine wave down to 0; up for the "
        "first fifth and then down (one_cycle); or a tenth after 60, 80 and 90 % (steps).",
    )
    gradient_clip: float = Field(
        default=10.0, gt=0.0, le=1e6, description="Largest norm of the gradient."
    )
    shift: int = Field(
        default=0, ge=0, le=8, description="Augmentation: random shift by up to so many pixels."
    )
    flip: bool = Field(default=False, description="Augmentation: mirror half of the images.")
    train_count: int | None = Field(
        default=None, ge=1, description="Use only so many training examples; empty: all."
    )
    report_epsilons: tuple[float, ...] = Field(
        default=(),
        max_length=8,
        description="Radii at which to measure robust accuracy at the end; empty: the method's own.",
    )
    report_count: int = Field(
        default=1000, ge=1, description="Test examples for the accuracies under attack."
    )
    report_steps: int = Field(
        default=50, ge=1, le=1000, description="PGD steps for the accuracies under attack."
    )
    device: str = Field(default="auto", description="auto, cpu or cuda.")
    mixed_precision: bool = Field(
        default=True,
        description="bfloat16 on CUDA for methods without bounds; no effect on the CPU.",
    )


@dataclass(frozen=True)
class Plan:
    """A specification whose names have been looked up and found to fit together."""

    spec: TrainSpec
    data_set: DataSet
    method: Method
    teacher: Model | None
    architecture_config: dict[str, Any]

    @property
    def epsilon(self) -> float | None:
        """The method's training radius, if it has one."""
        return self.method.epsilon

    @property
    def is_same_task(self) -> bool:
        """Whether the teacher predicts this data set's classes, so that agreement has a meaning."""
        return self.teacher is not None and self.teacher.card.dataset == self.data_set.name

    @property
    def report_epsilons(self) -> tuple[float, ...]:
        """Radii for the final accuracies under attack."""
        if self.spec.report_epsilons:
            return self.spec.report_epsilons
        return (self.epsilon,) if self.epsilon else ()


def check_spec(spec: TrainSpec) -> Plan:
    """Look up every name and check that teacher, data and architecture fit; trains nothing.

    Raises:
        ConfigError: an unusable or unknown name or device, settings out of range, a teacher missing,
            superfluous, or of other data.
        CheckpointError: the teacher's files are damaged.
        DataError: the data set is absent.
    """
    check_name(spec.name)
    choose_device(spec.device)
    data_set = get_data_set(spec.dataset)
    entry = METHODS.get(spec.method)
    method = entry(entry.Config.parse(spec.method_config))
    architecture = ARCHITECTURES.get(spec.architecture)
    settings = architecture.Config.parse(spec.architecture_config)
    for epsilon in spec.report_epsilons:
        check_epsilon(epsilon)
    weight_shapes(
        spec.architecture,
        spec.architecture_config,
        image_shape=data_set.image_shape,
        num_classes=data_set.num_classes,
    )
    teacher = _teacher(spec, method, data_set)
    if not data_set.is_available():
        # Reading says what is missing and what to do about it.
        data_set.load("train")
    return Plan(spec, data_set, method, teacher, settings.model_dump(mode="json"))


def _teacher(spec: TrainSpec, method: Method, data_set: DataSet) -> Model | None:
    """The teacher, checked against the data set, or None for a method that makes one."""
    if method.role == "teacher":
        if spec.teacher is not None:
            raise ConfigError(
                f"The method '{spec.method}' trains without a teacher, got '{spec.teacher}'; leave "
                f"the teacher out or choose one of {_names('student')}."
            )
        return None
    if spec.teacher is None:
        raise ConfigError(
            f"The method '{spec.method}' distils a teacher and was given none; name a model as "
            f"teacher or choose one of {_names('teacher')}."
        )
    teacher = load_model(spec.teacher)
    card = teacher.card
    if method.takes_any_teacher:
        if tuple(card.image_shape) != tuple(data_set.image_shape):
            raise ConfigError(
                f"The teacher '{card.name}' takes {_shape(card.image_shape)} images, but those of "
                f"{data_set.name} are {_shape(data_set.image_shape)}; choose a teacher of that size."
            )
        method.check_teacher(
            card,
            num_classes=data_set.num_classes,
            is_same_task=card.dataset == data_set.name,
        )
        return teacher
    if (
        tuple(card.image_shape) != tuple(data_set.image_shape)
        or card.num_classes != data_set.num_classes
    ):
        raise ConfigError(
            f"The teacher '{card.name}' takes {_shape(card.image_shape)} images in "
            f"{card.num_classes} classes, but {data_set.name} has {_shape(data_set.image_shape)} "
            f"images in {data_set.num_classes}; choose a teacher trained on {data_set.name} or "
            f"train on {card.dataset}."
        )
    if card.dataset != data_set.name:
        raise ConfigError(
            f"The teacher '{card.name}' was trained on {card.dataset}, not on {data_set.name}; "
            f"choose a teacher trained on {data_set.name} or train on {card.dataset}."
        )
    return teacher


def _names(role: str) -> str:
    return ", ".join(name for name in METHODS if METHODS.get(name).role == role)


def _shape(image_shape: tuple[int, ...]) -> str:
    return "x".join(map(str, image_shape))
