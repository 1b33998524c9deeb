"""Training teachers, distilling students, and copying networks: one interface, one file per method."""

from fkd.distillation.base import METHODS, Batch, Clock, LossParts, Method, kl_divergence
from fkd.distillation.copies import COPIES, CopySpec, check_copy, copy_model
from fkd.distillation.measure import (
    certified_accuracy,
    evaluate_accuracy,
    robust_accuracy,
    teacher_agreement,
)
from fkd.distillation.spec import TrainSpec, check_spec
from fkd.distillation.trainer import train_model, training_examples

__all__ = [
    "COPIES",
    "METHODS",
    "Batch",
    "Clock",
    "CopySpec",
    "LossParts",
    "Method",
    "TrainSpec",
    "certified_accuracy",
    "check_copy",
    "check_spec",
    "copy_model",
    "evaluate_accuracy",
    "kl_divergence",
    "robust_accuracy",
    "teacher_agreement",
    "train_model",
    "training_examples",
]
