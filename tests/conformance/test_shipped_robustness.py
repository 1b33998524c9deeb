"""Robustness alone is shipped of the models that are looked at first or compared, and nothing else."""

import pytest

from dashboard import backend
from fkd.core.paths import pretrained_dir
from fkd.evaluation import (
    ROBUSTNESS_FOLDER,
    find_robustness,
    find_scores,
    robustness_summary,
    shipped_dir,
)
from fkd.models import read_card
from pretrained.robustness import robustness_tables
from pretrained.specs import zoo
from pretrained.tables import robustness_of, scores_of
from pretrained.zoo import COUNT, DATA

MEMBERS = [
    member
    for dataset in DATA
    for member in zoo(dataset)
    if (pretrained_dir() / member.name).is_dir() and robustness_of(member)
]
#: Radii differ between what is shown first and what is compared.
SHOWN = [
    read_card(member.name)
    for member in MEMBERS
    if set(robustness_tables([member.name])) <= set(robustness_of(member))
]
COMPARED = [
    (config, scores_of(member))
    for member in MEMBERS
    for config in robustness_of(member)
    if config.count == COUNT
]


@pytest.mark.parametrize("card", SHOWN, ids=lambda card: card.name)
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


@pytest.mark.parametrize("compared", COMPARED, ids=lambda compared: compared[0].model)
def test_what_is_compared_is_the_leaderboards_image_by_image(compared):
    config, scores = compared
    found = find_robustness(config)
    assert found is not None, "run pretrained/build.py --tables"
    assert len(found.table) == COUNT
    if scores is not None:
        stored = find_scores(scores).table.set_index("figure")["value"]
        assert found.table["robust"].mean() == stored["robust_accuracy"]
        assert found.table["robust_pgd"].mean() == stored["pgd_accuracy"]


def test_what_is_shipped_is_what_the_page_asks_for_first():
    for dataset in sorted({card.dataset for card in SHOWN}):
        teacher, student, epsilon = backend.default_pair(dataset)
        choice = backend.Choice(dataset, teacher, student, epsilon)
        configs = robustness_tables([teacher, student])
        assert [backend.robustness_search(choice, role) for role in backend.ROLES] == configs


def test_nothing_else_is_shipped():
    files = {path.stem for path in (shipped_dir() / ROBUSTNESS_FOLDER).iterdir()}
    assert files == {find_robustness(c).key for m in MEMBERS for c in robustness_of(m)}
