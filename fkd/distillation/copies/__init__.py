"""Students that are altered copies of a trained network: no training, one file per way of copying."""

from fkd.distillation.copies.base import COPIES, Copying
from fkd.distillation.copies.make import copy_model
from fkd.distillation.copies.spec import CopyPlan, CopySpec, check_copy

__all__ = ["COPIES", "CopyPlan", "CopySpec", "Copying", "check_copy", "copy_model"]
