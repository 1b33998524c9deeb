"""Robustness alone is shipped of the models that are looked at first, and a fresh install finds it."""

import pytest

from dashboard import backend
from fkd.core.paths import pretrained_dir
from fkd.evaluation import ROBUSTNESS_FOLDER, find_robustness, robustness_summary, shipped_dir
from fkd.models import read_card
from pretrained.robustness import compared_tables, robustness_tables
from pretrained.specs import zoo
from pretrained.tables import robustness_of
from pretrained.zoo import DATA

CARDS = [
    read_card(member.name)
    for dataset in DATA
    for member in zoo(dataset)
    if (pretrained_dir() / member.name).is_dir() and robustness_of(member)
]


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_a_fresh_install_shows_it_at_once(card):
    [config] = robustness_tables([card.name])
    found = find_robustness(config)
    assert found is not None, "run pretrained/build.py --tables"
    summary = robustness_summary(found.table)
    assert summary.count == 100
    assert summary.robust.value <= min(summary.pgd.value, summary.autoattack.value)
    assert found.metadata["model_hash"] == card.model_hash
    # The same examples attacked by another implementation, on all of the test set.
    measured = card.metrics[f"robust_accuracy_{config.epsilon:g}"]
    assert summary.robust.low - 0.05 <= measured <= summary.robust.high + 0.05


def test_what_is_shipped_is_what_the_page_asks_for_first():
    for dataset in sorted({card.dataset for card in CARDS}):
        teacher, student, epsilon = backend.default_pair(dataset)
        choice = backend.Choice(dataset, teacher, student, epsilon)
        configs = robustness_tables([teacher, student])
        assert [backend.robustness_search(choice, role) for role in backend.ROLES] == configs


def test_nothing_else_is_shipped():
    files = {path.stem for path in (shipped_dir() / ROBUSTNESS_FOLDER).iterdir()}
    shown = {find_robustness(config).key for config in robustness_tables([c.name for c in CARDS])}
    teachers = [card.name for card in CARDS if card.role == "teacher"]
    compared = [find_robustness(config) for config in compared_tables(teachers)]
    assert shown <= files
    assert files - shown <= {found.key for found in compared if found is not None}
