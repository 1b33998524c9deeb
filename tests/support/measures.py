"""Measures of the small pair in `tests.support.transfers`, searched for a moment only."""

from __future__ import annotations

SEARCH = {"steps": 3, "starts": 1, "copies": 1, "budget": 12}
QUICK = {
    "dataset": "digits",
    "teacher": "big",
    "student": "near",
    "epsilon": 0.08,
    "count": 12,
    "attack": SEARCH,
}
