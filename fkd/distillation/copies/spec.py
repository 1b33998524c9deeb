"""What to copy and how: one validated description, from which the CLI and the form are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import Field

from fkd.core.ball import check_epsilon
from fkd.core.config import Config
from fkd.core.device import choose_device
from fkd.data import DataSet, get_data_set
from fkd.distillation.copies.base import COPIES, Copying
from fkd.models import Model, check_name, load_model


class CopySpec(Config):
    """Everything that determines a copy."""

    name: str = Field(description="Name of the new model; also its folder's name.")
    teacher: str = Field(description="Model to copy, which becomes the copy's teacher.")
    method: str = Field(default="quantised", description="Way of copying.")
    method_config: dict[str, Any] = Field(
        default_factory=dict, description="Its own settings; those left out have defaults."
    )
    seed: int = Field(
        default=0, ge=0, lt=2**31, description="Of the attack that measures the copy."
    )
    report_epsilons: tuple[float, ...] = Field(
        default=(),
        max_length=8,
        description="Radii at which to measure robust accuracy; empty: the teacher's own.",
    )
    report_count: int = Field(
        default=1000, ge=1, description="Test examples for the accuracies under attack."
    )
    report_steps: int = Field(
        default=50, ge=1, le=1000, description="PGD steps for the accuracies under attack."
    )
    device: str = Field(default="auto", description="auto, cpu or cuda, for the measurements.")


@dataclass(frozen=True)
class CopyPlan:
    """A specification whose names have been looked up and found to fit together."""

    spec: CopySpec
    data_set: DataSet
    copying: Copying
    teacher: Model

    @property
    def report_epsilons(self) -> tuple[float, ...]:
        """Radii for the accuracies under attack."""
        if self.spec.report_epsilons:
            return self.spec.report_epsilons
        return (self.teacher.card.epsilon,) if self.teacher.card.epsilon else ()


def check_copy(spec: CopySpec) -> CopyPlan:
    """Look up every name and check that the model can be copied and measured; copies nothing.

    Raises:
        ConfigError: an unusable or unknown name or device, or settings out of range.
        CheckpointError: the model's files are damaged.
        UnsupportedModelError: an ONNX graph with operators that cannot be run.
        DataError: the data set it was trained on is absent.
    """
    check_name(spec.name)
    choose_device(spec.device)
    entry = COPIES.get(spec.method)
    copying = entry(entry.Config.parse(spec.method_config))
    for epsilon in spec.report_epsilons:
        check_epsilon(epsilon)
    teacher = load_model(spec.teacher)
    data_set = get_data_set(teacher.card.dataset)
    if not data_set.is_available():
        # Reading says what is missing and what to do about it.
        data_set.load("test")
    return CopyPlan(spec, data_set, copying, teacher)
