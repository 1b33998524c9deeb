"""Fashion-MNIST: articles of clothing of 28x28 pixels."""

from __future__ import annotations

from fkd.data._idx import IdxDataSet
from fkd.data._registry import DATA_SETS


@DATA_SETS.register("fashion_mnist")
class FashionMnist(IdxDataSet):
    """70,000 articles of clothing, 28x28 grey; downloaded on request.

    Source: Xiao, Rasul and Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine
    learning algorithms", arXiv:1708.07747; the published 60,000 train and 10,000 test examples.
    """

    title = "Fashion-MNIST"
    licence = "MIT"
    source = "torchvision"
    classes = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )
    image_shape = (1, 28, 28)
    folder_name = "FashionMNIST"
    reserved_names = ("FashionMNIST",)
    known_fingerprints = {
        "train": "e26681aad89cda7f2c126800345ea4ace14728c987992506a9d7f4782854f07c",
        "test": "78f84856632935d975a2218086c2d2899777268bc6eebaaec522f3a6f95c87c5",
    }
