"""``python -m fkd distill``: distil a student from a teacher."""

from __future__ import annotations

from collections.abc import Sequence

from fkd.cli.train import train

_DESCRIPTION = (
    "Distil a student from a teacher. The methods and architectures with their settings are listed "
    "below."
)


def run(arguments: Sequence[str]) -> int:
    """Distil a student."""
    return train(
        "distill",
        arguments,
        role="student",
        description=_DESCRIPTION,
        defaults={"method": "kd", "teacher": ..., "dataset": None},
    )
