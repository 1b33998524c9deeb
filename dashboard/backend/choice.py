"""What is being looked at: the sidebar's choice, as one hashable value."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fkd.core.ball import NORMS, check_epsilon
from fkd.core.errors import ConfigError
from fkd.evaluation import AnalysisConfig, parse_analysis

DEFAULT_COUNT = 200
GAP_CLASSES = ("label", "teacher")
#: Registry name of the certificate that is used where none is asked for.
DEFAULT_LEVEL: str = (
    AnalysisConfig.model_fields["certificate"].get_default(call_default_factory=True).name
)

#: The norms of a ball, as people write them.
NORM_NAMES = dict(zip(NORMS, ("L∞", "L2"), strict=True))
#: L2 radii worth offering, and the one to begin with.
L2_RADII = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 1.5)
L2_DEFAULT = 0.2


@dataclass(frozen=True)
class Choice:
    """A data set, a pair, a ball, which examples and class are compared, and how bounds are made.

    Attributes:
        dataset: its name.
        teacher: the teacher's name.
        student: the student's name.
        epsilon: radius of the ball.
        count: how many images.
        gap_class: "label" or "teacher".
        norm: of the ball.
        level: registry name of the certificate.
        seconds: its time budget an image; None for levels without one.
    """

    dataset: str
    teacher: str
    student: str
    epsilon: float
    count: int = DEFAULT_COUNT
    gap_class: str = "label"
    norm: str = NORMS[0]
    level: str = DEFAULT_LEVEL
    seconds: float | None = None

    @property
    def shown_change(self) -> float:
        """The pixel change that a picture of the perturbation shows in full colour."""
        # An L2 witness spreads its length over many pixels: few change by more than half of it.
        return self.epsilon if self.norm == NORMS[0] else min(1.0, self.epsilon / 2)

    def config(self) -> AnalysisConfig:
        """The analysis that answers this choice.

        Raises:
            ConfigError: a value is out of its range.
        """
        budget = {} if self.seconds is None else {"seconds": self.seconds}
        return parse_analysis(
            {
                "certificate": {"name": self.level, **budget},
                "dataset": self.dataset,
                "teacher": self.teacher,
                "student": self.student,
                "epsilon": self.epsilon,
                "count": self.count,
                "gap_class": self.gap_class,
                "norm": self.norm,
            }
        )

    def but(self, **changes: object) -> Choice:
        """The same with some parts changed."""
        return replace(self, **changes)  # type: ignore[arg-type]


def parse_epsilon(text: str, norm: str = NORMS[0]) -> float:
    """A radius as people write it: ``0.1`` or ``8/255``.

    Raises:
        ConfigError: it is no number in [0, 1], or for L2 none of at least 0.
    """
    above, slash, below = str(text).partition("/")
    if not slash:
        return check_epsilon(text, norm)
    try:
        value = float(above) / float(below)
    except (ValueError, ZeroDivisionError):
        raise ConfigError(
            f"epsilon must be a number or a fraction such as 8/255, got '{text}'."
        ) from None
    return check_epsilon(value, norm)
