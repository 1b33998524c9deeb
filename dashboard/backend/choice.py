"""What is being looked at: the sidebar's choice, as one hashable value."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fkd.core.ball import check_epsilon
from fkd.core.errors import ConfigError
from fkd.evaluation import AnalysisConfig, parse_analysis

DEFAULT_COUNT = 200
GAP_CLASSES = ("label", "teacher")


@dataclass(frozen=True)
class Choice:
    """A data set, a pair, a ball, and which examples and class are compared."""

    dataset: str
    teacher: str
    student: str
    epsilon: float
    count: int = DEFAULT_COUNT
    gap_class: str = "label"

    def config(self) -> AnalysisConfig:
        """The analysis that answers this choice.

        Raises:
            ConfigError: a value is out of its range.
        """
        return parse_analysis(
            {
                "dataset": self.dataset,
                "teacher": self.teacher,
                "student": self.student,
                "epsilon": self.epsilon,
                "count": self.count,
                "gap_class": self.gap_class,
            }
        )

    def but(self, **changes: object) -> Choice:
        """The same with some parts changed."""
        return replace(self, **changes)  # type: ignore[arg-type]


def parse_epsilon(text: str) -> float:
    """A radius as people write it: ``0.1`` or ``8/255``.

    Raises:
        ConfigError: it is no number in [0, 1].
    """
    above, slash, below = str(text).partition("/")
    if not slash:
        return check_epsilon(text)
    try:
        value = float(above) / float(below)
    except (ValueError, ZeroDivisionError):
        raise ConfigError(
            f"epsilon must be a number in [0, 1] or a fraction such as 8/255, got '{text}'."
        ) from None
    return check_epsilon(value)
