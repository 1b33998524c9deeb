"""Training teachers and distilling students: one interface, one file per method."""

from fkd.distillation.base import METHODS, Batch, Clock, LossParts, Method, kl_divergence
from fkd.distillation.measure import (
    certified_accuracy,
    evaluate_accuracy,
    robust_accuracy,
    teacher_agreement,
)
from fkd.distillation.spec import TrainSpec, check_spec
from fkd.distillation.trainer import train_model

__all__ = [
    "METHODS",
    "Batch",
    "Clock",
    "LossParts",
    "Method",
    "TrainSpec",
    "certified_accuracy",
    "check_spec",
    "evaluate_accuracy",
    "kl_divergence",
    "robust_accuracy",
    "teacher_agreement",
    "train_model",
]
