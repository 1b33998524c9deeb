"""The attack stays in the ball, finds what is there, and does not depend on the batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fkd.attacks import ATTACKS, attack_config, make_attack
from fkd.attacks.objectives import Goal, Objective, best_other_margin, confidence, log_odds
from fkd.core.ball import Ball
from fkd.core.errors import Cancelled, ConfigError
from fkd.core.precision import double_copy
from tests.support.networks import PAIRS, make_images, make_linear, make_pair
from tests.support.short_search import SHORT


def _attack(teacher, student, region, classes, seed=0, **settings_):
    return make_attack(attack_config({"name": "pgd", "steps": 20, **settings_})).run(
        teacher, student, region, classes, seed=seed
    )


def _region(images, epsilon):
    return Ball(epsilon=epsilon).region(images, torch.arange(len(images)))


@pytest.mark.parametrize("name", sorted(ATTACKS))
@pytest.mark.parametrize("pair", sorted(PAIRS))
@settings(max_examples=6, deadline=None)
@given(epsilon=st.sampled_from([0.0, 0.003, 0.1, 0.7, 1.0]), seed=st.integers(0, 50))
def test_witnesses_lie_in_the_ball_and_say_what_is_reported(pair, name, epsilon, seed):
    teacher, student, shape, classes = make_pair(pair)
    images = make_images(4, shape, seed)
    labels = torch.arange(4) % classes
    region = _region(images, epsilon)
    result = make_attack(attack_config({"name": name, "steps": 6, **SHORT.get(name, {})})).run(
        teacher, student, region, labels, seed=seed
    )
    for witness in (result.gap_witness, result.disagreement_witness):
        assert (witness >= region.lower).all() and (witness <= region.upper).all()
        assert witness.min() >= 0 and witness.max() <= 1
        assert ((witness - images).abs() <= epsilon + 1e-6).all()
    z_teacher, z_student = (double_copy(n)(result.gap_witness.double()) for n in (teacher, student))
    gap = (confidence(z_teacher, labels) - confidence(z_student, labels)).abs()
    torch.testing.assert_close(gap, result.gap)
    points = result.disagreement_witness.double()
    differ = double_copy(teacher)(points).argmax(1) != double_copy(student)(points).argmax(1)
    assert torch.equal(differ, result.disagrees)


def test_a_disagreement_at_the_image_outlives_one_that_only_float32_saw():
    class Rounded(torch.nn.Module):
        """Rounding at its worst: float32 prefers class 1 above 0.45 and float64 below."""

        def __init__(self):
            super().__init__()
            self.sign = torch.nn.Parameter(torch.ones(1))

        def forward(self, images):
            above = self.sign * (images.flatten(1) - 0.45)
            return torch.cat([0 * above, above if above.dtype == torch.float32 else -above], dim=1)

    class First(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1))

        def forward(self, images):
            one = self.scale + 0 * images.flatten(1)
            return torch.cat([one, 0 * one], dim=1)

    region = _region(torch.full((1, 1, 1, 1), 0.4), 0.1)
    result = _attack(Rounded().eval(), First().eval(), region, torch.zeros(1, dtype=torch.long))
    assert result.disagrees.all() and (result.teacher_pred, result.student_pred) == (1, 0)
    assert torch.equal(result.disagreement_witness, region.images)


def test_never_below_the_clean_gap_and_far_above_it_where_there_is_room():
    teacher, student, shape, classes = make_pair("mlp")
    images = make_images(16, shape)
    labels = torch.arange(16) % classes
    clean = _attack(teacher, student, _region(images, 0.0), labels)
    found = _attack(teacher, student, _region(images, 0.2), labels)
    assert (found.gap >= clean.gap).all()
    assert found.gap.mean() > clean.gap.mean() + 0.05


def test_identical_networks_have_gap_zero_and_never_disagree():
    network, _, shape, classes = make_pair("convolutional")
    images = make_images(8, shape)
    result = _attack(network, network, _region(images, 0.3), torch.arange(8) % classes)
    assert (result.gap == 0).all()
    assert not result.disagrees.any()


def test_swapping_the_networks_leaves_the_gap():
    teacher, student, shape, classes = make_pair("mlp")
    images = make_images(8, shape)
    labels = torch.arange(8) % classes
    forth = _attack(teacher, student, _region(images, 0.1), labels)
    back = _attack(student, teacher, _region(images, 0.1), labels)
    torch.testing.assert_close(forth.gap, back.gap, atol=1e-6, rtol=0)
    assert torch.equal(forth.disagrees, back.disagrees)


def test_an_example_does_not_depend_on_its_batch():
    teacher, student, shape, classes = make_pair("convolutional")
    images = make_images(9, shape)
    labels = torch.arange(9) % classes
    region = _region(images, 0.1)
    whole = _attack(teacher, student, region, labels, restarts=3)
    pieces = _attack(teacher, student, region, labels, restarts=3, rows=1)
    alone = _attack(teacher, student, region[torch.tensor([7])], labels[7:8], restarts=3)
    torch.testing.assert_close(whole.gap, pieces.gap, atol=1e-5, rtol=0)
    torch.testing.assert_close(whole.gap[7:8], alone.gap, atol=1e-5, rtol=0)
    assert torch.equal(whole.disagrees, pieces.disagrees)


def test_the_seed_decides_and_repeats():
    teacher, student, shape, classes = make_pair("mlp")
    images = make_images(8, shape)
    labels = torch.arange(8) % classes
    attack = make_attack(attack_config({"name": "pgd", "restarts": 3}))
    region = _region(images, 0.1)
    first, again, other = (attack.starts(region, 3, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(first.view(8, 3, *shape)[:, 0], images)
    runs = [_attack(teacher, student, region, labels, seed=1) for _ in range(2)]
    assert torch.equal(runs[0].gap_witness, runs[1].gap_witness)


def test_the_optimum_of_a_linear_pair_is_reached():
    """Two linear networks, two classes: a_T - a_S is linear, so its maximum is at a known corner."""
    teacher = make_linear((1, 2, 2), 2, seed=0)
    student = make_linear((1, 2, 2), 2, seed=3)
    region = _region(make_images(6, (1, 2, 2)), 0.2)
    labels = torch.zeros(6, dtype=torch.long)
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4).view(-1, 1, 1, 2, 2)
    points = region.lower + corners * (region.upper - region.lower)
    exact = torch.stack(
        [
            (confidence(teacher(p), labels) - confidence(student(p), labels)).abs()
            for p in points.flatten(1, 2)
        ]
    ).amax(0)
    found = _attack(teacher, student, region, labels, steps=40)
    assert (found.gap >= exact.double() - 1e-5).all()


def test_a_saturated_student_is_still_attacked():
    """Confidences of 0 and 1 have no gradient; log-odds do, and lead to where the student flips."""
    teacher, student, shape, _ = make_pair("mlp")
    images = make_images(12, shape)
    labels = student(images).argmax(1)

    class Saturated(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = student

        def forward(self, x):
            return 4000.0 * self.inner(x)

    region = _region(images, 0.3)
    clean_student = torch.softmax(Saturated()(images), 1).gather(1, labels[:, None])
    assert (clean_student > 0.9999).float().mean() > 0.8
    found = _attack(teacher, Saturated(), region, labels, steps=40)
    generator = torch.Generator().manual_seed(0)
    share = torch.rand(3000, *images.shape, generator=generator)
    points = (region.lower + share * (region.upper - region.lower)).flatten(0, 1)
    each = labels.repeat(3000)
    sampled = (confidence(teacher(points), each) - confidence(Saturated()(points), each)).abs()
    assert (found.gap >= sampled.view(3000, -1).amax(0) - 1e-6).all()
    assert found.disagrees.any()


def test_objectives_by_hand():
    teacher = torch.tensor([[2.0, 0.0, -1.0]], dtype=torch.float64)
    student = torch.tensor([[0.5, 1.0, 0.0]], dtype=torch.float64)
    c = torch.tensor([0])
    p_teacher = torch.softmax(teacher, 1)[0, 0]
    p_student = torch.softmax(student, 1)[0, 0]
    torch.testing.assert_close(confidence(teacher, c)[0], p_teacher)
    torch.testing.assert_close(log_odds(teacher, c)[0], torch.logit(p_teacher))
    assert best_other_margin(teacher, c).item() == -2.0
    expected = {
        Goal.GAP_TEACHER_ABOVE: p_teacher - p_student,
        Goal.GAP_STUDENT_ABOVE: p_student - p_teacher,
        Goal.ODDS_TEACHER_ABOVE: torch.logit(p_teacher) - torch.logit(p_student),
        Goal.ODDS_STUDENT_ABOVE: torch.logit(p_student) - torch.logit(p_teacher),
        Goal.STUDENT_LEAVES: torch.tensor(0.5).double(),
        Goal.TEACHER_LEAVES: torch.tensor(-2.0).double(),
    }
    for goal, value in expected.items():
        objective = Objective(torch.tensor([int(goal)]), c, c)
        torch.testing.assert_close(objective(teacher, student)[0], value)


def test_cancelling_stops_between_chunks():
    teacher, student, shape, classes = make_pair("mlp")
    images = make_images(6, shape)
    seen = []

    def progress(step):
        seen.append(step.done)
        return step.done == 2

    with pytest.raises(Cancelled, match="Stopped during attack after 2 of 6"):
        make_attack(attack_config({"rows": 16})).run(
            teacher,
            student,
            _region(images, 0.1),
            torch.arange(6) % classes,
            seed=0,
            progress=progress,
        )


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"name": "pdg"}, "no attack called 'pdg'; did you mean 'pgd'"),
        ({"steps": 0}, "'steps' is not usable"),
        ({"stepz": 3}, "no setting called 'stepz'"),
    ],
)
def test_bad_settings_are_one_sentence(values, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        attack_config(values)
    assert "\n" not in str(caught.value)


def test_progress_moves_within_a_chunk_and_can_cancel_there():
    teacher, student, shape, _ = make_pair("mlp")
    region = _region(make_images(20, shape), 0.1)
    classes = torch.zeros(20, dtype=torch.int64)
    attack = make_attack(attack_config({"name": "pgd", "steps": 9}))
    seen = []

    def stop_half_way(progress):
        seen.append(progress.done)
        return progress.done >= 10

    with pytest.raises(Cancelled):
        attack.run(teacher, student, region, classes, seed=0, progress=stop_half_way)
    assert seen == [0, 2, 4, 6, 8, 10]


def test_the_search_tells_of_every_step_and_never_goes_back():
    teacher, student, shape, _ = make_pair("mlp")
    region = _region(make_images(20, shape), 0.1)
    classes = torch.zeros(20, dtype=torch.int64)
    seen = []

    def listen(progress):
        seen.append(progress.done)
        return len(seen) == 25

    with pytest.raises(Cancelled):
        make_attack(attack_config({"name": "search"})).run(
            teacher, student, region, classes, seed=0, progress=listen
        )
    assert len(seen) == 25
    assert seen == sorted(seen)
