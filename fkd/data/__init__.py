"""Data sets: images in [0, 1] with labels, from scikit-learn, torchvision or the user's own files.

A new built-in set is one new file that registers a class in `DATA_SETS`.
"""

from fkd.data._catalogue import DataSetInfo, get_data_set, list_data_sets, load_split
from fkd.data._registry import DATA_SETS
from fkd.data.base import DataSet, Split, SplitName

__all__ = [
    "DATA_SETS",
    "DataSet",
    "DataSetInfo",
    "Split",
    "SplitName",
    "get_data_set",
    "list_data_sets",
    "load_split",
]
