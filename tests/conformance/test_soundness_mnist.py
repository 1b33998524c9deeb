"""MNIST pairs over the radii of the grid: no witness above a certificate, none against a proof."""

import pytest

from tests.support.soundness import check_shipped_pair, sampled_students

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("student", sampled_students("mnist"))
def test_no_witness_exceeds_its_certificate(student, real_data_dir):
    check_shipped_pair("mnist", student, 80)
