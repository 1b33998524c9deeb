"""What is known about a run: its state, how far it is, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, get_args

RunState = Literal["queued", "running", "cancelling", "cancelled", "done", "failed", "lost"]

RUN_STATES: tuple[RunState, ...] = get_args(RunState)
#: States of a run that has, or may have, a process.
ACTIVE_STATES: tuple[RunState, ...] = ("running", "cancelling")
#: States of a run that may still change by itself.
LIVE_STATES: tuple[RunState, ...] = ("queued", *ACTIVE_STATES)
#: States from which `fkd.runs.resume_run` goes on.
RESUMABLE_STATES: tuple[RunState, ...] = ("cancelled", "failed", "lost")


@dataclass(frozen=True)
class RunRecord:
    """One run as it stands at the moment of asking.

    Attributes:
        id: readable and unique, ``train-20261121-073012-9f3a`` say.
        kind: registry name of what is run ("train", "copy", "analyse").
        spec: the validated configuration as JSON values.
        title: the run in a few words, for lists.
        state: one of `RUN_STATES`.
        stage: what the run is doing, in its own words; empty before the first report.
        done: units of the stage finished.
        total: units of the stage; 0 before the first report.
        values: the last report's numbers (loss parts, accuracies ...).
        message: how it ended, one sentence; None while it is well.
        result: name of the model, or key of the analysis, once done.
        created: when it was asked for (UTC).
        started: when its latest attempt started (UTC).
        finished: when it ended (UTC).
        heartbeat: last sign of life of its process (UTC).
        pid: its process on ``host``.
        attempt: 1, and 1 more with each `fkd.runs.resume_run`.
        log: name of its log file in the runs folder.
    """

    id: str
    kind: str
    spec: dict[str, Any]
    title: str
    state: RunState
    stage: str = ""
    done: int = 0
    total: int = 0
    values: dict[str, Any] = field(default_factory=dict)
    message: str | None = None
    result: str | None = None
    created: datetime | None = None
    started: datetime | None = None
    finished: datetime | None = None
    heartbeat: datetime | None = None
    host: str | None = None
    pid: int | None = None
    attempt: int = 1
    log: str = ""

    @property
    def has_ended(self) -> bool:
        """Whether nothing more happens unless someone resumes it."""
        return self.state not in LIVE_STATES

    @property
    def can_cancel(self) -> bool:
        """Whether `fkd.runs.cancel_run` would do anything."""
        return self.state in ("queued", "running")

    @property
    def can_resume(self) -> bool:
        """Whether `fkd.runs.resume_run` would go on with it."""
        return self.state in RESUMABLE_STATES

    @property
    def fraction(self) -> float:
        """Share of the present stage that is done, in [0, 1]."""
        return min(1.0, self.done / self.total) if self.total > 0 else 0.0

    @property
    def seconds(self) -> float:
        """Seconds its latest attempt has taken so far, or took."""
        if self.started is None:
            return 0.0
        end = self.finished or datetime.now(UTC)
        return max(0.0, (end - self.started).total_seconds())
