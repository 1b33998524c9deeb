"""Runs: starting, watching and stopping them, and the forms that describe them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from dashboard.backend.choice import Choice
from dashboard.backend.forms import Field, fields_of
from fkd import runs
from fkd.core.errors import RunError
from fkd.core.paths import home_dir
from fkd.runs import RunRecord

#: Settings of a training run that have a place of their own in the form, or none.
_PLACED = frozenset(
    {
        "name",
        "dataset",
        "architecture",
        "architecture_config",
        "method",
        "method_config",
        "teacher",
    }
)
#: The same of a copy.
_PLACED_IN_COPIES = frozenset({"name", "teacher", "method", "method_config"})
#: Kinds of run that make a model.
_MAKING = ("train", "copy")
#: Settings of the training itself that most people look at.
_BASIC = frozenset({"epochs", "learning_rate", "batch_size", "seed"})

_LONG_AGO = datetime.min.replace(tzinfo=UTC)
#: Columns of a history that say where the training is, not how well it does.
_NO_CURVES = frozenset(
    {"time", "attempt", "stage", "done", "total", "epoch", "epochs", "learning_rate", "epsilon"}
)


def is_read_only() -> bool:
    """Whether this server starts no runs (``FKD_READ_ONLY=1``)."""
    return os.environ.get("FKD_READ_ONLY", "").strip().lower() in ("1", "true", "yes")


def check_may_start() -> None:
    """Refuse on a server that only shows results.

    Raises:
        RunError: it is one.
    """
    if is_read_only():
        raise RunError(
            "This dashboard only shows results (FKD_READ_ONLY is set); start runs on your own copy."
        )


def log_folder() -> Path:
    """Where the dashboard's own log lies."""
    return home_dir() / "logs"


def start_analysis(choice: Choice) -> str:
    """Start the run that answers a choice; its id.

    Raises:
        FkdError: it cannot be analysed.
    """
    check_may_start()
    return runs.start_run("analyse", choice.config().model_dump(mode="json"))


def keeps_finished(choice: Choice) -> bool:
    """Whether an analysis at the choice's level keeps the images that are finished when it is stopped."""
    from fkd.bounds import CERTIFICATES

    return CERTIFICATES.get(choice.level).is_resumable


def finished_images(choice: Choice) -> int:
    """How many images are kept from an analysis of the choice that was stopped.

    Raises:
        FkdError: the choice names something that does not exist or does not fit.
    """
    from fkd.evaluation import finished_examples

    return finished_examples(choice.config())


def live_analysis(choice: Choice) -> RunRecord | None:
    """The newest run of exactly this choice, unless it is done."""
    return live_run("analyse", choice.config().model_dump(mode="json"))


def live_run(kind: str, spec: dict[str, Any]) -> RunRecord | None:
    """The newest run of exactly this specification, unless it is done."""
    for record in runs.list_runs(50, kind):
        if record.spec == spec:
            return record if record.state != "done" else None
    return None


#: So many of a run's latest reports are read for its live bracket: minutes of them.
_LATEST = 2000
#: Among so many of the last reports every example that is being searched has one.
_TOGETHER = 16


@dataclass(frozen=True)
class LiveBracket:
    """The bracket of one example of a run that searches, as it has closed so far.

    Attributes:
        example: its position.
        is_in_work: whether it has reported since the last example was done; otherwise it is the one that
            reported last, and the next is being prepared.
        done: examples done, as the run's record says.
        total: of so many.
        history: one row a report, oldest first: ``seconds`` (spent on it), ``lower``, ``upper`` (of the
            largest gap), ``width`` (what is open between them), ``open`` and ``evaluated`` (parts of the
            ball).
    """

    example: int
    is_in_work: bool
    done: int
    total: int
    history: pd.DataFrame


def live_bracket(record: RunRecord) -> LiveBracket | None:
    """The bracket that a run's certificate is at, as of the record; None where it reports none.

    Args:
        record: what else is shown of the run: of reports that came after it nothing is said, so that the
            progress bar and the bracket tell of one moment.
    """
    # Any other stage is about the whole table.
    if record.stage != "certificate":
        return None
    history = runs.run_history(record.id, last=_LATEST)
    if not {"example", "lower", "upper"} <= set(history.columns):
        return None
    history = history[
        (history["stage"] == "certificate")
        & (history["attempt"] == record.attempt)
        & (history["done"] <= record.done)
        & history["upper"].notna()
        & history["lower"].notna()
    ]
    if history.empty:
        return None
    # Who has not reported since the count rose may be the one that is done.
    since = history[history["done"] == record.done].tail(_TOGETHER)
    if since.empty:
        example = history["example"].iloc[-1]
    else:
        # Several examples are searched side by side: the one begun first is shown until it is done.
        begun = history["time"] - pd.to_timedelta(history["seconds"], unit="s")
        example = begun.groupby(history["example"]).min()[since["example"].unique()].idxmin()
    columns = ["seconds", "lower", "upper", "open", "evaluated"]
    latest = history[history["example"] == example].reindex(columns=columns).reset_index(drop=True)
    return LiveBracket(
        example=int(example),
        is_in_work=not since.empty,
        done=record.done,
        total=record.total,
        history=latest.assign(width=(latest["upper"] - latest["lower"]).clip(lower=0.0)),
    )


def start_training(spec: dict[str, Any]) -> str:
    """Start a training or distillation run; its id.

    Raises:
        FkdError: the specification cannot be used.
    """
    check_may_start()
    return runs.start_run("train", spec)


def start_copy(spec: dict[str, Any]) -> str:
    """Start the run that makes a copy of a model with altered weights; its id.

    Raises:
        FkdError: the specification cannot be used.
    """
    check_may_start()
    return runs.start_run("copy", spec)


def get_run(run_id: str) -> RunRecord:
    """A run as it stands.

    Raises:
        RunError: there is none of that id.
    """
    return runs.get_run(run_id)


def recent_runs(limit: int = 50) -> list[RunRecord]:
    """The latest runs that make a model, newest first."""
    found = [record for kind in _MAKING for record in runs.list_runs(limit, kind)]
    return sorted(found, key=lambda record: record.created or _LONG_AGO, reverse=True)[:limit]


def cancel_run(run_id: str) -> None:
    """Ask a run to stop.

    Raises:
        RunError: it has ended already.
    """
    check_may_start()
    runs.cancel_run(run_id)


def resume_run(run_id: str) -> None:
    """Go on with a run that was cancelled, failed or got lost.

    Raises:
        RunError: it is live or done.
    """
    check_may_start()
    runs.resume_run(run_id)


def run_log(run_id: str, lines: int = 50) -> str:
    """The end of the run's log."""
    return runs.run_log(run_id, lines)


def run_label(record: RunRecord) -> str:
    """A run that makes a model, in words: its name, its state, when it was asked for (local time)."""
    words = [str(record.spec.get("name", record.title)), record.state]
    if record.created is not None:
        words.append(f"{record.created.astimezone():%d %b, %H:%M:%S}")
    return " · ".join(words)


def training_history(run_id: str) -> tuple[pd.DataFrame, list[str], list[str]]:
    """What a training reported, by step (column ``done``), and what of it to draw.

    Returns:
        The history; its columns that lie in [0, 1] (accuracies, gaps, shares); those that are the loss
        and its parts.
    """
    history = runs.run_history(run_id)
    if history.empty:
        return history, [], []
    history = _one_kind(history[history["stage"] == "training"])
    numbers = [
        column
        for column in history.columns
        if column not in _NO_CURVES
        and pd.api.types.is_numeric_dtype(history[column])
        and history[column].notna().any()
    ]
    shares = [column for column in numbers if column.endswith(("accuracy", "gap", "share"))]
    return history, shares, [column for column in numbers if column not in shares]


def _one_kind(history: pd.DataFrame) -> pd.DataFrame:
    """Values of single steps or means over epochs, whichever are more, in columns that have both.

    The rows at epochs' ends are those with an accuracy.  Drawn as one line, an early epoch's mean would
    stand out from the steps beside it like a failure of the training.
    """
    if "clean_accuracy" not in history:
        return history
    is_mean = history["clean_accuracy"].notna()
    rare = is_mean if is_mean.sum() <= (~is_mean).sum() else ~is_mean
    mixed = [
        column
        for column in history.columns
        if column not in _NO_CURVES
        and history.loc[is_mean, column].notna().any()
        and history.loc[~is_mean, column].notna().any()
    ]
    history = history.copy()
    history.loc[rare, mixed] = None
    return history


def made_pair(record: RunRecord) -> dict[str, str] | None:
    """Data set, teacher and student to choose once the run is done; None where it made no student."""
    from fkd.models import list_models

    card = next((card for card in list_models() if card.name == record.result), None)
    if card is None or card.teacher is None:
        return None
    teachers = {teacher.name for teacher in list_models(card.dataset, "teacher")}
    if card.teacher.name not in teachers:
        # The copy of a student: the pages show teachers only.
        return None
    return {"dataset": card.dataset, "teacher": card.teacher.name, "student": card.name}


def free_name(*parts: str) -> str:
    """A name from these parts for a new model that no model has yet, nor one that a run is to make."""
    from fkd.models import damaged_models, list_models

    taken = {card.name for card in list_models()} | damaged_models().keys()
    taken |= {str(record.spec.get("name")) for record in recent_runs()}
    stem = "-".join(parts).replace("_", "-")
    number = 1
    while f"{stem}-{number}" in taken:
        number += 1
    return f"{stem}-{number}"


def methods(role: str) -> dict[str, str]:
    """Training methods that make a teacher or a student: name and title."""
    from fkd.distillation import METHODS

    entries = {name: METHODS.get(name) for name in METHODS}
    return {name: entry.title for name, entry in entries.items() if entry.role == role}


def copyings() -> dict[str, str]:
    """Ways of copying a model: name and title."""
    from fkd.distillation import COPIES

    return {name: COPIES.get(name).title for name in COPIES}


def architectures() -> dict[str, str]:
    """Architectures: name and first line of their description."""
    from fkd.models import ARCHITECTURES

    return ARCHITECTURES.available()


def default_architecture() -> str:
    """The architecture a training uses unless told otherwise."""
    from fkd.distillation import TrainSpec

    return str(TrainSpec.model_fields["architecture"].default)


def training_fields(method: str, architecture: str) -> dict[str, list[Field]]:
    """The form of a training run: fields of the method, the architecture, and the training itself.

    What most people set is under "training", the rest of it under "details".

    Raises:
        ConfigError: an unknown name.
    """
    from fkd.distillation import METHODS, TrainSpec
    from fkd.models import ARCHITECTURES

    fields = fields_of(TrainSpec, leave_out=_PLACED)
    return {
        "method": fields_of(METHODS.get(method).Config),
        "architecture": fields_of(ARCHITECTURES.get(architecture).Config),
        "training": [field for field in fields if field.name in _BASIC],
        "details": [field for field in fields if field.name not in _BASIC],
    }


def copy_fields(method: str) -> dict[str, list[Field]]:
    """The form of a copy: fields of the way of copying, and of how the copy is measured.

    Raises:
        ConfigError: an unknown name.
    """
    from fkd.distillation import COPIES, CopySpec

    return {
        "method": fields_of(COPIES.get(method).Config),
        "details": fields_of(CopySpec, leave_out=_PLACED_IN_COPIES),
    }
