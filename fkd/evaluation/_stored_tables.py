"""Tables of one kind, found among the results and what is shipped by the hash of what determines them."""

from __future__ import annotations

import datetime
import time
from typing import Any

from fkd.core.errors import StoreError
from fkd.core.paths import results_dir
from fkd.core.versions import package_versions
from fkd.evaluation.config import AttackedConfig
from fkd.evaluation.store import shipped_dir
from fkd.records import SCHEMA_VERSION, StoredTable, read_table


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


def provenance(key: str, config: AttackedConfig, started: float) -> dict[str, Any]:
    """What every stored table says of itself; ``started`` is the `time.perf_counter` at its beginning."""
    return {
        "key": key,
        "schema": SCHEMA_VERSION,
        "config": config.model_dump(mode="json"),
        "seed": config.seed,
        "versions": package_versions(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - started, 3),
    }
