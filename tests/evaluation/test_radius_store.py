"""Stored radii: found again at once, never stale, summarised to the safe side."""

import shlex
import shutil

import numpy as np
import pandas as pd
import pytest

from fkd.cli import main
from fkd.core.errors import Cancelled, ConfigError
from fkd.core.paths import models_dir, results_dir
from fkd.evaluation import (
    LARGEST_RADIUS,
    RADIUS_COLUMNS,
    RADIUS_STATUSES,
    RadiusConfig,
    ResolvedPair,
    find_radii,
    found_radius_text,
    list_analyses,
    proved_radius_text,
    radius_key,
    radius_summary,
    reproduce_snippet,
    search_radii,
)
from fkd.evaluation import radius_store as store
from fkd.records import read_metadata, read_table
from tests.support.pairs import save_digits_model

QUICK = {
    "dataset": "digits",
    "teacher": "big",
    "student": "small",
    "attack": {"steps": 5},
    "tolerance": 0.05,
    "count": 4,
    "certificate": {"name": "fast"},
}


@pytest.fixture
def config(own_folders):
    save_digits_model("big", "teacher", hidden=(16,), seed=0)
    save_digits_model("small", "student", hidden=(10,), seed=1)
    return RadiusConfig.parse(QUICK)


@pytest.fixture
def no_search(monkeypatch):
    """From now on nothing may be searched."""

    def refuse():
        def refused(*args, **kwargs):
            raise RuntimeError("a search was begun")

        monkeypatch.setattr(store, "find_agreement_radii", refused)

    return refuse


def test_a_search_is_found_again_as_it_was(config, no_search):
    assert find_radii(config) is None
    first = search_radii(config, device="cpu")
    no_search()
    again = search_radii(config)
    pd.testing.assert_frame_equal(again.table, first.table)
    assert again.key == first.key == radius_key(ResolvedPair(config))
    assert again.metadata == first.metadata
    assert {"seed", "versions", "config", "teacher_hash", "data_hash", "seconds"} <= set(
        first.metadata
    )
    assert list(first.table) == [column.name for column in RADIUS_COLUMNS]
    with pytest.raises(RuntimeError, match="a search was begun"):
        search_radii(config, fresh=True)
    for row in range(QUICK["count"]):
        kept, before = again.nearest_witness(row), first.nearest_witness(row)
        assert (kept is None) == (before is None) == np.isnan(first.table.radius_attack[row])
        assert kept is None or np.array_equal(kept, before)
    assert len(first.witnesses["rows"]) > 0
    # Tables of analyses lie elsewhere.
    assert list_analyses("digits", "big") == []


def test_what_changes_the_result_changes_the_key(config):
    def key(**changes):
        return radius_key(ResolvedPair(RadiusConfig.parse({**QUICK, **changes})))

    same = key()
    assert key(gap_class="teacher") == same
    assert key(attack={"steps": 5, "rows": 7}) == same
    others = [
        {"epsilon": 0.2},
        {"count": 5},
        {"seed": 1},
        {"tolerance": 0.04},
        {"norm": "l2"},
        {"certificate": {"name": "tight"}},
        {"starts": 2},
        {"proofs": False},
        {"student": "big"},
    ]
    keys = {key(**change) for change in others}
    assert len(keys) == len(others) and same not in keys
    # Without proofs the certificate says nothing.
    assert key(proofs=False, certificate={"name": "tight"}) == key(proofs=False)
    # Other weights under the same name.
    shutil.rmtree(models_dir() / "small")
    save_digits_model("small", "student", hidden=(10,), seed=2)
    assert key() != same


@pytest.mark.parametrize(
    "version",
    ["fkd.evaluation.radius_store._SEARCH_VERSION", "fkd.evaluation.config.PROCEDURE_VERSION"],
)
def test_a_new_procedure_finds_nothing_old(config, monkeypatch, version):
    search_radii(config, device="cpu")
    assert find_radii(config) is not None
    monkeypatch.setattr(version, 99)
    assert find_radii(config) is None


def test_a_damaged_table_is_made_again(config):
    first = search_radii(config, device="cpu")
    path = results_dir() / "radii" / f"{first.key}.parquet"
    path.write_bytes(b"nothing")
    assert find_radii(config) is None
    again = search_radii(config, device="cpu")
    pd.testing.assert_frame_equal(
        again.table.drop(columns="seconds"), first.table.drop(columns="seconds")
    )
    assert find_radii(config) is not None


def test_a_cancelled_search_stores_nothing(config):
    with pytest.raises(
        Cancelled, match=r"^Stopped during radius nearest after 0 of 4, as asked\.$"
    ):
        search_radii(config, device="cpu", progress=lambda report: True)
    # A certificate that is stopped does not speak of its own round.
    within = []

    def late(report):
        if report.stage == "radius fast":
            within.append(report)
        return len(within) > 1

    with pytest.raises(
        Cancelled, match=r"^Stopped during radius fast after [0-4] of 4, as asked\.$"
    ):
        search_radii(config, device="cpu", progress=late)
    assert find_radii(config) is None


def test_progress_grows_within_each_stage(config):
    reports = []
    search_radii(config, device="cpu", progress=lambda p: bool(reports.append(p)))
    stages = list(dict.fromkeys(p.stage for p in reports))
    assert stages == ["radius nearest", "radius attack", "radius fast", "radius check"]
    for stage in stages:
        done = [p.done for p in reports if p.stage == stage]
        assert done == sorted(done) and all(0 <= d <= 4 for d in done)
    assert reports[-1].values["proved_mean"] > 0


def test_the_largest_radius_follows_the_norm():
    names = {"dataset": "digits", "teacher": "big", "student": "small"}
    assert RadiusConfig.parse(names).epsilon == LARGEST_RADIUS["linf"]
    assert RadiusConfig.parse({**names, "norm": "l2"}).epsilon == LARGEST_RADIUS["l2"]
    assert RadiusConfig.parse({**names, "norm": "l2", "epsilon": 0.5}).epsilon == 0.5


def test_the_command_uses_the_store(config, no_search, tmp_path, capsys):
    config = RadiusConfig.parse({**QUICK, "seed": 3, "norm": "l2", "epsilon": 2.5})
    radii = search_radii(config, device="cpu")
    no_search()
    # python -m fkd ... --out FILE
    words = [*shlex.split(reproduce_snippet(config))[3:-2], "--quiet"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert f"Stored under the key {radii.key}." in shown
    median = radius_summary(radii.table).radius_certified_median
    assert f"Median radius: at least {proved_radius_text(median)} (certified, lower" in shown
    out = tmp_path / "radii.parquet"
    assert main([*words, "--out", str(out)]) == 0
    pd.testing.assert_frame_equal(read_table(out).table, radii.table)
    assert read_metadata(out)["key"] == radii.key
    assert main([*words, "--fresh"]) == 2
    assert main([*words, "--no-proofs"]) == 2  # another search
    assert main([*words, "--background", "--fresh"]) == 2
    assert "--background stores the result by itself" in capsys.readouterr().err


def test_the_command_can_leave_proofs_out(config, capsys):
    config = RadiusConfig.parse({**QUICK, "proofs": False, "starts": 2})
    words = [*shlex.split(reproduce_snippet(config))[3:-2], "--quiet"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "no certificate" in shown and "not tried" in shown
    assert "Median radius: at most" in shown and "0.0000" not in shown
    stored = find_radii(config)
    assert f"Stored under the key {stored.key}." in shown
    assert set(stored.table.status) <= set(RADIUS_STATUSES)


def _table(*rows):
    table = pd.DataFrame(rows, columns=["radius_certified", "radius_attack", "status"])
    table["disagrees_clean"] = table.status == "disagrees clean"
    return table


def test_a_summary_claims_no_more_than_is_known():
    table = _table(
        (0.0, 0.0, "disagrees clean"),
        (0.1, 0.1002, "closed"),
        (0.12, 0.2, "open"),
        (0.3, np.nan, "whole"),
    )
    summary = radius_summary(table)
    assert (summary.count, summary.disagrees_clean, summary.not_found) == (4, 1, 1)
    # The lower of two in the middle is proved, the upper was found.
    assert summary.radius_certified_median == 0.1
    assert summary.radius_attack_median == 0.2
    assert summary.known_share == 0.75
    assert summary.open_width_median == pytest.approx(0.0002)
    assert set(table.status) <= set(RADIUS_STATUSES)


def test_a_median_that_was_not_found_is_none():
    table = _table((0.3, np.nan, "whole"), (0.3, np.nan, "whole"), (0.1, 0.2, "open"))
    assert radius_summary(table).radius_attack_median is None
    nothing = radius_summary(_table((0.0, np.nan, "unsupported")))
    assert (nothing.unsupported, nothing.open_width_median) == (1, None)
    with pytest.raises(ConfigError, match="without rows"):
        radius_summary(_table())


def test_radii_are_rounded_to_the_safe_side():
    assert (proved_radius_text(0.09629), found_radius_text(0.09621)) == ("0.0962", "0.0963")
    assert proved_radius_text(0.1 + 0.2 - 5e-17) == found_radius_text(0.1 + 0.2) == "0.3000"
