"""One analysis from end to end: data, pair, ball -> attack and certificate -> one row an example."""

from __future__ import annotations

import datetime
import time
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fkd.attacks import PairAttackResult
from fkd.bounds import CertificateResult, make_certificate
from fkd.core.ball import Region
from fkd.core.device import choose_device
from fkd.core.errors import Cancelled, SoundnessError, UnsupportedModelError
from fkd.core.paths import results_dir
from fkd.core.precision import double_copy, logits_of
from fkd.core.progress import ProgressCallback, report
from fkd.core.versions import package_versions
from fkd.data import Split
from fkd.evaluation._attacked import attack_pair
from fkd.evaluation._saved_chunks import SavedChunks
from fkd.evaluation.config import AnalysisConfig, ResolvedPair, check_count
from fkd.evaluation.store import Analysis, find_resolved, save_analysis
from fkd.evaluation.witnesses import with_points_of, witness_arrays
from fkd.models import Model
from fkd.records import SCHEMA_VERSION, conform, ensure_writable

#: A witness may exceed its certificate by at most this (both are float64 figures).
SOUNDNESS_TOLERANCE = 1e-6


def analyse(
    config: AnalysisConfig,
    *,
    device: str = "auto",
    progress: ProgressCallback | None = None,
    fresh: bool = False,
) -> Analysis:
    """The stored answer to ``config`` or, where there is none, a new one that is stored.

    Args:
        config: what to analyse.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: told about the stages ``attack`` and ``certificate``; answering True cancels.  A
            certificate that searches (branch and bound) reports the bracket of the example in work too:
            ``example, upper, lower, open, evaluated, seconds``.
        fresh: compute anew even where an answer is stored, and replace it: shipped tables of downloaded
            sets come without witnesses, and anyone may check them.

    Returns:
        The table, one row an example, with its provenance and witnesses.

    Raises:
        ConfigError: unknown names, a pair that does not fit, or a count beyond the data.
        DataError: the data set is absent or damaged.
        CheckpointError: a model is damaged.
        StoreError: the result cannot be stored (found out before the work where possible).
        SoundnessError: a witness exceeds its certificate, which is a bug in this program.
        Cancelled: ``progress`` asked to stop.  No table is stored, but of a dear certificate every
            finished example is kept (also where the process dies), and the same call goes on from there.

    Example:
        >>> from fkd.evaluation import AnalysisConfig, analyse
        >>> config = AnalysisConfig(
        ...     dataset="digits", teacher="digits-teacher-pgd", student="digits-kd-of-pgd",
        ...     epsilon=0.05, count=5)
        >>> bool((analyse(config).table.gap_attack <= 1).all())
        True
    """
    pair = ResolvedPair(config)
    stored = None if fresh else find_resolved(pair)
    if stored is not None:
        return stored
    place = choose_device(device)
    split = pair.data_set.load(config.split)
    check_count(config.count, len(split), config.dataset, config.split)
    pixels = split.images[0].numel()
    ensure_writable(results_dir(), needed_bytes=2 * 4 * pixels * config.count + 2**20)

    started = time.perf_counter()
    teacher, student = pair.load(str(place))
    region, classes, clean = _prepare(config, split, teacher, student, place)
    clock = _Clock(place)
    networks = teacher.network, student.network
    attacked = attack_pair(
        config.attack, networks, region, classes, seed=config.seed, progress=progress
    )
    clock.note("attack_seconds")
    chunks = SavedChunks(pair.key(), place)
    if fresh:
        chunks.clear()
    certified, reason = _certify(config, teacher, student, region, classes, progress, chunks)
    clock.note("certificate_seconds", before=chunks.seconds)
    # Before as well: a point of the other sign could replace a witness that tells of a wrong bound.
    check_soundness(attacked, certified)
    attacked, improved = with_points_of(certified, attacked, teacher, student, region, classes)
    check_soundness(attacked, certified)
    report(progress, "store", 0, 1)
    table = _table(pair, split, classes, clean, attacked, certified, reason)
    witnesses = witness_arrays(attacked)
    costs = {
        "device": str(place),
        "seconds": round(time.perf_counter() - started, 3),
        **clock.seconds,
        "gradient_evaluations": attacked.gradient_evaluations,
        "witnesses_of_certificate": improved,
        "examples_of_earlier_runs": chunks.examples,
    }
    metadata = _metadata(pair, costs)
    analysis = Analysis(pair.key(), config, table, metadata, witnesses)
    save_analysis(analysis)
    chunks.clear()
    report(progress, "store", 1, 1)
    return analysis


def attack_examples(config: AnalysisConfig, indices: list[int]) -> PairAttackResult:
    """The analysis's attack on some of its examples only (random starts depend on the example id).

    Raises:
        DataError: the data set is absent.
        ConfigError: an index lies beyond the split.
    """
    pair = ResolvedPair(config)
    split = pair.data_set.load(config.split)
    check_count(max(indices) + 1, len(split), config.dataset, config.split)
    teacher, student = pair.load("cpu")
    ids = torch.tensor(indices, dtype=torch.int64)
    images, labels = split.take(ids)
    classes = compared_classes(config, labels, teacher, images)
    networks, region = (teacher.network, student.network), config.ball.region(images, ids)
    return attack_pair(config.attack, networks, region, classes, seed=config.seed)


def compared_classes(
    config: AnalysisConfig, labels: Tensor, teacher: Model, images: Tensor
) -> Tensor:
    """The class whose confidences are compared, int64 (N,)."""
    if config.gap_class == "label":
        return labels
    return logits_of(double_copy(teacher.network), images).argmax(1)


def check_soundness(attacked: PairAttackResult, certified: CertificateResult) -> None:
    """A witness above its certificate, or one against a proof of agreement, must never be shown.

    Raises:
        SoundnessError: with the example's position and both figures.
    """
    signed = attacked.teacher_conf - attacked.student_conf
    above = (
        (attacked.gap > certified.gap + SOUNDNESS_TOLERANCE)
        # A wrong bound of one sign would hide behind a wide one of the other.
        | (signed > certified.gap_upper + SOUNDNESS_TOLERANCE)
        | (signed < certified.gap_lower - SOUNDNESS_TOLERANCE)
    )
    contradicted = attacked.disagrees & certified.agrees
    if above.any():
        row = int(above.nonzero()[0])
        raise SoundnessError(
            f"Row {row}: a witness shows a gap of {float(signed[row]):.9f} and the certificate "
            f"claims at most {float(certified.gap_upper[row]):.9f} and at least "
            f"{float(certified.gap_lower[row]):.9f}; please report this pair."
        )
    if contradicted.any():
        row = int(contradicted.nonzero()[0])
        raise SoundnessError(
            f"Row {row}: a witness shows a disagreement although agreement was certified; please "
            "report this pair."
        )


def _prepare(
    config: AnalysisConfig, split: Split, teacher: Model, student: Model, place: torch.device
) -> tuple[Region, Tensor, tuple[Tensor, Tensor]]:
    images = split.images[: config.count].to(place)
    labels = split.labels[: config.count].to(place)
    ids = torch.arange(config.count, device=place)
    clean = (
        logits_of(double_copy(teacher.network), images),
        logits_of(double_copy(student.network), images),
    )
    classes = labels if config.gap_class == "label" else clean[0].argmax(1)
    return config.ball.region(images, ids), classes, clean


def _certify(
    config: AnalysisConfig,
    teacher: Model,
    student: Model,
    region: Region,
    classes: Tensor,
    progress: ProgressCallback | None,
    chunks: SavedChunks,
) -> tuple[CertificateResult, str | None]:
    """The certificate, or NaN and false everywhere with the reason where there can be none."""
    certificate = make_certificate(config.certificate)
    kept: dict[str, Any] = {"chunks": chunks} if certificate.is_resumable else {}
    try:
        return certificate.bound(
            teacher.network, student.network, region, classes, progress=progress, **kept
        ), None
    except Cancelled as stop:
        if not chunks.has_any:
            raise
        kept_on = Cancelled(
            f"{stop} The examples that were finished are kept: the same goes on there."
        )
        kept_on.partial = stop.partial
        raise kept_on from None
    except UnsupportedModelError as error:
        nothing = torch.full((len(region),), torch.nan, dtype=torch.float64)
        no = torch.zeros(len(region), dtype=torch.bool, device=region.images.device)
        nothing = nothing.to(region.images.device)
        return CertificateResult(nothing, nothing.clone(), no, no.clone(), no.clone()), str(error)


def _table(
    pair: ResolvedPair,
    split: Split,
    classes: Tensor,
    clean: tuple[Tensor, Tensor],
    attacked: PairAttackResult,
    certified: CertificateResult,
    reason: str | None,
) -> pd.DataFrame:
    config = pair.config
    teacher_probabilities, student_probabilities = (torch.softmax(z, 1) for z in clean)
    teacher_conf = teacher_probabilities.gather(1, classes[:, None]).squeeze(1)
    student_conf = student_probabilities.gather(1, classes[:, None]).squeeze(1)
    gap_clean = (teacher_conf - student_conf).abs()
    missing = certified.gap.isnan()
    if reason is None and bool(missing.any()):
        reason = "The bound overflowed and is not a number."

    def numbers(tensor: Tensor) -> np.ndarray:
        return tensor.detach().cpu().numpy()

    def where_found(tensor: Tensor) -> pd.Series:
        values = pd.Series(numbers(tensor)).astype("Int64")
        return values.mask(~pd.Series(numbers(attacked.disagrees)))

    table = pd.DataFrame(
        {
            "index": np.arange(config.count),
            "label": numbers(split.labels[: config.count]),
            "epsilon": config.epsilon,
            "gap_class": numbers(classes),
            "teacher_pred": numbers(clean[0].argmax(1)),
            "student_pred": numbers(clean[1].argmax(1)),
            "teacher_conf": numbers(teacher_conf),
            "student_conf": numbers(student_conf),
            "gap_clean": numbers(gap_clean),
            # Two routes to the same float64 number differ in the last digit.
            "gap_attack": numbers(torch.maximum(attacked.gap, gap_clean)),
            "gap_certified": numbers(certified.gap.clamp(0.0, 1.0)),
            "disagrees": numbers(attacked.disagrees),
            "agrees_certified": numbers(certified.agrees),
            "teacher_conf_attack": numbers(attacked.teacher_conf),
            "student_conf_attack": numbers(attacked.student_conf),
            "gap_upper_certified": numbers(certified.gap_upper),
            "gap_lower_certified": numbers(certified.gap_lower),
            "teacher_pred_witness": where_found(attacked.teacher_pred),
            "student_pred_witness": where_found(attacked.student_pred),
            "teacher_robust_certified": numbers(certified.teacher_robust),
            "student_robust_certified": numbers(certified.student_robust),
        }
    )
    table["certificate_reason"] = pd.Series(np.where(numbers(missing), reason, None), dtype=object)
    names = {
        "dataset": config.dataset,
        "split": config.split,
        "teacher": pair.teacher_card.name,
        "student": pair.student_card.name,
        "teacher_hash": pair.teacher_card.model_hash,
        "student_hash": pair.student_card.model_hash,
        "data_hash": split.fingerprint,
        "norm": config.ball.norm_text,
        "attack": config.attack_json(),
        "certificate": config.certificate_json(),
        "key": pair.key(),
    }
    for name, value in names.items():
        table[name] = pd.Categorical([value] * len(table))
    table["seed"] = config.seed
    return conform(table)


class _Clock:
    """Seconds of each stage, with what the device has still to do."""

    def __init__(self, place: torch.device) -> None:
        self._place = place
        self.seconds: dict[str, float] = {}
        self._since = self._now()

    def _now(self) -> float:
        if self._place.type == "cuda":
            torch.cuda.synchronize(self._place)
        return time.perf_counter()

    def note(self, stage: str, *, before: float = 0.0) -> None:
        """Put down what has passed since the last note, and what earlier runs took."""
        now = self._now()
        self.seconds[stage] = round(now - self._since + before, 3)
        self._since = now


def _metadata(pair: ResolvedPair, costs: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "key": pair.key(),
        "config": pair.config.model_dump(mode="json"),
        "teacher": _card_facts(pair.teacher_card),
        "student": _card_facts(pair.student_card),
        "versions": package_versions(),
        **costs,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _card_facts(card: Any) -> dict[str, Any]:
    return {
        "name": card.name,
        "model_hash": card.model_hash,
        "method": card.method,
        "architecture": card.architecture,
        "parameters": card.parameters,
    }
