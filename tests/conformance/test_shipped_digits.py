"""Every shipped digits pair: 500 examples, every radius of the grid, no contradiction."""

import pytest

from fkd.models import list_models, read_card
from tests.support.soundness import check_shipped_pair

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
    check_shipped_pair("digits", read_card(student).teacher.name, student, [epsilon])
