"""``python -m fkd transfer``."""

import pandas as pd
import pytest

import fkd.cli
from fkd.evaluation import TRANSFER_COLUMNS, transfer_summary
from fkd.records import read_metadata
from tests.support.transfers import save_students

QUICK = ["--teacher", "big", "--epsilon", "0.08", "--count", "8", "--attack", "steps=3"]


@pytest.fixture
def transfer(own_folders, capsys):
    """Run the command on small models: ``(exit code, stdout, stderr)``."""
    save_students()

    def command(*words):
        code = fkd.cli.main(["transfer", "--dataset", "digits", *QUICK, *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def test_the_matrices_are_printed_and_the_table_stored(transfer, tmp_path):
    code, out, err = transfer("--students", "other", "near")
    assert (code, "transfer: 2 of 2" in err) == (0, True)
    lines = out.splitlines()
    assert lines[0].startswith(
        "Students of big on digits (test), epsilon 0.08, 8 examples, seed 0;"
    )
    assert sum(line.startswith("(1) near ") for line in lines) == 3
    assert sum(line.startswith("(2) other ") for line in lines) == 3

    path = tmp_path / "t.parquet"
    code, out, err = transfer("--students", "near", "other", "--out", path)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == f"Table: {path}"
    table = pd.read_parquet(path)
    assert list(table) == [column.name for column in TRANSFER_COLUMNS]
    assert read_metadata(path)["config"]["students"] == ["near", "other"]
    # What is printed is what the table says.
    cells = {(cell.source, cell.target): cell for cell in transfer_summary(table).cells}
    (carried, ratios, _) = (line.split() for line in out.splitlines() if line.startswith("(1) "))
    cell = cells["near", "other"]
    assert int(carried[2]) == cell.witnesses > 0
    # Each share is "x % (low to high)": six words.
    assert carried[3:5] == ["100.0", "%"]
    assert float(carried[8]) == pytest.approx(100 * cell.carried.value, abs=0.05)
    assert float(ratios[2]) == 100.0
    assert float(ratios[4]) == pytest.approx(100 * cell.gap_ratio, abs=0.05)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--students", "near"], "at least two students are needed, got 'near' alone"),
        (["--students", "near", "near"], "'near' is named more than once"),
        (["--students", "near", "nobody"], "There is no model called 'nobody'"),
        (["--students", "near", "mnist-kd-of-pgd"], "choose two models of the same data set"),
        (["--students", "near", "other", "--out", "t.csv"], "--out must end in .parquet"),
        (["--students", "near", "other", "--count", "9999"], "9999 cannot be analysed"),
        (["--students", "near", "other", "--background", "--fresh"], "--background stores"),
    ],
)
def test_bad_input_is_one_sentence(transfer, words, sentence):
    code, out, err = transfer(*words)
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1
