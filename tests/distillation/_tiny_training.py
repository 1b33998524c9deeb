"""Tiny networks, batches and specifications for the training tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fkd.core.errors import Cancelled
from fkd.distillation import METHODS, Batch, Clock, Method, TrainSpec, train_model, trainer
from fkd.distillation.base import Setting
from fkd.distillation.spec import Plan
from fkd.models import build

#: The end of a run, where every ramp has risen.
AT_THE_END = Clock(step=10, epoch=1, total_steps=10)


def make_method(name: str, **config: Any) -> Method:
    entry = METHODS.get(name)
    return entry(entry.Config.parse(config))


def make_mlp(
    seed: int,
    hidden: tuple[int, ...] = (7, 5),
    *,
    shape: tuple[int, int, int] = (1, 2, 3),
    classes: int = 4,
    gain: float = 1.5,
) -> nn.Module:
    """A float64 network in train mode whose gradients are recorded."""
    network = build(
        "mlp",
        {"hidden": hidden},
        image_shape=shape,
        num_classes=classes,
        mean=[0.4],
        std=[0.5],
        seed=seed,
    ).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(gain)
    return network.train()


def frozen(network: nn.Module) -> nn.Module:
    return network.eval().requires_grad_(False)


def make_batch(
    count: int = 6, shape: tuple[int, int, int] = (1, 2, 3), classes: int = 4, seed: int = 0
) -> Batch:
    """Float64 images, some pixels at the edge of the range so that balls are clipped."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, *shape, generator=generator, dtype=torch.float64)
    images = (1.3 * images - 0.15).clamp(0.0, 1.0)
    labels = torch.randint(classes, (count,), generator=generator)
    return Batch(images, labels, torch.arange(count) + 100, seed=5, step=3)


def tiny_spec(method: str = "standard", teacher: Path | None = None, **values: Any) -> TrainSpec:
    """Three epochs of three steps on 90 digits: a fraction of a second."""
    return TrainSpec.parse(
        {
            "name": "tiny",
            "dataset": "digits",
            "method": method,
            "teacher": None if teacher is None else str(teacher),
            "architecture": "mlp",
            "architecture_config": {"hidden": [8]},
            "epochs": 3,
            "batch_size": 30,
            "learning_rate": 0.01,
            "train_count": 90,
            "report_count": 20,
            "report_steps": 2,
            "device": "cpu",
            **values,
        }
    )


def setting_of(plan: Plan, student: nn.Module) -> Setting:
    """What the trainer would show the plan's method, which is set up with it."""
    split = plan.data_set.load("train")
    setting = Setting(
        teacher=plan.teacher.network if plan.teacher else None,
        student=student,
        images=split.images,
        labels=split.labels,
        example_ids=torch.arange(min(len(split), plan.spec.train_count or len(split))),
        num_classes=plan.data_set.num_classes,
        batch_size=plan.spec.batch_size,
        seed=plan.spec.seed,
    )
    plan.method.set_up(setting)
    return setting


def setting_with(batch: Batch, teacher: nn.Module, student: nn.Module, **values: Any) -> Setting:
    """A setting whose train split is the batch."""
    whole = {
        "teacher": teacher,
        "student": student,
        "images": batch.images,
        "labels": batch.labels,
        "example_ids": torch.arange(len(batch.images)),
        "num_classes": 4,
        "batch_size": 1,
        "seed": 0,
    }
    return Setting(**{**whole, **values})


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    return model.network.state_dict()


def is_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """The same to the bit."""
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


#: Steps of `tiny_spec`: three epochs of three.
STEPS = 9

SPECS = {
    "plain": {},
    "adaptive": {
        "method": "rslad",
        "optimiser": "adamw",
        "weight_decay": 0.01,
        "schedule": "cosine",
    },
    "momentum": {
        "method": "faithful",
        "method_config": {"epsilon": 0.05, "warm_up": 0.2, "ramp": 0.4},
        "optimiser": "sgd",
        "schedule": "steps",
    },
    "residual": {
        "method": "pgd_at",
        "method_config": {"steps": 2},
        "architecture": "resnet_small",
        "architecture_config": {"width": 2},
        "shift": 1,
        "flip": True,
    },
}


def make_spec(kind, teacher, **more):
    values = {**SPECS[kind], **more}
    needs_teacher = METHODS.get(values.get("method", "standard")).role == "student"
    return tiny_spec(teacher=teacher if needs_teacher else None, **values)


class Recorder:
    """Keeps every report; asks to stop where told."""

    def __init__(self, stop=lambda report: False):
        self.reports = []
        self.stop = stop

    def __call__(self, report):
        self.reports.append(report)
        return self.stop(report)


def stop_after(step):
    return lambda report: report.stage == "training" and report.done >= step


def interrupted(spec, out, step=4):
    with pytest.raises(Cancelled), pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "_REPORT_EVERY", -1.0)
        train_model(spec, out=out, progress=Recorder(stop_after(step)))


def without_times(card):
    return card.model_dump(exclude={"name", "seconds", "created"})


def sample(lower, upper, count=300, seed=0):
    """Uniform points and corners of every box (count, N, C, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(count, *lower.shape, generator=generator, dtype=torch.float64)
    share[::2] = (share[::2] > 0.5).double()
    return lower + share * (upper - lower)
