"""A teacher and two students small enough to try witnesses in tests, and a transfer of them."""

from __future__ import annotations

from tests.support.pairs import save_digits_model

QUICK = {
    "dataset": "digits",
    "teacher": "big",
    "students": ["near", "other"],
    "epsilon": 0.08,
    "count": 16,
    "attack": {"steps": 5},
}


def save_students() -> None:
    """Save the models that `QUICK` names into ``models_dir()``."""
    save_digits_model("big", "teacher", hidden=(16,), seed=0)
    save_digits_model("near", "student", hidden=(10,), seed=1)
    save_digits_model("other", "student", hidden=(12,), seed=2)
