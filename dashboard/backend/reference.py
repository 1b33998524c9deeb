"""What the numbers mean, and what this installation is made of."""

from __future__ import annotations

import pandas as pd

from fkd.core import paths, versions
from fkd.evaluation import Summary
from fkd.records import column_documentation as _column_documentation


def column_documentation() -> pd.DataFrame:
    """Every column of the analysis table: name, dtype, unit, meaning."""
    return _column_documentation()


def column_meanings() -> dict[str, str]:
    """Meaning of each column of the analysis table, for tool-tips."""
    table = _column_documentation()
    return dict(zip(table["column"], table["meaning"], strict=True))


def summary_meanings() -> dict[str, str]:
    """Meaning of each figure of a summary, for tool-tips."""
    return {name: field.description or "" for name, field in Summary.model_fields.items()}


def package_versions() -> dict[str, str]:
    """Versions of what determines numbers."""
    return versions.package_versions()


def where_things_are() -> dict[str, str]:
    """Folders of data, models, results and runs."""
    return {
        "data sets": str(paths.data_dir()),
        "your models": str(paths.models_dir()),
        "results": str(paths.results_dir()),
        "runs": str(paths.runs_dir()),
    }
