"""The registry alone, in a module that imports no data set, so that nothing is imported in a circle."""

from __future__ import annotations

from fkd.core.registry import Registry
from fkd.data.base import DataSet

#: Built-in data sets, one file each; `fkd.data.get_data_set` also finds those a user dropped in.
DATA_SETS: Registry[type[DataSet]] = Registry("data set", "fkd.data")
