"""Tables of one kind, found among the results and what is shipped by the hash of what determines them."""

from __future__ import annotations

from fkd.core.errors import StoreError
from fkd.core.paths import results_dir
from fkd.evaluation.store import shipped_dir
from fkd.records import StoredTable, read_table


def find_table(folder: str, key: str) -> StoredTable | None:
    """The table called ``key`` in a folder of the results, else of what is shipped; None without one.

    A damaged table is as good as none: it is computed again and replaced.
    """
    for place in (results_dir(), shipped_dir()):
        path = place / folder / f"{key}.parquet"
        if not path.is_file():
            continue
        try:
            stored = read_table(path)
        except StoreError:
            continue
        if stored.metadata.get("key") == key:
            return stored
    return None
