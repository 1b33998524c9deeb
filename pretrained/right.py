"""Which test images each shipped student gets right: a bit an image, one table a data set.

Claims compare the accuracies of students on the same images, which tell two apart better than as many
images drawn anew for each.  The bits are shipped, so that the verdicts do not depend on whether the data
are there.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from fkd.core.precision import double_copy, logits_of
from fkd.core.versions import package_versions
from fkd.data import get_data_set
from fkd.evaluation import shipped_dir
from fkd.models import load_model, read_card
from fkd.records import Column, read_table, write_table
from pretrained.specs import Member, is_current

LOG = logging.getLogger("build")

#: Folder of the tables, below that of the analyses.
RIGHT_FOLDER = "right"
_SPLIT = "test"

RIGHT_COLUMNS: tuple[Column, ...] = (
    Column("model_hash", pa.string(), "hash", "Hash of the student's weights and architecture."),
    Column("count", pa.int64(), "examples", "Images of the test split."),
    Column(
        "right",
        pa.binary(),
        "bits",
        "Whether the student classifies each image of the test split as labelled, in its order: eight "
        "images a byte, the first one highest.",
    ),
)


def right_path(dataset: str) -> Path:
    """Where a data set's table lies, whether or not it is there."""
    return shipped_dir() / RIGHT_FOLDER / f"{dataset}.parquet"


def ship_right(members: Sequence[Member]) -> None:
    """Make each data set's table one of its current students; what it has of them is kept.

    Args:
        members: the whole zoo.

    Raises:
        DataError: the images of a student that is new are not there.
    """
    for dataset in sorted({member.dataset for member in members}):
        students = [m for m in members if m.dataset == dataset and m.teacher and is_current(m.spec)]
        names = {read_card(member.name).model_hash: member.name for member in students}
        known = _stored(dataset)
        if not names or set(known.index) == set(names):
            continue
        new = [_row(dataset, name) for key, name in names.items() if key not in known.index]
        kept = known[known.index.isin(list(names))].reset_index()
        table = pd.DataFrame([*kept.to_dict("records"), *new]).sort_values("model_hash")
        metadata = {
            "data_hash": get_data_set(dataset).fingerprint(_SPLIT),
            "versions": package_versions(),
        }
        path = right_path(dataset)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(path, table, metadata, RIGHT_COLUMNS)
        LOG.info("%s: test images told right or wrong of %d more students", dataset, len(new))


def right_of(students: Sequence[Member]) -> dict[str, pd.Series]:
    """Whether each test image is classified as labelled, by student, as far as it is stored.

    Returns:
        bool (N,) of the test split's N images, by name, indexed from 0.
    """
    stored = {dataset: _stored(dataset) for dataset in {member.dataset for member in students}}
    found = {}
    for member in students:
        table, key = stored[member.dataset], read_card(member.name).model_hash
        if key in table.index:
            bits = np.frombuffer(table.loc[key, "right"], dtype=np.uint8)
            right = np.unpackbits(bits, count=int(table.loc[key, "count"]))
            found[member.name] = pd.Series(right.astype(bool))
    return found


def _row(dataset: str, name: str) -> dict[str, object]:
    """A student's row, predicted in float64 as all figures are."""
    model, split = load_model(name), get_data_set(dataset).load(_SPLIT)
    right = logits_of(double_copy(model.network), split.images).argmax(1) == split.labels
    return {
        "model_hash": model.card.model_hash,
        "count": len(right),
        "right": np.packbits(right.numpy()).tobytes(),
    }


def _stored(dataset: str) -> pd.DataFrame:
    """Rows by the student's hash; none where there is no table, or it is of other images."""
    empty = pd.DataFrame(columns=[column.name for column in RIGHT_COLUMNS]).set_index("model_hash")
    path = right_path(dataset)
    if not path.is_file():
        return empty
    stored = read_table(path)
    is_same = stored.metadata["data_hash"] == get_data_set(dataset).fingerprint(_SPLIT)
    return stored.table.set_index("model_hash") if is_same else empty
