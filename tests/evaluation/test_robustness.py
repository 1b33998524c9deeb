"""Standard robustness of one model: measured, stored, found again, summarised with intervals."""

import shlex

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from fkd.cli import main
from fkd.core.errors import Cancelled, ConfigError
from fkd.core.paths import data_dir, models_dir, results_dir
from fkd.data import load_split
from fkd.evaluation import (
    ROBUSTNESS_COLUMNS,
    ResolvedModel,
    RobustnessConfig,
    cross_robustness,
    find_robustness,
    list_analyses,
    measure_robustness,
    reproduce_robustness,
    robustness_key,
    robustness_summary,
    wilson_share,
)
from fkd.evaluation import robustness_store as store
from fkd.models import ModelCard, build, save_model
from tests.support.pairs import fit_linear_readout, save_digits_model

QUICK = {
    "dataset": "digits",
    "model": "net",
    "epsilon": 0.06,
    "count": 12,
    "steps": 5,
    "restarts": 2,
    "autoattack_steps": 5,
    "autoattack_queries": 20,
}


@pytest.fixture
def config(own_folders):
    save_digits_model("net", "teacher")
    return RobustnessConfig.parse(QUICK)


def test_the_worst_of_both_is_what_is_reported(config):
    found = measure_robustness(config, device="cpu")
    table = found.table
    assert list(table) == [column.name for column in ROBUSTNESS_COLUMNS]
    assert table["index"].tolist() == list(range(12))
    right = table.predicted == table.label
    assert (table.robust == (table.robust_pgd & table.robust_autoattack)).all()
    assert (right | ~(table.robust_pgd | table.robust_autoattack)).all()
    assert (table.found_by.isna() == table.robust).all()
    assert (table.found_by[~right] == "clean").all()
    assert ((table.found_by == "pgd") <= table.robust_autoattack).all()
    assert found.left_out == []
    wanted = {"seed", "versions", "config", "model_hash", "data_hash", "seconds", "pgd_seconds"}
    assert wanted <= set(found.metadata)
    assert found.metadata["versions"]["adv_lib"] != "absent"


def test_a_measurement_is_found_again_as_it_was(config, monkeypatch):
    assert find_robustness(config) is None
    first = measure_robustness(config, device="cpu")
    again = measure_robustness(config, device="cpu", fresh=True)
    pd.testing.assert_frame_equal(again.table, first.table)

    def refuse(*_, **__):
        raise RuntimeError("a measurement was begun")

    monkeypatch.setattr(store, "attack_model", refuse)
    stored = measure_robustness(config)
    pd.testing.assert_frame_equal(stored.table, first.table)
    assert stored.metadata == again.metadata
    # Tables of analyses lie elsewhere.
    assert list_analyses("digits", "net") == []
    (results_dir() / "robustness" / f"{first.key}.parquet").write_bytes(b"nothing")
    assert find_robustness(config) is None


def test_what_changes_the_result_changes_the_key(config, monkeypatch):
    def key(**changes):
        return robustness_key(ResolvedModel(RobustnessConfig.parse({**QUICK, **changes})))

    same = key()
    # The folder's name is another name of the same weights.
    assert key(model=str(models_dir() / "net")) == same
    # A scale of 1 is none.
    assert key(channel_scale=(1.0,)) == same
    save_digits_model("other", "student", seed=1)
    others = [
        {"epsilon": 0.07},
        {"count": 13},
        {"seed": 1},
        {"norm": "l2"},
        {"channel_scale": (0.5,)},
        {"split": "train"},
        {"steps": 6},
        {"restarts": 3},
        {"autoattack_steps": 6},
        {"autoattack_queries": 21},
        {"model": "other"},
    ]
    keys = {key(**change) for change in others}
    assert len(keys) == len(others) and same not in keys
    monkeypatch.setattr(store, "_PROCEDURE_VERSION", 99)
    assert key() not in {same, *keys}


def test_progress_grows_and_every_stage_can_be_stopped(config):
    reports = []
    measure_robustness(config, device="cpu", progress=lambda p: bool(reports.append(p)))
    stages = list(dict.fromkeys(p.stage for p in reports))
    assert stages == ["pgd", "apgd-ce", "apgd-t", "fab-t", "square"]
    for stage in stages:
        done = [p.done for p in reports if p.stage == stage]
        assert done == sorted(done) and done[-1] == 12
    other = config.model_copy(update={"seed": 1})
    for stage in stages:
        with pytest.raises(Cancelled, match=f"^Stopped during {stage} after"):
            measure_robustness(other, device="cpu", progress=lambda p, at=stage: p.stage == at)
    assert find_robustness(other) is None


def test_a_ball_of_radius_0_holds_the_image_alone(config):
    config = RobustnessConfig.parse({**QUICK, "epsilon": 0})
    table = measure_robustness(config, device="cpu").table
    assert (table.robust == (table.predicted == table.label)).all()


def test_two_classes_are_measured_and_the_result_says_what_was_left_out(own_folders):
    arrays = {}
    for part in ("train", "test"):
        split = load_split("digits", part)
        arrays[f"{part}_images"] = (255 * split.images[:, 0].numpy()).astype(np.uint8)
        arrays[f"{part}_labels"] = (split.labels.numpy() % 2).astype(np.uint8)
    data_dir().mkdir(parents=True, exist_ok=True)
    np.savez(data_dir() / "parity.npz", **arrays)
    split = load_split("parity", "train")
    shape = tuple(split.images.shape[1:])
    network = build(
        "mlp",
        {"hidden": (8,)},
        image_shape=shape,
        num_classes=2,
        mean=[0.3] * shape[0],
        std=[0.4] * shape[0],
        seed=0,
    )
    fit_linear_readout(network, split.images, split.labels)
    card = ModelCard(
        name="odd",
        role="teacher",
        dataset="parity",
        method="standard",
        architecture="mlp",
        architecture_config={"hidden": [8]},
        image_shape=shape,
        num_classes=2,
        mean=(0.3,) * shape[0],
        std=(0.4,) * shape[0],
        weights_sha256="",
    )
    save_model(models_dir() / "odd", network, card)
    config = RobustnessConfig.parse({**QUICK, "dataset": "parity", "model": "odd"})
    found = measure_robustness(config, device="cpu")
    assert found.left_out == [
        "apgd-t was left out: its loss needs at least 4 classes, and there are 2."
    ]
    assert 0 < found.table.robust.sum() < 12
    with pytest.raises(ConfigError, match="choose the data set it was trained on"):
        ResolvedModel(RobustnessConfig.parse({**QUICK, "model": "odd"}))


@pytest.mark.parametrize("model", ["digits-teacher-pgd", "digits-kd-of-pgd"])
def test_on_shipped_models_the_ensemble_leaves_no_more_than_pgd(model):
    config = RobustnessConfig(
        dataset="digits",
        model=model,
        epsilon=0.1,
        count=40,
        restarts=3,
        autoattack_steps=30,
        autoattack_queries=100,
    )
    table = measure_robustness(config, device="cpu").table
    assert table.robust_autoattack.sum() <= table.robust_pgd.sum() + 1


@pytest.mark.parametrize(("hits", "count"), [(0, 7), (7, 7), (1, 1), (87, 100), (500, 1000)])
def test_intervals_are_wilsons(hits, count):
    share = wilson_share(hits, count)
    reference = binomtest(hits, count).proportion_ci(method="wilson")
    assert (share.low, share.high) == pytest.approx((reference.low, reference.high), abs=1e-12)
    assert 0 <= share.low <= share.value <= share.high <= 1


def test_a_summary_counts_examples():
    table = pd.DataFrame(
        {
            "label": [0, 1, 2, 3],
            "predicted": [0, 1, 2, 0],
            "robust_pgd": [True, True, False, False],
            "robust_autoattack": [True, False, True, False],
            "robust": [True, False, False, False],
        }
    )
    summary = robustness_summary(table)
    values = [getattr(summary, name).value for name in ("clean", "pgd", "autoattack", "robust")]
    assert (summary.count, values) == (4, [0.75, 0.5, 0.5, 0.25])
    with pytest.raises(ConfigError, match="without rows"):
        robustness_summary(table.iloc[:0])


def test_both_networks_are_counted_beside_the_pair():
    indices = [3, 4, 5, 6, 7]
    teacher = pd.DataFrame({"index": indices, "robust": [True, False, True, False, True]})
    student = pd.DataFrame({"index": indices, "robust": [True, True, False, False, False]})
    # Rows of another order, and one more.
    analysis = pd.DataFrame(
        {
            "index": [7, 6, 5, 4, 3, 8],
            "disagrees": [False, False, True, False, False, True],
            "agrees_certified": [False, True, False, False, True, False],
        }
    )
    counts = cross_robustness(teacher, student, analysis).set_index("broke")
    assert list(counts) == ["certified", "open", "refuted", "total"]
    assert counts.loc["neither"].tolist() == [1, 0, 0, 1]
    assert counts.loc["teacher"].tolist() == [0, 1, 0, 1]
    assert counts.loc["student"].tolist() == [0, 1, 1, 2]
    assert counts.loc["both"].tolist() == [1, 0, 0, 1]
    for other in (student.iloc[:4], student.assign(index=[3, 4, 5, 6, 9])):
        with pytest.raises(ConfigError, match="different examples"):
            cross_robustness(teacher, other, analysis)
    with pytest.raises(ConfigError, match="different examples"):
        cross_robustness(teacher, student, analysis.iloc[1:])


def test_the_command_shown_measures_the_same_again(config, monkeypatch):
    config = RobustnessConfig.parse({**QUICK, "epsilon": 8 / 255, "channel_scale": (0.5,)})
    asked = []
    monkeypatch.setattr("fkd.runs.start_run", lambda *words: asked.append(words) or "robust-1")
    for lines in (False, True):
        words = shlex.split(reproduce_robustness(config, lines=lines).replace("\\\n", ""))
        assert words[:4] == ["python", "-m", "fkd", "robust"]
        assert words[-2:] == ["--out", f"robustness-{config.model}.parquet"]
        assert main([*words[3:-2], "--background"]) == 0
        kind, spec = asked.pop()
        assert (kind, RobustnessConfig.parse(spec)) == ("robust", config)
