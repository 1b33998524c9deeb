"""The columns of the analysis table: dtype, unit and meaning, stored with every Parquet file.

The same text feeds the Parquet field metadata, the dashboard's tool-tips and the README's table.
Confidence means the softmax probability of the class in question; a gap is an absolute difference of
two confidences, so both lie in [0, 1].  ``*_attack`` is reached by a stored witness (lower end of the
truth), ``*_certified`` can never be exceeded inside the ball (upper end).
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import pyarrow as pa

#: Raised when a column changes meaning; part of every key, so old tables are never mistaken for new.
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Column:
    """One column: its Arrow type, unit and meaning."""

    name: str
    dtype: pa.DataType
    unit: str
    meaning: str
    nullable: bool = False


_DICTIONARY = pa.dictionary(pa.int32(), pa.string())

EPSILON_COLUMN = Column(
    "epsilon", pa.float64(), "pixel", "Radius of the ball around the image, in its norm."
)

#: Which split and which pair a row is of.
PAIR_COLUMNS: tuple[Column, ...] = (
    Column("split", _DICTIONARY, "name", "Split of the data set, test or train."),
    Column("teacher", _DICTIONARY, "name", "Teacher's name."),
    Column("student", _DICTIONARY, "name", "Student's name."),
    Column("teacher_hash", _DICTIONARY, "SHA-256", "Teacher's architecture and weights."),
    Column("student_hash", _DICTIONARY, "SHA-256", "Student's architecture and weights."),
    Column("data_hash", _DICTIONARY, "SHA-256", "Pixels and labels of the split."),
)

ANALYSIS_COLUMNS: tuple[Column, ...] = (
    Column("index", pa.int64(), "position", "Example id: position in the data set's split."),
    Column("label", pa.int64(), "class", "True class y of the example."),
    EPSILON_COLUMN,
    Column("gap_class", pa.int64(), "class", "Class c whose confidences are compared."),
    Column("teacher_pred", pa.int64(), "class", "Teacher's prediction at the clean image."),
    Column("student_pred", pa.int64(), "class", "Student's prediction at the clean image."),
    Column("teacher_conf", pa.float64(), "probability", "Teacher's confidence in c, clean."),
    Column("student_conf", pa.float64(), "probability", "Student's confidence in c, clean."),
    Column("gap_clean", pa.float64(), "probability", "|teacher_conf - student_conf|, clean image."),
    Column("gap_attack", pa.float64(), "probability", "Largest gap an attack reached in the ball."),
    Column(
        "gap_certified",
        pa.float64(),
        "probability",
        "Upper bound of the gap on the whole ball; null where no certificate was possible.",
        nullable=True,
    ),
    Column(
        "disagrees",
        pa.bool_(),
        "yes/no",
        "Whether a point of the ball was found where the two predictions differ.",
    ),
    Column(
        "agrees_certified",
        pa.bool_(),
        "yes/no",
        "Whether it is proved that the two predictions are equal everywhere in the ball.",
    ),
    Column(
        "teacher_conf_attack", pa.float64(), "probability", "Teacher's confidence, gap witness."
    ),
    Column(
        "student_conf_attack", pa.float64(), "probability", "Student's confidence, gap witness."
    ),
    Column(
        "gap_upper_certified",
        pa.float64(),
        "probability, signed",
        "Upper bound of teacher minus student confidence on the ball.",
        nullable=True,
    ),
    Column(
        "gap_lower_certified",
        pa.float64(),
        "probability, signed",
        "Lower bound of teacher minus student confidence on the ball.",
        nullable=True,
    ),
    Column(
        "teacher_pred_witness",
        pa.int64(),
        "class",
        "Teacher's prediction at the disagreement witness; null where none was found.",
        nullable=True,
    ),
    Column(
        "student_pred_witness",
        pa.int64(),
        "class",
        "Student's prediction at the disagreement witness; null where none was found.",
        nullable=True,
    ),
    Column(
        "teacher_robust_certified",
        pa.bool_(),
        "yes/no",
        "Whether the teacher's prediction is proved constant on the ball.",
    ),
    Column(
        "student_robust_certified",
        pa.bool_(),
        "yes/no",
        "Whether the student's prediction is proved constant on the ball; "
        "not tried where the two predictions differ at the image.",
    ),
    Column(
        "certificate_reason",
        pa.string(),
        "text",
        "Why a certificate is missing; null where there is one.",
        nullable=True,
    ),
    Column("dataset", _DICTIONARY, "name", "Data set the example is from."),
    *PAIR_COLUMNS,
    Column(
        "norm",
        _DICTIONARY,
        "name",
        "Norm of the ball: linf is the largest pixel change, l2 the root of the sum of squares; after a "
        "slash the scale of each channel, in which epsilon then counts.",
    ),
    Column("attack", _DICTIONARY, "JSON", "The attack and its configuration."),
    Column("certificate", _DICTIONARY, "JSON", "The certificate and its configuration."),
    Column("seed", pa.int64(), "number", "Seed of the attack's random starts."),
    Column("key", _DICTIONARY, "hash", "Key of the table: hash of all that determines it."),
)


def arrow_schema(columns: tuple[Column, ...] = ANALYSIS_COLUMNS) -> pa.Schema:
    """Arrow schema whose field metadata carries each column's unit and meaning."""
    return pa.schema(
        [
            pa.field(
                column.name,
                column.dtype,
                nullable=column.nullable,
                metadata={"unit": column.unit, "meaning": column.meaning},
            )
            for column in columns
        ]
    )


def column_documentation(columns: tuple[Column, ...] = ANALYSIS_COLUMNS) -> pd.DataFrame:
    """Names, units and meanings as a table (``column, dtype, unit, meaning``)."""
    return pd.DataFrame(
        [
            {
                "column": column.name,
                "dtype": str(column.dtype).replace(
                    "dictionary<values=string, indices=int32, ordered=0>", "category"
                ),
                "unit": column.unit,
                "meaning": column.meaning,
            }
            for column in columns
        ]
    )


CURVE_COLUMNS: tuple[Column, ...] = (
    EPSILON_COLUMN,
    Column(
        "gap_attack", pa.float64(), "probability", "Largest gap found in this or a smaller ball."
    ),
    Column(
        "gap_certified",
        pa.float64(),
        "probability",
        "Upper bound of the gap in this or a larger ball; null where there is no certificate.",
        nullable=True,
    ),
)
