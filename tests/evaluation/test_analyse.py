"""An analysis from end to end on digits: columns, keys, storage, cancellation, bad input."""

import dataclasses
import shlex

import numpy as np
import pandas as pd
import pytest
import torch

from fkd.core.errors import Cancelled, ConfigError, FkdError, SoundnessError, StoreError
from fkd.core.paths import results_dir
from fkd.data import load_split
from fkd.evaluation import (
    AnalysisConfig,
    ResolvedPair,
    analyse,
    attack_examples,
    check_soundness,
    example_detail,
    find_analysis,
    gap_curve,
    list_analyses,
    parse_analysis,
    reproduce_snippet,
    save_analysis,
    witness_path,
)
from fkd.models import load_model
from fkd.records import ANALYSIS_COLUMNS, read_table
from tests.support.pairs import save_digits_model


@pytest.fixture
def pair(own_folders):
    save_digits_model("big", "teacher", hidden=(24, 16), seed=0)
    save_digits_model("small", "student", hidden=(10,), seed=1)
    return {"dataset": "digits", "teacher": "big", "student": "small", "attack": {"steps": 12}}


def _config(pair, **changes):
    return parse_analysis({**pair, "epsilon": 0.05, "count": 24, **changes})


def test_the_table_says_what_the_networks_say(pair):
    analysis = analyse(_config(pair))
    table = analysis.table
    assert list(table.columns) == [c.name for c in ANALYSIS_COLUMNS]
    split = load_split("digits", "test")
    images, labels = split.images[:24], split.labels[:24]
    assert table["index"].tolist() == list(range(24))
    assert table.label.tolist() == labels.tolist()
    for role, reference in (("teacher", "big"), ("student", "small")):
        network = load_model(reference).network
        for point, column in ((images, f"{role}_conf"), (None, f"{role}_conf_attack")):
            at = torch.from_numpy(analysis.witnesses["gap_witness"]) if point is None else point
            expected = torch.softmax(network(at), 1).gather(1, labels[:, None]).squeeze(1)
            np.testing.assert_allclose(table[column], expected.numpy(), atol=1e-5)
        assert table[f"{role}_pred"].tolist() == network(images).argmax(1).tolist()
    np.testing.assert_allclose(table.gap_clean, (table.teacher_conf - table.student_conf).abs())
    np.testing.assert_allclose(
        table.gap_attack, (table.teacher_conf_attack - table.student_conf_attack).abs(), atol=1e-9
    )
    assert (table.gap_clean <= table.gap_attack).all()
    assert (table.gap_attack <= table.gap_certified + 1e-6).all()
    assert not (table.disagrees & table.agrees_certified).any()
    assert table.gap_attack.mean() > table.gap_clean.mean()
    assert (table.gap_certified < 0.999).any()


def test_disagreement_witnesses_are_stored_and_disagree(pair):
    analysis = analyse(_config(pair, epsilon=0.08, count=40))
    rows = analysis.table[analysis.table.disagrees]
    assert len(rows) >= 3
    teacher, student = load_model("big").network, load_model("small").network
    images = load_split("digits", "test").images
    for row in rows["index"]:
        witness = torch.from_numpy(analysis.disagreement_witness(row))
        assert ((witness - images[row]).abs() <= 0.08 + 1e-6).all()
        assert teacher(witness[None]).argmax() == analysis.table.teacher_pred_witness[row]
        assert student(witness[None]).argmax() == analysis.table.student_pred_witness[row]
        assert teacher(witness[None]).argmax() != student(witness[None]).argmax()
    none = analysis.table[~analysis.table.disagrees]
    assert none.teacher_pred_witness.isna().all()
    assert analysis.disagreement_witness(int(none["index"].iloc[0])) is None


def test_asking_again_reads_the_stored_answer(pair):
    config = _config(pair)
    assert find_analysis(config) is None
    first = analyse(config)
    stages = []
    again = analyse(config, progress=lambda step: stages.append(step.stage))
    assert stages == []
    pd.testing.assert_frame_equal(
        first.table, again.table, check_dtype=False, check_categorical=False
    )
    np.testing.assert_array_equal(first.witnesses["gap_witness"], again.witnesses["gap_witness"])
    assert [entry.key for entry in list_analyses(dataset="digits", student="small")] == [first.key]
    assert list_analyses(student="other") == []
    assert first.metadata["seconds"] > 0 and first.metadata["versions"]["torch"]


def test_the_key_changes_with_everything_that_determines_the_result(pair):
    base = ResolvedPair(_config(pair)).key()
    changes = [
        {"epsilon": 0.06},
        {"count": 25},
        {"seed": 1},
        {"split": "train"},
        {"gap_class": "teacher"},
        {"attack": {"steps": 13}},
        {"certificate": {"name": "crown_ibp"}},
        {"student": "big"},
    ]
    keys = [ResolvedPair(_config(pair, **change)).key() for change in changes]
    assert len({base, *keys}) == len(changes) + 1
    assert ResolvedPair(_config(pair, epsilon=-0.0)).key() == (
        ResolvedPair(_config(pair, epsilon=0)).key()
    )
    # How much is computed at once changes nothing, so it must not change the key.
    assert ResolvedPair(_config(pair, certificate={"rows": 3})).key() == base


def test_retrained_weights_are_never_answered_by_the_old_table(pair):
    config = _config(pair)
    analyse(config)
    import shutil

    from fkd.core.paths import models_dir

    shutil.rmtree(models_dir() / "small")
    save_digits_model("small", "student", hidden=(10,), seed=9)
    assert find_analysis(config) is None


def test_a_damaged_stored_table_is_made_again(pair):
    config = _config(pair)
    first = analyse(config)
    path = results_dir() / f"{first.key}.parquet"
    path.write_bytes(path.read_bytes()[:500])
    assert find_analysis(config) is None
    again = analyse(config)
    np.testing.assert_allclose(again.table.gap_attack, first.table.gap_attack)
    assert find_analysis(config) is not None


def test_writing_to_a_file_puts_witnesses_beside(pair, tmp_path):
    analysis = analyse(_config(pair))
    target = tmp_path / "out" / "table.parquet"
    analysis.write(target)
    stored = read_table(target)
    assert stored.metadata["key"] == analysis.key
    assert witness_path(target).is_file()
    with pytest.raises(StoreError, match=r"name the file \.parquet"):
        analysis.write(tmp_path / "table.csv")


def test_a_fresh_analysis_replaces_one_without_witnesses(pair, tmp_path):
    first = analyse(_config(pair))
    bare = dataclasses.replace(first, witnesses={})
    save_analysis(bare)
    assert not analyse(_config(pair)).witnesses
    again = analyse(_config(pair), fresh=True)
    np.testing.assert_array_equal(again.witnesses["gap_witness"], first.witnesses["gap_witness"])
    assert find_analysis(_config(pair)).witnesses
    # A table without witnesses must not be left beside another table's.
    out = tmp_path / "table.parquet"
    again.write(out)
    assert witness_path(out).is_file()
    bare.write(out)
    assert out.is_file() and not witness_path(out).exists()


def test_the_same_network_twice_has_no_gap_and_no_disagreement(pair):
    table = analyse(_config(pair, student="big")).table
    assert (table.gap_attack == 0).all()
    assert not table.disagrees.any()


def test_the_teachers_class_can_be_compared_instead(pair):
    table = analyse(_config(pair, gap_class="teacher")).table
    assert (table.gap_class == table.teacher_pred).all()
    assert (table.gap_attack <= table.gap_certified + 1e-6).all()


def test_cancelling_stores_nothing(pair):
    with pytest.raises(Cancelled):
        analyse(_config(pair), progress=lambda step: step.stage == "certificate")
    assert find_analysis(_config(pair)) is None
    assert list(results_dir().glob("*.parquet")) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"dataset": "digit"}, "digits"),
        ({"teacher": "bigg"}, "big"),
        ({"student": "nobody"}, "nobody"),
        ({"epsilon": -0.1}, "epsilon must lie in"),
        ({"epsilon": float("nan")}, "epsilon must lie in"),
        ({"epsilon": 8}, "8/255"),
        ({"count": 10**6}, "choose a count of at most"),
        ({"count": 0}, "count"),
        ({"seed": -1}, "seed"),
        ({"gap_class": "mine"}, "gap_class"),
        ({"attack": {"name": "fab"}}, "no attack called 'fab'"),
        ({"certificate": {"name": "milp"}}, "no certificate called 'milp'"),
        ({"colour": "red"}, "no setting called 'colour'"),
    ],
)
def test_bad_input_is_one_sentence_and_stores_nothing(pair, changes, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        analyse(_config(pair, **changes))
    assert "\n" not in str(caught.value)
    assert not results_dir().exists() or list(results_dir().glob("*.parquet")) == []


def test_a_folder_that_cannot_be_written_is_found_out_before_the_work(pair, monkeypatch):
    results_dir().parent.mkdir(parents=True, exist_ok=True)
    results_dir().write_text("a file where the folder should be")
    stages = []
    with pytest.raises(StoreError, match="could not be written"):
        analyse(_config(pair), progress=lambda step: stages.append(step.stage))
    assert stages == []


def test_an_unsound_certificate_is_never_shown(pair, monkeypatch):
    from fkd.bounds._direction import Direction

    monkeypatch.setattr(Direction, "gap", lambda self: 0 * self.shift)
    config = _config(pair, certificate={"name": "crown"})
    with pytest.raises(SoundnessError, match="certificate claims at most"):
        analyse(config)
    assert find_analysis(config) is None


def test_soundness_of_each_sign_is_checked(pair):
    from fkd.bounds import CertificateResult

    attacked = attack_examples(_config(pair, epsilon=0.2), list(range(8)))
    signed = attacked.teacher_conf - attacked.student_conf
    one, no = torch.ones(8, dtype=torch.float64), torch.zeros(8, dtype=torch.bool)
    check_soundness(attacked, CertificateResult(signed, signed, no, no, no))
    with pytest.raises(SoundnessError, match="certificate claims at most"):
        check_soundness(attacked, CertificateResult(signed - 0.01, -one, no, no, no))
    with pytest.raises(SoundnessError, match="at least"):
        check_soundness(attacked, CertificateResult(one, signed + 0.01, no, no, no))
    nothing = one * torch.nan
    check_soundness(attacked, CertificateResult(nothing, nothing, no, no, no))


def test_soundness_of_agreement_is_checked_too(pair):
    config = _config(pair, epsilon=0.25, count=40)
    attacked = attack_examples(config, list(range(40)))
    from fkd.bounds import CertificateResult

    one = torch.ones(40, dtype=torch.float64)
    yes = torch.ones(40, dtype=torch.bool)
    with pytest.raises(SoundnessError, match="agreement was certified"):
        check_soundness(attacked, CertificateResult(one, -one, yes, yes, yes))


def test_one_example_from_close_by_equals_its_row(pair):
    config = _config(pair, epsilon=0.25)
    analysis = analyse(config)
    row = int(analysis.table[analysis.table.disagrees]["index"].iloc[0])
    detail = example_detail(config, row)
    facts = analysis.table.iloc[row]
    c = facts.gap_class
    gap = abs(detail.teacher_probs_gap[c] - detail.student_probs_gap[c])
    assert gap == pytest.approx(facts.gap_attack, abs=1e-9)
    assert detail.teacher_probs_clean[c] == pytest.approx(facts.teacher_conf, abs=1e-9)
    assert detail.teacher_probs_disagreement.argmax() == facts.teacher_pred_witness
    assert detail.student_probs_disagreement.argmax() == facts.student_pred_witness
    assert np.abs(detail.gap_witness - detail.image).max() <= 0.25 + 1e-6
    assert detail.classes == tuple(str(i) for i in range(10))
    with pytest.raises(ConfigError, match="not among the 24"):
        example_detail(config, 24)
    with pytest.raises(ConfigError, match="analyse it first"):
        example_detail(_config(pair, epsilon=0.07), 0)


def test_witnesses_that_are_not_stored_are_found_again(pair):
    config = _config(pair)
    analysis = analyse(config)
    stored = example_detail(config, 5)
    witness_path(results_dir() / f"{analysis.key}.parquet").unlink()
    again = example_detail(config, 5)
    np.testing.assert_allclose(again.gap_witness, stored.gap_witness, atol=1e-5)


def test_the_curve_brackets_the_analysis_and_is_monotone(pair):
    config = _config(pair)
    facts = analyse(config).table.iloc[3]
    curve = gap_curve(config, 3)
    assert (curve.gap_attack.diff().dropna() >= 0).all()
    assert (curve.gap_certified.diff().dropna() >= 0).all()
    assert (curve.gap_attack <= curve.gap_certified + 1e-6).all()
    at = curve[np.isclose(curve.epsilon, 0.05)].iloc[0]
    assert at.gap_attack >= facts.gap_attack - 1e-6
    assert at.gap_certified <= facts.gap_certified + 1e-6
    start = curve.iloc[0]
    assert start.epsilon == 0 and start.gap_attack == pytest.approx(facts.gap_clean, abs=1e-6)
    pd.testing.assert_frame_equal(curve.reset_index(drop=True), gap_curve(config, 3))
    with pytest.raises(FkdError, match="epsilon must lie in"):
        gap_curve(config, 3, epsilons=[0.1, 2.0])


def test_the_snippet_names_every_choice(pair):
    snippet = reproduce_snippet(_config(pair, gap_class="teacher"))
    assert snippet.startswith(
        "python -m fkd analyse --dataset digits --teacher big --student small"
    )
    assert "--epsilon 0.05 --count 24 --seed 0 --gap-class teacher" in snippet
    in_lines = reproduce_snippet(_config(pair, gap_class="teacher"), lines=True)
    assert shlex.split(in_lines.replace("\\\n", "")) == shlex.split(snippet)
    assert all(line.startswith("  --") for line in in_lines.splitlines()[1:])
    assert max(map(len, in_lines.splitlines())) < 40


@pytest.mark.parametrize(
    "changes",
    [
        {"attack": {}},
        {"epsilon": 8 / 255, "split": "train"},
        {"epsilon": 1e-7, "attack": {"steps": 7, "restarts": 3}},
        {"certificate": {"name": "crown_ibp"}},
    ],
)
def test_the_snippet_asks_for_the_same_key(pair, changes):
    from fkd.cli.options import DEVICE, Option, config_values, options_of, parse

    config = _config(pair, **changes)
    words = shlex.split(reproduce_snippet(config))
    assert words[:4] == ["python", "-m", "fkd", "analyse"]
    options = [*options_of(AnalysisConfig), Option("out", str, ""), DEVICE]
    values = parse("analyse", words[4:], options, description="")
    again = AnalysisConfig.parse(config_values(AnalysisConfig, values))
    assert ResolvedPair(again).key() == ResolvedPair(config).key()


def test_the_curve_of_a_large_ball_ends_at_one(pair):
    curve = gap_curve(_config(pair, epsilon=0.8), 0)
    assert curve.epsilon.iloc[-1] == 1.0 and 0.8 in set(curve.epsilon)
    assert (curve.gap_attack <= curve.gap_certified + 1e-6).all()


def test_configurations_survive_json():
    config = AnalysisConfig.parse(
        {"dataset": "d", "teacher": "t", "student": "s", "epsilon": 0.1, "attack": {"steps": 7}}
    )
    assert parse_analysis(config.model_dump(mode="json")) == config
