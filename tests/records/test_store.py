"""Tables are written whole or not at all, and carry their documentation and provenance."""

import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from fkd.core.errors import StoreError
from fkd.records import (
    ANALYSIS_COLUMNS,
    column_documentation,
    ensure_writable,
    read_metadata,
    read_table,
    read_tensors,
    write_table,
    write_tensors,
)
from fkd.records.schemas import CURVE_COLUMNS


def _curve(rows=3):
    return pd.DataFrame(
        {
            "epsilon": np.linspace(0, 0.1, rows),
            "gap_attack": np.linspace(0, 0.5, rows),
            "gap_certified": [np.nan] + [0.9] * (rows - 1),
        }
    )


def test_what_is_written_comes_back_with_units_and_provenance(tmp_path):
    path = tmp_path / "deep" / "curve.parquet"
    write_table(path, _curve(), {"key": "abc", "seed": 3}, columns=CURVE_COLUMNS)
    stored = read_table(path)
    pd.testing.assert_frame_equal(stored.table, _curve())
    assert stored.metadata == {"key": "abc", "seed": 3} == read_metadata(path)
    field = pq.read_schema(path).field("gap_attack")
    assert field.metadata[b"unit"] == b"probability"
    assert b"Largest gap" in field.metadata[b"meaning"]
    assert pd.read_parquet(path).shape == (3, 3)


def test_every_column_is_documented():
    documentation = column_documentation()
    assert list(documentation.column) == [c.name for c in ANALYSIS_COLUMNS]
    assert (documentation[["unit", "meaning"]].map(len) > 2).all().all()
    required = "index label epsilon teacher_pred student_pred teacher_conf student_conf gap_clean "
    required += "gap_attack gap_certified disagrees agrees_certified"
    assert set(required.split()) <= set(documentation.column)


def test_a_null_where_none_is_allowed_is_refused(tmp_path):
    table = _curve()
    table["gap_attack"] = [0.1, None, 0.2]
    with pytest.raises(Exception, match="gap_attack"):
        write_table(tmp_path / "x.parquet", table, {}, columns=CURVE_COLUMNS)
    assert list(tmp_path.glob("*parquet*")) == []


def test_a_full_disk_keeps_the_old_file_and_says_so(tmp_path):
    """A real write failure: the process may write no file larger than 20 kB."""
    path = tmp_path / "curve.parquet"
    write_table(path, _curve(), {"key": "old"}, columns=CURVE_COLUMNS)
    script = f"""
        import resource, signal
        import numpy as np, pandas as pd
        from fkd.core.errors import StoreError
        from fkd.records import write_table, write_tensors
        from fkd.records.schemas import CURVE_COLUMNS
        from pathlib import Path
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        big = np.random.default_rng(0).random(50_000)
        table = pd.DataFrame(dict(epsilon=big, gap_attack=big, gap_certified=big))
        path = Path({str(path)!r})
        for write in (
            lambda: write_table(path, table, {{"key": "new"}}, columns=CURVE_COLUMNS),
            lambda: write_tensors(path.with_suffix(".safetensors"), {{"a": big}}, {{}}),
        ):
            try:
                write()
            except StoreError as error:
                print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    sentences = done.stdout.strip().splitlines()
    assert len(sentences) == 2
    assert all("could not be written" in s and "Nothing was changed" in s for s in sentences)
    assert read_metadata(path) == {"key": "old"}
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["curve.parquet"]


def test_damaged_and_foreign_files_are_one_sentence(tmp_path):
    damaged, foreign = tmp_path / "damaged.parquet", tmp_path / "foreign.parquet"
    damaged.write_bytes(b"PAR1 nonsense")
    _curve().to_parquet(foreign)
    for path in (damaged, foreign):
        with pytest.raises(StoreError, match="not a readable fkd table") as caught:
            read_table(path)
        assert "\n" not in str(caught.value)
        assert read_metadata(path) is None
    with pytest.raises(StoreError, match="run the analysis first"):
        read_table(tmp_path / "absent.parquet")


def test_tensors_come_back_and_damage_reads_as_absent(tmp_path):
    path = tmp_path / "w.safetensors"
    array = np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2]
    write_tensors(path, {"a": array}, {"key": "k"})
    np.testing.assert_array_equal(read_tensors(path)["a"], array)
    path.write_bytes(path.read_bytes()[:-5])
    assert read_tensors(path) is None
    assert read_tensors(tmp_path / "absent.safetensors") is None


def test_a_folder_that_cannot_hold_the_result_is_found_out_first(tmp_path):
    ensure_writable(tmp_path / "new", 1000)
    with pytest.raises(StoreError, match=r"The results could not.*MiB free of the"):
        ensure_writable(tmp_path, 2**62)
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(StoreError, match=r"The table could not be written in .*inside"):
        ensure_writable(blocked / "inside", 1000, "The table")
