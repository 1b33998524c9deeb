"""Whether a teacher, a student and a data set can be compared at all."""

from __future__ import annotations

from typing import Protocol

from fkd.core.errors import ConfigError
from fkd.models.card import ModelCard
from fkd.models.checkpoint import Model


class ClassifiedImages(Protocol):
    """What `check_pair` asks of a data set (`fkd.data.DataSet` has it)."""

    name: str
    image_shape: tuple[int, int, int]

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""


def check_pair(
    teacher: Model | ModelCard,
    student: Model | ModelCard,
    data_set: ClassifiedImages | None = None,
) -> None:
    """Refuse pairs whose confidences cannot be compared on the same image.

    Two models trained on different data sets may be compared if the shapes agree.

    Args:
        teacher: model or card.
        student: model or card.
        data_set: also checked where given.

    Raises:
        ConfigError: different image shapes or numbers of classes.

    Example:
        >>> from fkd.models import ModelCard, check_pair
        >>> card = ModelCard(name="t", role="teacher", dataset="digits", method="standard",
        ...     architecture="mlp", image_shape=(1, 8, 8), num_classes=10)
        >>> check_pair(card, card)
    """
    first = teacher.card if isinstance(teacher, Model) else teacher
    second = student.card if isinstance(student, Model) else student
    if tuple(first.image_shape) != tuple(second.image_shape):
        raise ConfigError(
            f"The teacher '{first.name}' takes {_shape(first.image_shape)} images and the student "
            f"'{second.name}' {_shape(second.image_shape)}; choose two models of the same data set."
        )
    if first.num_classes != second.num_classes:
        raise ConfigError(
            f"The teacher '{first.name}' tells {first.num_classes} classes apart and the student "
            f"'{second.name}' {second.num_classes}; choose two models of the same data set."
        )
    if data_set is None:
        return
    if tuple(data_set.image_shape) != tuple(first.image_shape):
        raise ConfigError(
            f"The data set '{data_set.name}' has {_shape(data_set.image_shape)} images, but "
            f"'{first.name}' and '{second.name}' take {_shape(first.image_shape)}; "
            f"choose the data set they were trained on ('{first.dataset}')."
        )
    if data_set.num_classes != first.num_classes:
        raise ConfigError(
            f"The data set '{data_set.name}' has {data_set.num_classes} classes, but "
            f"'{first.name}' and '{second.name}' tell {first.num_classes} apart; "
            f"choose the data set they were trained on ('{first.dataset}')."
        )


def _shape(image_shape: tuple[int, int, int]) -> str:
    return "x".join(map(str, image_shape))
