"""The shipped MNIST pairs and their tables, re-attacked (soundness: test_soundness_mnist.py)."""

import pytest
import torch

from fkd.attacks import attack_config, make_attack
from fkd.core.ball import Ball
from fkd.data import load_split
from fkd.evaluation import find_analysis, list_analyses
from fkd.models import list_models, load_model
from tests.support.soundness import sampled_students

STUDENTS = sampled_students("mnist")
TABLES = [entry for entry in list_analyses(dataset="mnist") if entry.is_shipped]


def test_both_teachers_and_every_method_are_shipped():
    teachers = list_models(dataset="mnist", role="teacher")
    assert {"pgd_at"} < {card.method for card in teachers}
    for teacher in teachers:
        assert teacher.metrics["clean_accuracy"] >= 0.98
    assert set(STUDENTS) <= {card.name for card in list_models(dataset="mnist", role="student")}


@pytest.mark.parametrize("student", STUDENTS)
@pytest.mark.parametrize("epsilon", [0.05, 0.1])
def test_every_pair_ships_its_tables_without_images(student, epsilon):
    found = [e for e in TABLES if e.config.student == student and e.config.epsilon == epsilon]
    assert found, f"no shipped table of {student} at {epsilon}"
    analysis = find_analysis(found[0].config)
    assert analysis is not None, "the shipped table's key is stale: rebuild it"
    assert len(analysis.table) >= 200
    assert not analysis.witnesses
    assert (analysis.table.gap_attack <= analysis.table.gap_certified + 1e-6).all()
    assert not (analysis.table.disagrees & analysis.table.agrees_certified).any()


#: One radius each, taking turns: all radii and all students of the sample come up.
SAMPLED = [
    next(
        entry
        for entry in TABLES
        if entry.config.student == student and entry.config.epsilon == (0.02, 0.05, 0.1)[turn % 3]
    )
    for turn, student in enumerate(sampled_students("mnist"))
]


@pytest.mark.parametrize("entry", SAMPLED, ids=lambda e: f"{e.config.student}-{e.config.epsilon}")
def test_a_fresh_attack_does_not_break_a_shipped_certificate(entry, real_data_dir):
    table = find_analysis(entry.config).table.head(100)
    teacher, student = load_model(entry.config.teacher), load_model(entry.config.student)
    split = load_split("mnist", "test")
    ids = torch.tensor(table["index"].to_numpy())
    images, labels = split.take(ids)
    region = Ball(epsilon=entry.config.epsilon).region(images, ids)
    attack = make_attack(attack_config({"name": "pgd", "steps": 20, "restarts": 2}))
    found = attack.run(teacher.network, student.network, region, labels, seed=12345)
    assert (found.gap.numpy() <= table.gap_certified.to_numpy() + 1e-6).all()
    assert not (found.disagrees.numpy() & table.agrees_certified.to_numpy()).any()
