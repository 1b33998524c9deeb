"""The shipped tables of standard robustness: models alone, at the radius shown first.

They make the page *Disagreements* show something at once for the pairs that are looked at first: a minute
or two each is too dear for the whole zoo.  Those whose accuracy under attack a claim compares are also
kept as the leaderboard measures students, image by image: two models are told apart better on the same
images than as two shares.  What is there is kept, so an interrupted build goes on with the next model.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from fkd.evaluation import (
    ROBUSTNESS_FOLDER,
    ResolvedModel,
    RobustnessConfig,
    measure_robustness,
    robustness_key,
    robustness_summary,
    shipped_dir,
)
from fkd.models import read_card
from pretrained.zoo import COUNT, DATA

LOG = logging.getLogger("build")

#: Ways of making a student whose students of seed 0 are measured alone; teachers all are.
SHOWN_ALONE = ("kd", "rslad", "faithful", "certified_gap", "8bit", "pruned")
#: Ways of making a student whose accuracy under attack claims compare, with each other or the teacher.
COMPARED = ("kd", "kdiga", "kdiga_a", "cckd_l", "cckd_t", "cckd_l_sr", "cckd_t_sr")


def shown_epsilon(dataset: str) -> float:
    """The middle one of the radii of a data set's shipped analyses, which the dashboard shows first."""
    epsilons = sorted(DATA[dataset].epsilons)
    return epsilons[len(epsilons) // 2]


def robustness_tables(models: Sequence[str]) -> list[RobustnessConfig]:
    """What the shipped tables are of; everything but names and radius is what the dashboard asks for."""
    datasets = {name: read_card(name).dataset for name in models}
    return [
        RobustnessConfig(dataset=dataset, model=name, epsilon=shown_epsilon(dataset))
        for name, dataset in datasets.items()
    ]


def compared_tables(models: Sequence[str]) -> list[RobustnessConfig]:
    """Teachers and students measured on the examples and at the radius of the students' figures."""
    datasets = {name: read_card(name).dataset for name in models}
    return [
        RobustnessConfig(
            dataset=dataset, model=name, epsilon=DATA[dataset].score_epsilon, count=COUNT
        )
        for name, dataset in datasets.items()
    ]


def table_path(config: RobustnessConfig) -> Path:
    """Where the shipped table of a measurement lies, whether or not it is there."""
    return shipped_dir() / ROBUSTNESS_FOLDER / f"{robustness_key(ResolvedModel(config))}.parquet"


def make_missing(configs: Sequence[RobustnessConfig], device: str = "cpu") -> None:
    """Make the tables that are missing, a minute or two each."""
    for config in configs:
        path = table_path(config)
        if path.is_file():
            continue
        found = measure_robustness(config, device=device)
        path.parent.mkdir(parents=True, exist_ok=True)
        found.write(path)
        share = robustness_summary(found.table).robust.value
        LOG.info("%s alone at %g: right on %.3g", config.model, config.epsilon, share)
