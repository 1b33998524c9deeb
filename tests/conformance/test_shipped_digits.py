"""The shipped digits pairs: who is there, and no contradiction over the radii of the grid."""

import pytest

from fkd.models import list_models
from tests.support.soundness import check_shipped_pair, sampled_students

pytestmark = pytest.mark.slow


def test_both_teachers_and_every_method_are_shipped():
    teachers = {card.method for card in list_models(dataset="digits", role="teacher")}
    assert "pgd_at" in teachers and teachers & {"ibp", "crown_ibp"}
    for teacher in list_models(dataset="digits", role="teacher"):
        if teacher.method == "standard":
            # It is there for plain KD alone.
            continue
        assert teacher.metrics["clean_accuracy"] >= 0.97
        methods = {
            card.method
            for card in list_models(dataset="digits", role="student")
            if card.teacher and card.teacher.model_hash == teacher.model_hash
        }
        assert {"kd", "rslad", "faithful"} <= methods


@pytest.mark.parametrize("student", sampled_students("digits"))
def test_no_witness_exceeds_its_certificate(student):
    check_shipped_pair("digits", student, 240)
