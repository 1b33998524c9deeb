"""Witnesses of one student on another: two linear networks by hand, digits end to end, bad input."""

import numpy as np
import pandas as pd
import pytest

from fkd.core.errors import SoundnessError
from fkd.core.paths import results_dir
from fkd.data import load_split
from fkd.evaluation import (
    TRANSFER_COLUMNS,
    TransferConfig,
    analyse,
    find_transfer,
    save_analysis,
    summarise,
    transfer_summary,
    transfer_witnesses,
)
from fkd.evaluation import transfer as measuring
from tests.support.linear import save_linear_pairs
from tests.support.pairs import save_digits_model
from tests.support.transfers import QUICK, save_students


@pytest.fixture
def config(own_folders):
    save_students()
    return TransferConfig.parse(QUICK)


def differing(table):
    """Where a witness is known to make the two differ, as a list."""
    return table.disagrees.fillna(False).astype(bool).tolist()


def cells(table):
    return {(cell.source, cell.target): cell for cell in transfer_summary(table).cells}


# ---------------------------------------------------------------- by hand


@pytest.fixture
def linear(own_folders):
    return save_linear_pairs()


def _odds(log_odds):
    return 1 / (1 + np.exp(-log_odds))


def test_two_networks_that_look_at_different_pixels_share_nothing(linear):
    config = TransferConfig.parse(linear, students=["first", "second", "twin"])
    table = transfer_witnesses(config, device="cpu").table
    found = {(row.source, row.target): row for row in table.itertuples()}
    middle = float(np.float32(128 / 255))
    # Raised by 0.2, a pixel takes its student's log-odds of 1 from below 0 to above; the teacher stays.
    teacher = _odds(-1.0)
    own = _odds(10 * (middle + 0.2) - 6) - teacher
    assert found["first", "first"].gap == pytest.approx(own, abs=1e-6)
    assert found["second", "second"].gap == pytest.approx(own, abs=1e-6)
    assert found["twin", "twin"].gap == pytest.approx(_odds(20 * (middle + 0.2) - 12) - teacher)
    assert all(found[name, name].disagrees for name in config.students)
    # The same pixel at the same end of its range, twice as steep.
    assert found["first", "twin"].gap == pytest.approx(found["twin", "twin"].gap, abs=1e-6)
    assert found["twin", "first"].gap == pytest.approx(own, abs=1e-6)
    assert found["first", "twin"].disagrees and found["twin", "first"].disagrees
    for row in found.values():
        slope, offset = (20, 12) if row.target == "twin" else (10, 6)
        assert row.gap_clean == pytest.approx(abs(_odds(slope * middle - offset) - teacher))
        assert row.gap_own == found[row.target, row.target].gap


def test_a_pixel_that_is_left_alone_tells_the_other_student_nothing(linear, monkeypatch):
    config = TransferConfig.parse(linear, students=["first", "second"])
    image = load_split("two", "test").images[:1].numpy()
    moved = image + np.array([0.2, 0.0], dtype=np.float32)
    witnesses = {
        "gap_witness": moved,
        "disagreement_rows": np.array([0]),
        "disagreement_witness": moved,
    }
    monkeypatch.setattr(measuring, "witness_arrays", lambda _: witnesses)
    table = transfer_witnesses(config, device="cpu").table
    (row,) = table[(table.source == "first") & (table.target == "second")].itertuples()
    # `second` sees what it saw at the image; both say 0 there.
    assert row.gap == pytest.approx(row.gap_clean, abs=1e-12)
    assert not row.disagrees
    cell = cells(table)["first", "second"]
    assert (cell.witnesses, cell.carried.value) == (1, 0.0)


# ---------------------------------------------------------------- on digits


def test_the_diagonal_is_each_students_own_analysis(config):
    found = transfer_witnesses(config, device="cpu")
    table = found.table
    assert list(table) == [column.name for column in TRANSFER_COLUMNS]
    assert len(table) == 16 * 2 * 2
    for name in config.students:
        # Made after the transfer, so that nothing was read from it.
        analysis = analyse(config.pair(name), device="cpu").table
        own = table[(table.source == name) & (table.target == name)]
        assert own["index"].tolist() == analysis["index"].tolist()
        np.testing.assert_allclose(own.gap, analysis.gap_attack, atol=1e-12)
        np.testing.assert_allclose(own.gap_clean, analysis.gap_clean, atol=1e-12)
        assert differing(own) == analysis.disagrees.tolist()
        assert own.disagrees.isna().tolist() == (~analysis.disagrees).tolist()
        cell = cells(table)[name, name]
        assert cell.carried.value == cell.gap_ratio == 1.0
        assert cell.witnesses == analysis.disagrees.sum() > 0
        assert cell.gap_mean == pytest.approx(summarise(analysis).gap_attack_mean)
        # Another's witness is a point of the same ball: no certificate may be below it.
        on_it = table[table.target == name].groupby("index").gap.max()
        assert (on_it.to_numpy() <= analysis.gap_certified + 1e-9).all()
    assert found.metadata["witnesses_from"] == {"near": None, "other": None}
    # Now both analyses are stored, and their witnesses are the same points.
    again = transfer_witnesses(config, device="cpu", fresh=True)
    pd.testing.assert_frame_equal(again.table, table)


def test_stored_witnesses_are_used_and_change_nothing(config, monkeypatch):
    first = transfer_witnesses(config, device="cpu").table
    keys = {name: analyse(config.pair(name), device="cpu").key for name in config.students}
    (results_dir() / "transfers" / f"{find_transfer(config).key}.parquet").unlink()

    def refuse(*_, **__):
        raise RuntimeError("an attack was begun")

    monkeypatch.setattr(measuring, "attack_pair", refuse)
    read = transfer_witnesses(config, device="cpu")
    assert read.metadata["witnesses_from"] == keys
    pd.testing.assert_frame_equal(read.table, first)
    with pytest.raises(RuntimeError, match="an attack was begun"):
        transfer_witnesses(config, device="cpu", fresh=True)


@pytest.mark.parametrize("lack", ["no witnesses", "a search's points"])
def test_an_analysis_whose_witnesses_are_not_the_attacks_is_left_alone(config, lack):
    analysis = analyse(config.pair("near"), device="cpu")
    if lack == "no witnesses":
        analysis.witnesses.clear()
    else:
        analysis.metadata["witnesses_of_certificate"] = 1
    save_analysis(analysis)
    found = transfer_witnesses(config, device="cpu")
    assert found.metadata["witnesses_from"] == {"near": None, "other": None}


def test_identical_students_share_everything(config):
    save_digits_model("copy", "student", hidden=(10,), seed=1)
    table = transfer_witnesses(config.model_copy(update={"students": ("copy", "near")})).table
    found = cells(table)
    for names in (("copy", "near"), ("near", "copy")):
        cell = found[names]
        assert cell.carried.value == cell.gap_ratio == 1.0
        assert cell.beats.value == 0.0
        assert cell.gap_mean == found["near", "near"].gap_mean
    assert all(gain.disagreements_new == 0 for gain in transfer_summary(table).gains)


def test_an_example_is_measured_alike_in_any_company(config):
    many = transfer_witnesses(config, device="cpu").table
    few = transfer_witnesses(config.model_copy(update={"count": 5}), device="cpu").table
    first = many[many["index"] < 5].reset_index(drop=True)
    assert first[["index", "source", "target"]].equals(few[["index", "source", "target"]])
    assert differing(first) == differing(few)
    np.testing.assert_allclose(first.gap, few.gap, atol=1e-6)
    # A third student changes nothing of what two say of each other.
    save_digits_model("third", "student", hidden=(8,), seed=3)
    three = config.model_copy(update={"students": ("near", "other", "third")})
    table = transfer_witnesses(three, device="cpu").table
    two = table[(table[["source", "target"]] != "third").all(axis=1)].reset_index(drop=True)
    pd.testing.assert_frame_equal(two, many)


def test_the_class_compared_may_be_the_teachers(config):
    by_teacher = config.model_copy(update={"gap_class": "teacher"})
    table = transfer_witnesses(by_teacher, device="cpu").table
    analysis = analyse(by_teacher.pair("other"), device="cpu").table
    own = table[(table.source == "other") & (table.target == "other")]
    np.testing.assert_allclose(own.gap, analysis.gap_attack, atol=1e-12)


def test_a_witness_above_anothers_certificate_stops_the_program(config):
    analysis = analyse(config.pair("other"), device="cpu")
    analysis.table["gap_certified"] = analysis.table.gap_clean
    save_analysis(analysis)
    with pytest.raises(SoundnessError, match=r"where the certificate of .* claims at most"):
        transfer_witnesses(config, device="cpu")
    analysis.table["gap_certified"] = 1.0
    analysis.table["agrees_certified"] = True
    save_analysis(analysis)
    with pytest.raises(SoundnessError, match="claims agreement for 'other'"):
        transfer_witnesses(config, device="cpu")
    assert find_transfer(config) is None
