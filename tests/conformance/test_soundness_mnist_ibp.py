"""Every student of the MNIST teacher ibp: 500 examples over the radii of the grid, no contradiction."""

import pytest

from tests.support.soundness import check_shipped_pair, students_of

# A file for each teacher: the test processes share files out, and these take longest.
TEACHER = "mnist-teacher-ibp"


@pytest.mark.slow
@pytest.mark.parametrize("student", students_of(TEACHER))
def test_no_witness_exceeds_its_certificate(student, real_data_dir):
    check_shipped_pair("mnist", TEACHER, student)


def test_every_method_has_a_student():
    assert len(students_of(TEACHER)) >= 3
