"""Records: documented columns, Parquet tables with their provenance, witnesses beside."""

from fkd.records.schemas import (
    ANALYSIS_COLUMNS,
    EPSILON_COLUMN,
    PAIR_COLUMNS,
    SCHEMA_VERSION,
    Column,
    arrow_schema,
    column_documentation,
)
from fkd.records.store import (
    StoredTable,
    conform,
    ensure_writable,
    list_tables,
    read_metadata,
    read_table,
    read_tensors,
    write_table,
    write_tensors,
)

__all__ = [
    "ANALYSIS_COLUMNS",
    "EPSILON_COLUMN",
    "PAIR_COLUMNS",
    "SCHEMA_VERSION",
    "Column",
    "StoredTable",
    "arrow_schema",
    "column_documentation",
    "conform",
    "ensure_writable",
    "list_tables",
    "read_metadata",
    "read_table",
    "read_tensors",
    "write_table",
    "write_tensors",
]
