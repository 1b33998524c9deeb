"""A teacher and finished trainings, made once a module, and methods that live as long as a test."""

from __future__ import annotations

from pathlib import Path

import _numpy_reference as reference
import pytest
from _tiny_training import frozen, make_batch, make_mlp, make_spec, tiny_spec

from fkd.distillation import METHODS, Method, train_model, trainer


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """A teacher's folder, made once."""
    folder = tmp_path_factory.mktemp("teachers") / "teacher"
    train_model(tiny_spec(name="teacher"), out=folder)
    return folder


@pytest.fixture
def each_step(monkeypatch):
    """Reports after every step instead of twice a second."""
    monkeypatch.setattr(trainer, "_REPORT_EVERY", -1.0)


@pytest.fixture(scope="module")
def uninterrupted(teacher, tmp_path_factory):
    """The model of each kind of specification, trained in one go, once."""
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = train_model(
                make_spec(kind, teacher), out=tmp_path_factory.mktemp("whole") / kind
            )
        return made[kind]

    return get


@pytest.fixture
def throw_away():
    """Registers a method for the test's time."""
    names = []

    def add(name, **attributes):
        entry = type(name, (Method,), {"__doc__": f"{name} for a test.", **attributes})
        METHODS.register(name)(entry)
        names.append(name)
        return entry

    yield add
    for name in names:
        METHODS.unregister(name)


@pytest.fixture
def case():
    """Teacher, student, batch; both networks and the batch in NumPy."""
    teacher, student, batch = frozen(make_mlp(1, (9,))), make_mlp(2), make_batch()
    x = batch.images.flatten(1).numpy()
    return teacher, student, batch, reference.MLP.of(teacher), reference.MLP.of(student), x
