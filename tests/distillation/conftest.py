"""A teacher and finished trainings, made once a module, and methods that live as long as a test."""

from __future__ import annotations

from pathlib import Path

import pytest
from _tiny_training import make_spec, tiny_spec

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
