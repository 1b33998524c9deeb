"""Making a copy: alter the weights, measure, save with a card like a distilled student's."""

from __future__ import annotations

import copy
import datetime
import time
from pathlib import Path

import torch
from torch import nn

from fkd.core.device import choose_device
from fkd.core.paths import models_dir
from fkd.core.progress import ProgressCallback, report
from fkd.core.versions import package_versions
from fkd.distillation._report import final_metrics
from fkd.distillation.copies.base import Copying, weighted_layers
from fkd.distillation.copies.spec import CopyPlan, CopySpec, check_copy
from fkd.models import (
    Model,
    ModelCard,
    ParentTeacher,
    alter_onnx,
    check_new_model,
    load_model,
    network_from_onnx,
    save_model,
    save_onnx,
)
from fkd.records import ensure_writable


def copy_model(
    spec: CopySpec, *, out: Path | None = None, progress: ProgressCallback | None = None
) -> Model:
    """Make a student of the teacher's shape by altering its weights, measure it and save it.

    The weights are altered on the CPU, so the same specification gives the same bits everywhere; the
    card's accuracies are measured as those of a distilled student.

    Args:
        spec: what to copy, and how.
        out: the copy's folder; None takes `models_dir` / ``spec.name``.
        progress: called while measuring; returning True stops.

    Returns:
        The saved model.  If ``out`` holds the same specification's copy of the same teacher already,
        that model.

    Raises:
        ConfigError: the specification does not fit together or the name is taken.
        CheckpointError: the teacher's files are damaged.
        StoreError: the folder cannot be written (found out before the work).
        UnsupportedModelError: an ONNX graph that cannot be run or has no constant weights.
        DataError: the data set is absent or damaged.
        Cancelled: the callback asked to stop; nothing is left behind.

    Example:
        >>> from fkd.distillation import CopySpec, copy_model
        >>> spec = CopySpec(name="rounded", teacher="digits-teacher-pgd", report_count=100)
        >>> copy_model(spec).card.method  # doctest: +SKIP
        'quantised'
    """
    started = time.monotonic()
    plan = check_copy(spec)
    out = models_dir() / spec.name if out is None else Path(out)
    if _is_finished(plan, out):
        return load_model(out)
    check_new_model(out)
    # Float32 weights, and as much again for the card and whatever else a folder needs.
    size = 4 * plan.teacher.card.parameters + 2**20
    ensure_writable(out.absolute().parent, size, f"The model '{out.name}'")
    # Only now: a line of progress before the sentence of a refusal would confuse.
    report(progress, "preparing", 0, 1)
    content = None
    if plan.teacher.card.architecture == "onnx":
        network, content = altered_onnx(plan.teacher, plan.copying)
    else:
        network = altered(plan.teacher.network, plan.copying)
    place = choose_device(spec.device)
    metrics = final_metrics(
        copy.deepcopy(network).to(place),
        plan.teacher.network.to(place),
        plan.data_set.load("test"),
        epsilons=plan.report_epsilons,
        count=spec.report_count,
        steps=spec.report_steps,
        seed=spec.seed,
        progress=progress,
    )
    card = _card(plan, metrics, str(place), time.monotonic() - started)
    if content is not None:
        return save_onnx(out, network, content, card)
    return save_model(out, network, card)


def altered(network: nn.Module, copying: Copying) -> nn.Module:
    """A copy of the network with altered weights; the network itself is left as it is."""
    twin = copy.deepcopy(network)
    layers = weighted_layers(twin)
    with torch.no_grad():
        weights = copying.alter([layer.weight.detach() for layer in layers])
        for layer, weight in zip(layers, weights, strict=True):
            layer.weight.copy_(weight)
    return twin


def altered_onnx(model: Model, copying: Copying) -> tuple[nn.Module, bytes]:
    """The network and the graph of an ONNX model with altered weights.

    Raises:
        CheckpointError: the file can no longer be read.
        UnsupportedModelError: no layer has a constant weight.
    """
    card = model.card
    content = alter_onnx(model.path.read_bytes(), copying.alter, model.name)
    return network_from_onnx(
        content,
        image_shape=card.image_shape,
        num_classes=card.num_classes,
        mean=card.mean,
        std=card.std,
        shown=model.name,
    )


def _is_finished(plan: CopyPlan, out: Path) -> bool:
    """Whether ``out`` holds what the plan would make; a name alone does not fix the teacher."""
    if not (out / "card.json").is_file():
        return False
    card = load_model(out).card
    return (
        card.training_config == plan.spec.model_dump(mode="json")
        and card.teacher is not None
        and card.teacher.model_hash == plan.teacher.model_hash
    )


def _card(plan: CopyPlan, metrics: dict[str, float], device: str, seconds: float) -> ModelCard:
    spec, source = plan.spec, plan.teacher.card
    return ModelCard(
        name=spec.name,
        role="student",
        dataset=source.dataset,
        method=spec.method,
        method_config=plan.copying.config.model_dump(mode="json"),
        training_config=spec.model_dump(mode="json"),
        architecture=source.architecture,
        architecture_config=source.architecture_config,
        image_shape=source.image_shape,
        num_classes=source.num_classes,
        mean=source.mean,
        std=source.std,
        seed=spec.seed,
        teacher=ParentTeacher(name=source.name, model_hash=source.model_hash),
        metrics=metrics,
        versions=package_versions(),
        device=device,
        seconds=round(seconds, 1),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
