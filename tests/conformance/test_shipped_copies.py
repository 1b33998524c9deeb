"""The shipped rounded and pruned students: made of their teachers' weights as their cards say."""

import pytest
import torch

from fkd.core.paths import pretrained_dir
from fkd.distillation import COPIES, CopySpec
from fkd.distillation.copies.base import weighted_layers
from fkd.distillation.copies.make import altered
from fkd.models import list_models, load_model, read_card
from pretrained.specs import is_current, zoo
from pretrained.tables import analyses_of
from pretrained.zoo import COPIED as COPIED_SETS
from pretrained.zoo import TEACHERS as ROWS

SHIPPED = [card for card in list_models() if (pretrained_dir() / card.name).is_dir()]
#: Those that have copies.
TEACHERS = [
    card.name
    for card in SHIPPED
    if card.role == "teacher"
    and card.dataset in COPIED_SETS
    and ROWS[card.name.rsplit("-", 1)[1]].has_copies
]
COPIED = [card.name for card in SHIPPED if card.method in COPIES]


@pytest.mark.parametrize("teacher", TEACHERS)
def test_every_teacher_has_a_rounded_and_a_pruned_student(teacher):
    kinds = {
        (read_card(name).method, *sorted(read_card(name).method_config.items()))
        for name in COPIED
        if read_card(name).teacher.name == teacher
    }
    assert ("quantised", ("bits", 8), ("granularity", "channel")) in kinds
    assert ("pruned", ("share", 0.3)) in kinds


@pytest.mark.parametrize("name", COPIED)
def test_weights_are_the_teachers_altered_to_the_bit(name):
    student = load_model(name)
    card = student.card
    teacher = load_model(card.teacher.name)
    assert card.teacher.model_hash == teacher.model_hash
    entry = COPIES.get(card.method)
    made = altered(teacher.network, entry(entry.Config.parse(card.method_config))).state_dict()
    found = student.network.state_dict()
    assert made.keys() == found.keys()
    assert all(torch.equal(made[key], found[key]) for key in made)


@pytest.mark.parametrize("name", COPIED)
def test_weights_are_what_the_name_promises(name):
    weights = [layer.weight for layer in weighted_layers(load_model(name).network)]
    if read_card(name).method == "pruned":
        zeros = sum(int((weight == 0).sum()) for weight in weights)
        assert zeros / sum(weight.numel() for weight in weights) == pytest.approx(0.3, abs=1e-4)
    else:
        for weight in weights:
            for channel in weight.flatten(1).double():
                steps = channel / (channel.abs().max() / 127)
                assert (steps - steps.round()).abs().max() < 1e-3


@pytest.mark.parametrize("name", COPIED)
def test_little_is_lost_to_the_teacher(name):
    metrics = read_card(name).metrics
    teachers = read_card(read_card(name).teacher.name).metrics
    assert metrics["teacher_agreement"] >= 0.99
    assert metrics["clean_accuracy"] >= teachers["clean_accuracy"] - 0.005
    assert metrics.keys() == teachers.keys() | {"teacher_agreement"}


@pytest.mark.parametrize("dataset", ["digits", "mnist"])
def test_the_build_script_makes_them_and_their_tables(dataset):
    members = [member for member in zoo(dataset) if isinstance(member.spec, CopySpec)]
    assert {member.name for member in members} == {n for n in COPIED if n.startswith(dataset)}
    for member in members:
        assert is_current(member.spec)
        configs = analyses_of(member)
        assert {(c.teacher, c.dataset) for c in configs} == {(member.teacher, dataset)}
        assert sorted(config.epsilon for config in configs) == [0.02, 0.05, 0.1]
