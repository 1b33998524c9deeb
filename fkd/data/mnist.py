"""MNIST: handwritten digits of 28x28 pixels."""

from __future__ import annotations

from fkd.data._idx import IdxDataSet
from fkd.data._registry import DATA_SETS


@DATA_SETS.register("mnist")
class Mnist(IdxDataSet):
    """70,000 handwritten digits, 28x28 grey; downloaded on request.

    Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits", 1998; the published
    60,000 train and 10,000 test examples in their original order.
    """

    title = "MNIST"
    licence = "CC BY-SA 3.0"
    source = "torchvision"
    classes = tuple("0123456789")
    image_shape = (1, 28, 28)
    folder_name = "MNIST"
    reserved_names = ("MNIST",)
    known_fingerprints = {
        "train": "f2153ce03ad90a912b520b09706027e3a3a37dcbf1209e3d386c710fc71a960d",
        "test": "82c9cbb0f1c09932d7c177bee331f73c4fced2eccf6042e31dbf07d9d10a808e",
    }
