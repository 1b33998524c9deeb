"""Every shipped digits pair: 500 examples, every radius of the grid, no contradiction."""

import pytest

from fkd.data import load_split
from fkd.models import list_models, load_model
from tests.support.soundness import attack_and_certify, count_violations, spread_region

EPSILONS = (0.02, 0.05, 0.1, 0.2)
STUDENTS = [card.name for card in list_models(dataset="digits", role="student") if card.teacher]


def test_both_teachers_and_every_method_are_shipped():
    teachers = {card.method for card in list_models(dataset="digits", role="teacher")}
    assert "pgd_at" in teachers and teachers & {"ibp", "crown_ibp"}
    for teacher in list_models(dataset="digits", role="teacher"):
        assert teacher.metrics["clean_accuracy"] >= 0.97
        methods = {
            card.method
            for card in list_models(dataset="digits", role="student")
            if card.teacher and card.teacher.model_hash == teacher.model_hash
        }
        assert {"kd", "rslad", "faithful"} <= methods


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("student", STUDENTS)
def test_no_witness_exceeds_its_certificate(student, epsilon):
    model = load_model(student)
    teacher = load_model(model.card.teacher.name)
    split = load_split("digits", "test")
    assert len(split) >= 500
    region = spread_region(split, 500, [epsilon])
    attacked, certified = attack_and_certify(
        teacher.network, model.network, region, split.labels[:500]
    )
    count = count_violations(attacked, certified)
    assert (count.gap_violations, count.agreement_violations) == (0, 0), count
    if epsilon == min(EPSILONS):
        # A certificate of 1 everywhere would be sound and useless.
        assert certified.gap.mean() < 0.6
