"""Agreement radii: sound, exact where they are known, honest where nothing is, and stoppable."""

import dataclasses

import pytest
import torch

from fkd.bounds import CERTIFICATES
from fkd.cli import main
from fkd.core.errors import Cancelled, ConfigError, SoundnessError
from fkd.core.precision import double_copy, logits_of
from fkd.data import load_split
from fkd.evaluation import RadiusConfig, agreement_radii
from fkd.evaluation.radius import find_agreement_radii
from fkd.models import build, load_model
from fkd.records import read_metadata, read_table
from tests.support import pairs
from tests.support.pairs import fit_linear_readout, save_digits_model


@pytest.fixture
def pair(own_folders):
    save_digits_model("big", "teacher", hidden=(16,), seed=0)
    save_digits_model("small", "student", hidden=(10,), seed=1)
    return {"dataset": "digits", "teacher": "big", "student": "small"}


def _config(pair, **changes):
    quick = {"attack": {"steps": 10}, "tolerance": 0.01, "epsilon": 0.3, "count": 6}
    return RadiusConfig.parse({**pair, **quick, **changes})


@pytest.mark.parametrize("ball", [{}, {"norm": "l2", "epsilon": 2.0}, {"channel_scale": [0.5]}])
def test_no_sample_inside_a_certified_radius_disagrees(pair, ball):
    config = _config(pair, **ball)
    table = agreement_radii(config, device="cpu")
    assert (table.radius_certified > 0).any()
    assert not (table.radius_certified >= table.radius_attack)[~table.disagrees_clean].any()
    images, _ = load_split("digits", "test").take(torch.arange(6))
    radius = torch.tensor(table.radius_certified.to_numpy())
    region = config.ball.region_of(images, radius, torch.arange(6)).repeat(500)
    moves = torch.randn(region.images.shape, generator=torch.Generator().manual_seed(0)).sign()
    points = region.clamp(region.images + 9 * moves)
    networks = [double_copy(load_model(name).network) for name in ("big", "small")]
    teacher, student = (logits_of(network, points).argmax(1) for network in networks)
    agree = (teacher == student).view(6, 500).all(1)
    assert agree[~torch.tensor(table.disagrees_clean.to_numpy())].all()


def test_a_teacher_against_itself_agrees_on_the_whole_ball(pair):
    table = agreement_radii(_config({**pair, "student": "big"}, epsilon=0.01), device="cpu")
    assert table.radius_attack.isna().all()
    assert set(table.status) <= {"whole", "open"}
    assert (table.radius_certified == 0.01).any()


def _linear(hidden, seed):
    """A network whose hidden units pass every pixel on, so that it is linear, trained a little."""
    facts = {"image_shape": (1, 8, 8), "num_classes": 10, "mean": [0.3], "std": [0.4]}
    network = build("mlp", {"hidden": hidden}, seed=seed, **facts)
    first = next(part for part in network.modules() if isinstance(part, torch.nn.Linear))
    with torch.no_grad():
        first.weight.copy_(torch.eye(64))
        first.bias.fill_(1.0)  # normalised pixels are at least -0.75
    first.requires_grad_(False)
    split = load_split("digits", "train")
    part = slice(200 * seed, 200 * seed + 200)  # other data, so that the two differ
    fit_linear_readout(network, split.images[part], split.labels[part])
    return network


def test_linear_networks_meet_their_closed_form(own_folders, monkeypatch):
    monkeypatch.setattr(pairs, "_trained", _linear)
    teacher = save_digits_model("line", "teacher", hidden=(64,), seed=0)
    student = save_digits_model("other", "student", hidden=(64,), seed=1)
    config = _config(
        {"dataset": "digits", "teacher": "line", "student": "other"},
        attack={"steps": 40, "restarts": 3},
        tolerance=0.002,
    )
    table = agreement_radii(config, device="cpu")
    assert (table.radius_certified > 0).sum() >= 3
    images, _ = load_split("digits", "test").take(torch.arange(6))
    for row, image in zip(table.to_dict("records"), images, strict=True):
        truth = _linear_radius(teacher.network, student.network, image, config.epsilon)
        if row["disagrees_clean"]:
            continue
        assert row["radius_certified"] <= truth + 1e-6
        assert row["radius_certified"] >= 0.9 * truth - 0.002
        if truth < config.epsilon:
            assert truth - 1e-6 <= row["radius_attack"] <= 1.02 * truth + 1e-6


def _linear_radius(teacher, student, image, largest):
    """The least radius of a disagreement of two linear networks, by linear programs."""
    import numpy as np
    from scipy.optimize import linprog

    networks = [double_copy(network) for network in (teacher, student)]
    zero = torch.zeros(1, *image.shape, dtype=torch.float64)
    units = torch.eye(64, dtype=torch.float64).view(64, *image.shape)
    bias = [logits_of(network, zero)[0].numpy() for network in networks]
    weight = [
        (logits_of(network, units).numpy() - b).T for network, b in zip(networks, bias, strict=True)
    ]
    x = image.double().flatten().numpy()
    box = [
        np.hstack([np.eye(64), -np.ones((64, 1))]),
        np.hstack([-np.eye(64), -np.ones((64, 1))]),
    ]
    best = largest
    for i in range(10):
        for j in range(10):
            if i == j:
                continue
            rows = [
                np.hstack([w - w[k], np.zeros((10, 1))])
                for w, k in zip(weight, (i, j), strict=True)
            ]
            sides = [b[k] - b for b, k in zip(bias, (i, j), strict=True)]
            found = linprog(
                np.eye(65)[64],
                A_ub=np.vstack([*rows, *box]),
                b_ub=np.concatenate([*sides, x, -x]),
                bounds=[(0, 1)] * 64 + [(0, best)],
            )
            if found.status == 0:
                best = min(best, float(found.fun))
    return best


def test_clean_disagreement_has_radius_zero(pair):
    table = agreement_radii(_config(pair, count=150, certificate={"name": "fast"}), device="cpu")
    differ = table[table.disagrees_clean]
    assert len(differ) > 0
    assert (differ.radius_certified == 0).all() and (differ.radius_attack == 0).all()
    assert set(differ.status) == {"disagrees clean"}


def test_a_wrong_proof_raises(pair, monkeypatch):
    fast = CERTIFICATES.get("fast")
    honest = fast.bound

    def lying(self, *args, **kwargs):
        result = honest(self, *args, **kwargs)
        return dataclasses.replace(result, agrees=torch.ones_like(result.agrees))

    monkeypatch.setattr(fast, "bound", lying)
    # Nothing is known of witnesses when the lie is told.
    from fkd.evaluation import _radius_finder

    for step in ("_find_nearest", "_ask_below"):
        monkeypatch.setattr(_radius_finder.Finder, step, lambda self: None)
    with pytest.raises(SoundnessError, match="agreement was proved up to"):
        agreement_radii(_config(pair, certificate={"name": "fast"}), device="cpu")


def test_cancelled_search_keeps_what_it_proved(pair):
    with pytest.raises(Cancelled) as stop:
        agreement_radii(_config(pair), device="cpu", progress=lambda p: p.stage == "radius tight")
    table = stop.value.partial
    assert len(table) == 6 and (table.radius_certified > 0).any()


def test_an_index_beyond_the_data_is_refused(pair):
    with pytest.raises(ConfigError, match="examples"):
        agreement_radii(_config(pair), [10**6], device="cpu")


def test_command_prints_and_stores(pair, tmp_path, capsys):
    out = tmp_path / "radii.parquet"
    words = "--teacher big --student small --dataset digits --count 3 --tolerance 0.05 --quiet"
    assert main(["radius", *words.split(), "--out", str(out)]) == 0
    assert "certified" in capsys.readouterr().out
    assert len(read_table(out).table) == 3
    assert {"seed", "versions", "config", "teacher_hash"} <= read_metadata(out).keys()


def test_without_proofs_the_nearest_disagreement_is_the_same(pair):
    found = find_agreement_radii(_config(pair, proofs=False), device="cpu")
    proved = agreement_radii(_config(pair, certificate={"name": "fast"}), device="cpu")
    assert (found.table.radius_certified == 0).all()
    assert set(found.table.status) <= {"not tried", "disagrees clean"}
    # Where proofs come too, the last attack may yet find something.
    assert (found.table.radius_attack >= proved.radius_attack - 1e-12).all()
    assert (found.table.radius_attack <= 1.01 * proved.radius_attack).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attack", ["pgd", "search"])
def test_witnesses_disagree_where_the_table_says(pair, norm, attack):
    config = _config(
        pair, norm=norm, attack={"name": attack, "steps": 5}, proofs=False, starts=2, count=150
    )
    found = find_agreement_radii(config, device="cpu")
    assert found.table.disagrees_clean.any() and len(found.rows) > 40
    ids = torch.from_numpy(found.rows)
    images, _ = load_split("digits", "test").take(ids)
    points = torch.from_numpy(found.points)
    nowhere = torch.zeros(len(ids), dtype=torch.float64)
    distance = config.ball.region_of(images, nowhere, ids).distance(points)
    told = torch.tensor(found.table.radius_attack.to_numpy())
    assert torch.equal(distance, told[ids])
    assert points.min() >= 0 and points.max() <= 1
    networks = [double_copy(load_model(name).network) for name in ("big", "small")]
    teacher, student = (logits_of(network, points).argmax(1) for network in networks)
    assert (teacher != student).all()
    assert told[~torch.isin(torch.arange(150), ids)].isnan().all()


def test_without_walks_the_attack_searches_alone(pair):
    config = _config(pair, starts=0, proofs=False)
    alone = agreement_radii(config, device="cpu")
    walked = agreement_radii(_config(pair, proofs=False), device="cpu")
    assert alone.radius_attack.notna().all()
    assert walked.radius_attack.mean() <= alone.radius_attack.mean()
