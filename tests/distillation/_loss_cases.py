"""A pair of tiny networks, and what the tests of several methods' losses compute from it by NumPy."""

from __future__ import annotations

import _numpy_reference as reference
import numpy as np
import pytest
from scipy.stats import norm

from fkd.core.seeding import uniform_noise
from fkd.distillation.base import _STREAMS_PER_STEP


def starts(batch, epsilon, kind):
    """The attack's first points, from the same uniform numbers."""
    u = uniform_noise(
        batch.example_ids, (6,), seed=batch.seed, stream=batch.step * _STREAMS_PER_STEP
    )
    u = u.double().numpy()
    x = batch.images.flatten(1).numpy()
    return x + epsilon * (2 * u - 1) if kind == "uniform" else x + 0.001 * norm.ppf(u + 2.0**-25)


def one_hot(labels):
    return np.eye(4)[labels]


def check(parts, **expected):
    """Named parts and their sum, nothing else."""
    assert set(parts) == {*expected, "total"}
    for name, value in expected.items():
        assert parts[name].item() == pytest.approx(value, rel=1e-6, abs=1e-9), name
    assert parts["total"].item() == pytest.approx(sum(expected.values()), rel=1e-6)


def worst_cross_entropy(upper_margins):
    """Labels' class has logit 0, every other its upper margin."""
    return float(np.mean(np.log1p(np.exp(upper_margins).sum(1))))


def joint_gradient(np_teacher, np_student):
    """Gradient in x of KL(p^T(x) || p^S(x)), both moving."""

    def gradient(x):
        p, q = reference.softmax(np_teacher.logits(x)), reference.softmax(np_student.logits(x))
        ratio = np.log(p / q)
        of_teacher = p * (ratio - (p * ratio).sum(1, keepdims=True))
        return np_teacher.pull_back(x, of_teacher) + np_student.pull_back(x, q - p)

    return gradient


def reference_gaps(np_teacher, np_student, x, epsilon, classes, relaxation):
    """The two certified one-sided gaps of every example, (N, 2)."""
    low, high = reference.box(x, epsilon)
    margins, rows = {}, {}
    for name, net in (("t", np_teacher), ("s", np_student)):
        lower, upper = net.interval_margins(low, high, classes)
        # The teacher's bounds are intervals but for joint.
        if relaxation == "joint" or (relaxation == "crown_ibp" and name == "s"):
            up = net.linear_margins(low, high, classes, 1)
            down = net.linear_margins(low, high, classes, -1)
            upper = np.minimum(upper, reference.concretise(up, low, high))
            lower = np.maximum(lower, -reference.concretise(down, low, high))
            if relaxation == "joint":
                rows[name] = (up, down)
        margins[name] = (lower, upper)
    sides = []
    for p, q in (("t", "s"), ("s", "t")):
        highest = -reference.log_sum_exp(margins[p][0])
        lowest = -reference.log_sum_exp(margins[q][1])
        differences = [None] * len(x)
        if rows:
            # a_P - a_Q <= max_j sup(m^Q_j - m^P_j), rows added before they are maximised.
            added = [(a + b, c + d) for (a, c), (b, d) in zip(rows[q][0], rows[p][1], strict=True)]
            differences = reference.concretise(added, low, high).max(1)
        sides.append(
            [
                reference.largest_gap(*values)
                for values in zip(highest, lowest, differences, strict=True)
            ]
        )
    return np.array(sides).T
