"""What the two forms of CCKD share: the confidence that weighs an example, and who takes part."""

from __future__ import annotations

from abc import ABC

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from fkd.core.config import Config
from fkd.core.precision import logits_of
from fkd.distillation._inner import frozen_statistics
from fkd.distillation.base import Method, Setting

#: Examples judged at a time.
_ROWS = 2048


class CCKDConfig(Config):
    """Temperature, and whether examples leave the distillation."""

    temperature: float = Field(
        default=4.0, gt=0.0, le=100.0, description="Softens both networks' outputs."
    )
    self_regulation: bool = Field(
        default=False,
        description="Whether an example leaves while the student is right on it and as sure of the "
        "label as the teacher.",
    )
    margin: float = Field(
        default=0.0,
        ge=-1.0,
        le=1.0,
        description="With self-regulation: how far the student's confidence in the label must be "
        "above the teacher's; negative: how far it may stay below.",
    )
    check_every: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="With self-regulation: epochs between two looks at who takes part.",
    )


def label_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """Probability of the label at temperature 1, in [0, 1].

    Args:
        logits: (N, K).
        labels: int64 (N,).

    Returns:
        (N,), without a gradient.
    """
    probabilities = functional.softmax(logits.detach(), dim=1)
    return probabilities.gather(1, labels[:, None]).squeeze(1)


def who_takes_part(
    logits: Tensor, labels: Tensor, confidence: Tensor, *, margin: float, least: int
) -> Tensor:
    """Examples on which the student is wrong or p^S_y < p^T_y + margin, and at least ``least`` of them.

    Where fewer qualify, the others follow in the order of the student's confidence, least sure first.

    Args:
        logits: the student's (N, K).
        labels: int64 (N,).
        confidence: the teacher's of the label (N,).
        margin: how far the student's confidence must be above.
        least: how many take part in any case; all where N is smaller.

    Returns:
        bool (N,).
    """
    sure = label_confidence(logits, labels)
    taking = (logits.argmax(1) != labels) | (sure < confidence + margin)
    if int(taking.sum()) < least:
        # Confidences are at most 1, so that whoever qualifies comes first.
        hardest = torch.argsort(torch.where(taking, sure - 2.0, sure), stable=True)
        taking[hardest[:least]] = True
    return taking


class ConfidenceConditioned(Method, ABC):
    """A method of `CCKDConfig`: it lets examples leave and says how many stayed."""

    Config = CCKDConfig

    def set_up(self, setting: Setting) -> None:
        """With self-regulation: remember the teacher's confidences and who takes part."""
        if not self.config.self_regulation or setting.teacher is None:
            return
        confidence = label_confidence(logits_of(setting.teacher, setting.images), setting.labels)
        self.extra.register_buffer("teacher_confidence", confidence)
        self.extra.register_buffer("taking_part", torch.zeros_like(setting.labels).bool())
        self.extra.register_buffer("share", torch.ones((), dtype=torch.float64))

    def choose_examples(self, setting: Setting, epoch: int) -> Tensor | None:
        """Everybody; with self-regulation those of `who_takes_part`, looked at every few epochs."""
        if not self.config.self_regulation:
            return None
        if epoch % self.config.check_every == 0:
            ids = setting.example_ids
            with frozen_statistics(setting.student):
                # A copy of all images at once could be larger than the network's own memory.
                parts = [logits_of(setting.student, setting.images[p]) for p in ids.split(_ROWS)]
            taking = who_takes_part(
                torch.cat(parts),
                setting.labels[ids],
                self.extra.teacher_confidence[ids],
                margin=self.config.margin,
                least=setting.batch_size,
            )
            self.extra.taking_part[ids] = taking
            self.extra.share.copy_(taking.double().mean())
        return self.extra.taking_part.clone()

    def observed(self) -> dict[str, float | Tensor]:
        """The share of the examples that take part, in (0, 1]; nothing where all always do."""
        return {"distilled_share": self.extra.share} if self.config.self_regulation else {}
