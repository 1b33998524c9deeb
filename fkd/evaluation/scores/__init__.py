"""Figures of a student, in groups: one file a group, found by walking this package.

A new group is one new file with a `ScoreGroup` that registers in `SCORES`.
"""

from fkd.evaluation.scores._base import (
    SCORES,
    Better,
    Figure,
    GroupScores,
    Score,
    ScoreGroup,
    all_figures,
    group_names,
    group_of,
)

__all__ = [
    "SCORES",
    "Better",
    "Figure",
    "GroupScores",
    "Score",
    "ScoreGroup",
    "all_figures",
    "group_names",
    "group_of",
]
