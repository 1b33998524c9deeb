"""The shipped tables of standard robustness: every shipped model alone, at the radius shown first.

They make the page *Disagreements* show something at once.  `build.py --tables` calls this; what is there
is kept, so an interrupted build goes on with the next model.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Sequence

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

LOG = logging.getLogger("build")

#: The middle one of the radii of the shipped analyses, which the dashboard shows first.
EPSILON = 0.05


def robustness_tables(models: Sequence[str]) -> list[RobustnessConfig]:
    """What the shipped tables are of; everything but names and radius is what the dashboard asks for."""
    return [
        RobustnessConfig(dataset=read_card(name).dataset, model=name, epsilon=EPSILON)
        for name in models
    ]


def make_missing(models: Sequence[str]) -> None:
    """Make the tables that are missing, about a minute each."""
    folder = shipped_dir() / ROBUSTNESS_FOLDER
    # A home of its own: the user's stored results must not pass for newly made ones.
    with tempfile.TemporaryDirectory() as home:
        os.environ["FKD_HOME"] = home
        for config in robustness_tables(models):
            path = folder / f"{robustness_key(ResolvedModel(config))}.parquet"
            if path.is_file():
                continue
            found = measure_robustness(config, device="cpu")
            folder.mkdir(parents=True, exist_ok=True)
            found.write(path)
            share = robustness_summary(found.table).robust.value
            LOG.info("%s alone at %g: right on %.3g", config.model, EPSILON, share)


def drop_others(models: Sequence[str]) -> None:
    """Drop the tables of models, or of a procedure, that are no more."""
    keys = {robustness_key(ResolvedModel(config)) for config in robustness_tables(models)}
    for path in (shipped_dir() / ROBUSTNESS_FOLDER).glob("*"):
        if path.stem not in keys:
            path.unlink()
