"""Measure students in all figures, as `fkd.evaluation.score_students` does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fkd.core.progress import ProgressCallback
from fkd.runs.kind import KINDS, RunKind

if TYPE_CHECKING:
    from fkd.evaluation import ScoresConfig


@KINDS.register("score")
class ScoreRun(RunKind):
    """Measure several students of a teacher in the figures by which methods are compared.

    The specification is that of an `fkd.evaluation.ScoresConfig`, with ``students``, a list, in place of
    ``student``.
    """

    is_defined_by_target = True

    def check(self, spec: dict[str, Any]) -> dict[str, Any]:
        """The specification with its defaults, names and counts checked."""
        from fkd.evaluation.config import check_examples

        configs = _configs(spec)
        for config in configs:
            check_examples(config.analysis())
        shared = configs[0].model_dump(mode="json", exclude={"student"})
        return {**shared, "students": [config.student for config in configs]}

    def title(self, spec: dict[str, Any]) -> str:
        """``figures of 2 students of teacher on dataset, epsilon 0.1, 200 examples: a, b``."""
        from fkd.evaluation import group_names

        configs = _configs(spec)
        first = configs[0]
        is_all = list(first.groups) == group_names()
        what = "figures" if is_all else f"figures ({', '.join(first.groups)})"
        students = f"{len(configs)} student{'s' if len(configs) > 1 else ''}"
        return (
            f"{what} of {students} of {first.teacher} on {first.dataset}, {first.ball.describe()}, "
            f"{first.count} examples: {', '.join(config.student for config in configs)}"
        )

    def target(self, spec: dict[str, Any]) -> str:
        """The keys under which the figures will be stored, as one."""
        return f"score:{_key(_configs(spec))}"

    def run(self, spec: dict[str, Any], progress: ProgressCallback) -> str:
        """Measure and store the figures; all students' keys as one."""
        from fkd.evaluation import score_students

        configs = _configs(spec)
        score_students(configs, progress=progress)
        return _key(configs)


def _configs(spec: dict[str, Any]) -> tuple[ScoresConfig, ...]:
    from fkd.core.errors import ConfigError
    from fkd.evaluation import score_configs

    settings = {name: value for name, value in spec.items() if name != "students"}
    students = spec.get("students", [])
    if "student" in settings or not isinstance(students, list | tuple):
        raise ConfigError(
            "The figures of students need a list 'students' of their names; give one."
        )
    return score_configs(settings, students)


def _key(configs: tuple[ScoresConfig, ...]) -> str:
    from fkd.core.hashing import hash_json, short
    from fkd.evaluation import scores_key

    return short(hash_json(sorted(scores_key(config) for config in configs)))
