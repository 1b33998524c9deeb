"""What an analysis is of, and the key that names its result."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from fkd.attacks import PairAttackConfig, attack_config
from fkd.bounds import CertificateConfig, certificate_config
from fkd.core.ball import Ball, Norm, check_ball
from fkd.core.config import Config
from fkd.core.errors import ConfigError
from fkd.core.hashing import hash_json, short
from fkd.core.seeding import check_seed
from fkd.data import DataSet, get_data_set
from fkd.models import Model, ModelCard, check_pair, load_model, read_card
from fkd.records import SCHEMA_VERSION

#: Raised whenever attack, certificate or measurement change what they compute: old results are then
#: no longer found, so a stale figure cannot be shown.
PROCEDURE_VERSION = 4


class InBallsConfig(Config):
    """Settings with a ball and a seed, both checked; the fields are the subclass's own."""

    # For type checkers alone: fields inherited would come first in the help and in the JSON.
    if TYPE_CHECKING:
        epsilon: float
        norm: Norm
        channel_scale: tuple[float, ...] | None
        seed: int

    @model_validator(mode="before")
    @classmethod
    def _check_ball(cls, values: object) -> object:
        return check_ball(values)

    @field_validator("seed", check_fields=False)
    @classmethod
    def _check_seed(cls, value: int) -> int:
        return check_seed(value)

    @property
    def ball(self) -> Ball:
        """The ball around each example."""
        return Ball(epsilon=self.epsilon, norm=self.norm, channel_scale=self.channel_scale)


class AttackedConfig(InBallsConfig):
    """What every measurement of students of one teacher starts from: examples, balls and an attack."""

    dataset: str = Field(description="Name of the data set.")
    teacher: str = Field(description="Teacher: a model's name or folder.")
    epsilon: float = Field(
        description="Radius of the ball in pixel units: in [0, 1] for linf; an L2 radius may be larger."
    )
    count: int = Field(default=200, ge=1, description="How many examples, from the split's start.")
    seed: int = Field(default=0, description="Seed of the attack's random starts.")
    split: Literal["train", "test"] = Field(default="test", description="Which part of the set.")
    gap_class: Literal["label", "teacher"] = Field(
        default="label",
        description="Class whose confidences are compared: the label, or the teacher's prediction.",
    )
    norm: Norm = Field(
        default="linf",
        description=(
            "Norm of the ball: linf, the largest pixel change, or l2, the root of the sum of squares."
        ),
    )
    channel_scale: tuple[float, ...] | None = Field(
        default=None,
        description=(
            "Epsilon's unit in each channel; with the std of the models' normalisation epsilon is the "
            "radius after that layer. Without it epsilon is in pixel units."
        ),
    )
    attack: SerializeAsAny[PairAttackConfig] = Field(
        default_factory=lambda: attack_config({}), description="The attack and its settings."
    )

    @field_validator("attack", mode="before")
    @classmethod
    def _typed_attack(cls, value: Any) -> Any:
        return attack_config(value) if isinstance(value, dict | PairAttackConfig) else value

    def attack_json(self) -> str:
        """The attack's settings that determine its result, as stored in the table."""
        # `rows` only says how much is computed at once.
        return json.dumps(self.attack.model_dump(mode="json", exclude={"rows"}), sort_keys=True)


class AnalysisConfig(AttackedConfig):
    """One analysis: a data set's first examples, a pair, a ball, an attack and a certificate."""

    student: str = Field(description="Student: a model's name or folder.")
    certificate: SerializeAsAny[CertificateConfig] = Field(
        default_factory=CertificateConfig, description="The certificate and its settings."
    )

    @field_validator("certificate", mode="before")
    @classmethod
    def _typed_certificate(cls, value: Any) -> Any:
        if type(value) is CertificateConfig:
            # What only names a certificate becomes that one's own configuration.
            value = value.model_dump()
        return certificate_config(value) if isinstance(value, dict | CertificateConfig) else value

    def certificate_json(self) -> str:
        """The certificate's settings that determine its result."""
        return json.dumps(
            self.certificate.model_dump(mode="json", exclude={"rows"}), sort_keys=True
        )


def parse_analysis(values: dict[str, Any]) -> AnalysisConfig:
    """An analysis configuration from JSON-like values.

    Raises:
        ConfigError: an unknown setting or a value outside its range, in one sentence.
    """
    return AnalysisConfig.parse(values)


class ResolvedPair:
    """The data set and both cards of an analysis, checked against each other; weights on demand.

    Raises:
        ConfigError: unknown names, a pair that cannot be compared on this data set, or a ball that does
            not fit its images.
    """

    def __init__(self, config: AnalysisConfig) -> None:
        self.config = config
        self.data_set: DataSet = get_data_set(config.dataset)
        self.teacher_card: ModelCard = read_card(config.teacher)
        self.student_card: ModelCard = read_card(config.student)
        check_pair(self.teacher_card, self.student_card, self.data_set)
        config.ball.check_fits(self.teacher_card.image_shape)

    def load(self, device: str = "cpu") -> tuple[Model, Model]:
        """Teacher and student with their weights."""
        return (
            load_model(self.config.teacher, device=device),
            load_model(self.config.student, device=device),
        )

    def key(self) -> str:
        """Hash of everything that determines the table (content, not file names)."""
        config = self.config
        # Only where it says something: tables made before there were scales keep their keys.
        scale = {} if config.channel_scale is None else {"channel_scale": config.channel_scale}
        return short(
            hash_json(
                {
                    **scale,
                    "schema": SCHEMA_VERSION,
                    "procedure": PROCEDURE_VERSION,
                    "dataset": config.dataset,
                    "data": self.data_set.fingerprint(config.split),
                    "teacher": [self.teacher_card.name, self.teacher_card.model_hash],
                    "student": [self.student_card.name, self.student_card.model_hash],
                    "epsilon": config.epsilon,
                    "norm": config.norm,
                    "count": config.count,
                    "split": config.split,
                    "seed": config.seed,
                    "gap_class": config.gap_class,
                    "attack": config.attack_json(),
                    "certificate": config.certificate_json(),
                }
            )
        )


def check_examples(config: AnalysisConfig) -> None:
    """Refuse what names no pair of this data set, or more examples than there are.

    Raises:
        ConfigError: it does.
        DataError: the images are absent or damaged; the message says what to do about it.
    """
    split = ResolvedPair(config).data_set.load(config.split)
    check_count(config.count, len(split), config.dataset, config.split)


def check_count(count: int, available: int, dataset: str, split: str) -> None:
    """Refuse to analyse more examples than there are.

    Raises:
        ConfigError: ``count`` exceeds ``available``.
    """
    if count > available:
        raise ConfigError(
            f"The {split} split of '{dataset}' has {available} examples, so {count} cannot be "
            f"analysed; choose a count of at most {available}."
        )
