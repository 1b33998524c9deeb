"""One example from close by: its image, its witnesses, what both networks say, gap against epsilon."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from fkd.bounds import make_certificate
from fkd.core.ball import check_epsilon
from fkd.core.config import Config
from fkd.core.errors import ConfigError, UnsupportedModelError
from fkd.core.hashing import hash_json, short
from fkd.core.paths import results_dir
from fkd.core.precision import double_copy, logits_of
from fkd.core.progress import ProgressCallback
from fkd.evaluation._attacked import attack_pair
from fkd.evaluation.config import AnalysisConfig, AttackedConfig, ResolvedPair, check_count
from fkd.evaluation.measures import MeasuresConfig, measure_names
from fkd.evaluation.pair import attack_examples, check_soundness, compared_classes
from fkd.evaluation.radius import RadiusConfig
from fkd.evaluation.scored_pair import ScoresConfig
from fkd.evaluation.scores import group_names
from fkd.evaluation.store import find_analysis
from fkd.evaluation.transfer import TransferConfig
from fkd.evaluation.witnesses import with_points_of
from fkd.records import read_table, write_table
from fkd.records.schemas import CURVE_COLUMNS

#: Shares of the analysis's epsilon where the curve is drawn, and beyond it.
_CURVE_SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25, 1.5)


@dataclass(frozen=True)
class ExampleDetail:
    """Everything a page shows of one example; images (C, H, W) in [0, 1], probabilities (K,)."""

    index: int
    classes: tuple[str, ...]
    row: dict[str, Any]
    image: np.ndarray
    gap_witness: np.ndarray
    disagreement_witness: np.ndarray | None
    teacher_probs_clean: np.ndarray
    student_probs_clean: np.ndarray
    teacher_probs_gap: np.ndarray
    student_probs_gap: np.ndarray
    teacher_probs_disagreement: np.ndarray | None
    student_probs_disagreement: np.ndarray | None


def _row_of(config: AnalysisConfig, index: int) -> tuple[Any, dict[str, Any]]:
    analysis = find_analysis(config)
    if analysis is None:
        raise ConfigError("This pair has not been analysed with these settings; analyse it first.")
    if not 0 <= index < len(analysis.table):
        raise ConfigError(
            f"Example {index} is not among the {len(analysis.table)} analysed; choose one from 0 to "
            f"{len(analysis.table) - 1}."
        )
    return analysis, analysis.table.iloc[index].to_dict()


def example_detail(config: AnalysisConfig, index: int) -> ExampleDetail:
    """Images, witnesses and probabilities of one analysed example.

    Witnesses come from storage; where a shipped table has none, the attack is run again on this
    example (about a second), which finds the same point up to rounding.

    Args:
        config: the analysis.
        index: example id.

    Raises:
        ConfigError: not analysed yet, or no such example.
        DataError: the data set's images are not on this machine.
    """
    analysis, row = _row_of(config, index)
    pair = ResolvedPair(config)
    image = pair.data_set.load(config.split).images[index]
    gap_witness = analysis.gap_witness(index)
    disagreement = analysis.disagreement_witness(index)
    if gap_witness is None:
        attacked = attack_examples(config, [index])
        gap_witness = attacked.gap_witness[0].numpy()
        if bool(attacked.disagrees[0]):
            disagreement = attacked.disagreement_witness[0].numpy()
    points = [image.numpy(), gap_witness] + ([disagreement] if disagreement is not None else [])
    batch = torch.from_numpy(np.stack(points))
    teacher, student = pair.load("cpu")
    teacher_probs, student_probs = (
        torch.softmax(logits_of(double_copy(model.network), batch), 1).numpy()
        for model in (teacher, student)
    )
    has_disagreement = disagreement is not None
    return ExampleDetail(
        index=index,
        classes=pair.data_set.classes,
        row=row,
        image=image.numpy(),
        gap_witness=gap_witness,
        disagreement_witness=disagreement,
        teacher_probs_clean=teacher_probs[0],
        student_probs_clean=student_probs[0],
        teacher_probs_gap=teacher_probs[1],
        student_probs_gap=student_probs[1],
        teacher_probs_disagreement=teacher_probs[2] if has_disagreement else None,
        student_probs_disagreement=student_probs[2] if has_disagreement else None,
    )


def gap_curve(
    config: AnalysisConfig,
    index: int,
    epsilons: Sequence[float] | None = None,
    *,
    progress: ProgressCallback | None = None,
) -> pd.DataFrame:
    """Largest gap found and certified bound of one example against epsilon; stored once computed.

    The balls are those of the analysis's norm and channel scales.
    A witness inside a smaller ball lies in every larger one, and a larger ball's certificate holds in
    every smaller one, so both columns are made monotone by taking the best known for each epsilon.

    Args:
        config: the analysis; its own epsilon is among the default values.
        index: example id.
        epsilons: radii; default: from 0 to 1.5 times the analysis's, at most the whole image range.
        progress: told about both stages.

    Returns:
        Columns ``epsilon``, ``gap_attack``, ``gap_certified`` (null without a certificate).

    Raises:
        ConfigError: an epsilon that no ball of this norm can have, or an index beyond the data.
        DataError: the images are not on this machine.
    """
    pair = ResolvedPair(config)
    if epsilons is None:
        # Beyond the image range there is nothing more to reach; rounded up it would be refused.
        largest = math.floor(1e6 * config.ball.diameter(pair.teacher_card.image_shape)) / 1e6
        epsilons = [min(share * config.epsilon, largest) for share in _CURVE_SHARES]
    checked = (check_epsilon(e, config.norm, config.channel_scale) for e in epsilons)
    radii = sorted({round(epsilon, 6) for epsilon in checked} | {config.epsilon})
    base = config.model_copy(update={"count": 1, "epsilon": 0.0})
    key = short(hash_json({"curve": ResolvedPair(base).key(), "index": index, "radii": radii}))
    path = results_dir() / "curves" / f"{key}.parquet"
    if path.is_file():
        return read_table(path).table

    split = pair.data_set.load(config.split)
    check_count(index + 1, len(split), config.dataset, config.split)
    teacher, student = pair.load("cpu")
    image, label = split.images[index : index + 1], split.labels[index : index + 1]
    classes = compared_classes(config, label, teacher, image).repeat(len(radii))
    region = config.ball.region_of(
        image.repeat(len(radii), 1, 1, 1),
        torch.tensor(radii, dtype=torch.float64),
        torch.full((len(radii),), index, dtype=torch.int64),
    )
    networks = teacher.network, student.network
    attacked = attack_pair(
        config.attack, networks, region, classes, seed=config.seed, progress=progress
    )
    table = pd.DataFrame({"epsilon": radii, "gap_attack": attacked.gap.numpy()})
    try:
        certified = make_certificate(config.certificate).bound(
            teacher.network, student.network, region, classes, progress=progress
        )
        check_soundness(attacked, certified)
        attacked, _ = with_points_of(certified, attacked, teacher, student, region, classes)
        check_soundness(attacked, certified)
        table["gap_attack"] = attacked.gap.numpy()
        table["gap_certified"] = certified.gap.clamp(0.0, 1.0).numpy()
    except UnsupportedModelError:
        table["gap_certified"] = np.nan
    table["gap_attack"] = table.gap_attack.cummax()
    # Where a certificate overflowed, the next larger ball's still holds.
    table["gap_certified"] = table.gap_certified[::-1].cummin().ffill()[::-1]
    write_table(path, table, {"key": key, "index": index}, columns=CURVE_COLUMNS)
    return table


#: Command of each configuration, and what its table is called.
_COMMANDS = {
    AnalysisConfig: ("analyse", "analysis"),
    MeasuresConfig: ("attack", "measures"),
    RadiusConfig: ("radius", "radii"),
    ScoresConfig: ("score", "leaderboard"),
    TransferConfig: ("transfer", "transfer"),
}


def reproduce_snippet(
    config: AttackedConfig, *, students: Sequence[str] = (), lines: bool = False
) -> str:
    """The command line that computes this result again: the same key on the same files.

    Args:
        config: the analysis, the search for radii, the measures, the transfer, or the figures.
        students: whose figures; the configuration's own if none are named.
        lines: one option per line, for where there is little room; a shell reads both the same.
    """
    command, out = _COMMANDS[type(config)]
    if isinstance(config, ScoresConfig):
        named = f"--students {shlex.join(students or [config.student])}"
    elif isinstance(config, TransferConfig):
        named = f"--students {shlex.join(config.students)}"
    else:
        named = f"--student {shlex.quote(config.student)}"
    parts = [
        f"python -m fkd {command}",
        f"--dataset {shlex.quote(config.dataset)}",
        f"--teacher {shlex.quote(config.teacher)}",
        named,
        # All digits: 8/255 shortened to six is another ball.
        f"--epsilon {config.epsilon!r}",
        f"--count {config.count}",
        f"--seed {config.seed}",
    ]
    default = type(config).model_fields
    # A search for radii compares no confidences, and each measure knows its class.
    idle = {"gap_class"} if command in ("radius", "attack") else set()
    for name in ("split", "tolerance", "starts", "gap_class", "norm", "outside"):
        value = getattr(config, name, None)
        if name in default.keys() - idle and value != default[name].default:
            parts.append(f"--{name.replace('_', '-')} {value}")
    if isinstance(config, MeasuresConfig) and list(config.measures) != measure_names():
        parts.append(f"--measures {' '.join(config.measures)}")
    if isinstance(config, ScoresConfig) and list(config.groups) != group_names():
        parts.append(f"--groups {' '.join(config.groups)}")
    if not getattr(config, "proofs", True):
        parts.append("--no-proofs")
    if config.channel_scale is not None:
        parts.append(f"--channel-scale {' '.join(map(repr, config.channel_scale))}")
    for name in ("attack", "certificate"):
        if name not in default:
            continue
        usual = default[name].get_default(call_default_factory=True)
        settings = _settings_words(getattr(config, name), usual.name)
        if settings:
            parts.append(f"--{name} {' '.join(settings)}")
    parts.append(f"--out {out}.parquet")
    return (" \\\n  " if lines else " ").join(parts)


def _settings_words(settings: Config, usual: str) -> list[str]:
    """``key=value`` for the name, unless it is the usual one, and for what differs from the defaults."""
    values = settings.model_dump(mode="json", exclude={"rows"})
    default = type(settings)().model_dump(mode="json")
    named = values.pop("name")
    words = [f"{key}={json.dumps(value)}" for key, value in values.items() if value != default[key]]
    return [shlex.quote(word) for word in ([] if named == usual else [f"name={named}"]) + words]
