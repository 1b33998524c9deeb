"""Networks: architectures, model folders, and finding them by name."""

from fkd.models.base import ARCHITECTURES, Architecture, Network, Normalisation, build
from fkd.models.card import ModelCard, ParentTeacher
from fkd.models.checkpoint import Model, check_new_model, save_model, weight_shapes
from fkd.models.importing import import_model
from fkd.models.pairs import check_pair
from fkd.models.zoo import damaged_models, find_model, list_models, load_model, read_card

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Model",
    "ModelCard",
    "Network",
    "Normalisation",
    "ParentTeacher",
    "build",
    "check_new_model",
    "check_pair",
    "damaged_models",
    "find_model",
    "import_model",
    "list_models",
    "load_model",
    "read_card",
    "save_model",
    "weight_shapes",
]
