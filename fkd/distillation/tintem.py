"""Label-free distillation of latent vectors through a head that keeps their distances."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from fkd.core.config import Config
from fkd.core.errors import ConfigError, UnsupportedModelError
from fkd.core.precision import logits_of
from fkd.distillation._inner import frozen_statistics
from fkd.distillation._latent_head import LatentHead
from fkd.distillation._probe import fit_probe, least_squares
from fkd.distillation.base import METHODS, Batch, Clock, LossParts, Method, Setting, need_teacher
from fkd.models import LatentNetwork, ModelCard, latent_vectors

#: Training examples that the head is fitted to.
_SAMPLE = 20_000
#: Examples read at a time after an epoch.
_ROWS = 2048
#: With less, the map starts with such large weights that the student's own cannot follow (digits: with a
#: thousandth of it the distance after two epochs was 1.2 times as large).
_RIDGE = 1.0


class TinTeMConfig(Config):
    """What is imitated, how closeness is measured, and who decides on the class."""

    distance: Literal["squared", "cosine"] = Field(
        default="squared",
        description="Of the student's latent vector from the head's: squared (mean square of the "
        "head's: 1), or one minus the cosine.",
    )
    decision: Literal["classifier", "probe"] = Field(
        default="classifier",
        description="Class decisions by the teacher's last layer, seen through the head, or by a "
        "linear probe, which alone uses labels.",
    )
    teacher_latents: Literal["penultimate", "output"] = Field(
        default="penultimate",
        description="The teacher's latent vectors: what its last dense layer is given, or its output "
        "(a self-supervised teacher).",
    )
    head_steps: int = Field(
        default=200,
        ge=0,
        le=100_000,
        description="Steps in which the head is fitted from the principal axes on.",
    )
    head_temperature: float = Field(
        default=0.1,
        gt=0.0,
        le=100.0,
        description="Of the similarities that the head keeps; the lower, the more near ones count.",
    )
    probe_penalty: float = Field(
        default=1e-4,
        ge=0.0,
        le=1000.0,
        description="Pull of the probe's weights towards 0; far below 1e-6 each fit stops before its "
        "minimum.",
    )

    @model_validator(mode="after")
    def _classifier_follows_latents(self) -> TinTeMConfig:
        if self.decision == "classifier" and self.teacher_latents == "output":
            raise ValueError(
                "decision must be 'probe' where teacher_latents is 'output', after which the teacher "
                "has no classifier"
            )
        return self


@METHODS.register("tintem")
class TinTeM(Method):
    """TinTeM, L = ||u(x) - h(t(x))||^2, or 1 - cos(u, h(t)), of latent vectors t and u; no labels.

    Before training (step 1) a head h from the teacher's latent space (dimension D) to one of the
    student's dimension d is fitted alone, approximately orthogonal, so that distances between examples
    are kept; then (step 2) the student's latent vectors are trained to equal h(t).  The two steps and
    the orthogonal head are the paper's (abstract and reviews); its text was not at hand, so that the
    form is this project's [ours]:

    * h(t) = W (t - m) / s, W with orthonormal rows, m the mean, s so that the targets' mean square is
      1; W starts from the principal axes and matches, by KL, the softmax of a batch's pairwise cosine
      similarities; where d is not below D, W only turns the space and stays as it started;
    * a latent vector r behind a ReLU cannot be negative as h(t) can, so that the student is u = A r + b,
      with A and b learned beside it, from a ridge regression on the untrained student's on;
    * classes are decided by the teacher's last layer pulled back through h^T, z = C (s W^T u + m) + c,
      or by a linear probe on u (logistic regression), fitted anew after each epoch;
    * after each epoch the decision, times (A, b), becomes the student's own last layer: the finished
      network is one like any other.  ``cosine`` leaves lengths open; u is then scaled to the targets'.

    With the probe, a teacher of other classes, of another data set of the same image shape, or a
    self-supervised one will do.
    """

    title = "TinTeM"
    role = "student"
    source = (
        "Mannix, Hodgkinson and Bondell, Faithful label-free knowledge distillation, 2411.15239"
    )
    Config = TinTeMConfig
    takes_any_teacher = True

    def check_teacher(self, card: ModelCard, *, num_classes: int, is_same_task: bool) -> None:
        """Refuse a teacher of other classes where its classifier is to decide."""
        if self.config.decision == "probe" or (is_same_task and card.num_classes == num_classes):
            return
        raise ConfigError(
            f"The teacher '{card.name}' was trained on {card.dataset} and its classifier cannot decide "
            "between other classes; set decision to 'probe' or choose another teacher."
        )

    def set_up(self, setting: Setting) -> None:
        """Place for the head, the map behind the student's latent vectors, and the decision.

        Raises:
            ConfigError: there is no teacher, or its classifier is to decide and has other classes.
            UnsupportedModelError: a network has no latent vectors or its last layer no bias.
        """
        teacher, student = need_teacher(setting.teacher), LatentNetwork(setting.student)
        if student.classifier.bias is None:
            raise UnsupportedModelError(
                "The student's last dense layer has no bias, which this method needs; choose another "
                "architecture."
            )
        dimension, classes = student.dimension, setting.num_classes
        if self.config.decision == "classifier":
            theirs = LatentNetwork(teacher).classifier.out_features
            if theirs != classes:
                raise ConfigError(
                    f"The teacher's classifier tells {theirs} classes apart and the data set has "
                    f"{classes}; set decision to 'probe' or choose another teacher."
                )
        like = student.classifier.weight
        with torch.no_grad():
            length = self._teacher_latents(teacher, setting.images[:1]).shape[1]
        self.extra.head = LatentHead(length, dimension)
        self.extra.map = nn.Linear(dimension, dimension)
        self.extra.register_buffer("decision_weight", torch.zeros(classes, dimension))
        self.extra.register_buffer("decision_bias", torch.zeros(classes))
        self.extra.to(like)

    @torch.no_grad()
    def prepare(self, setting: Setting) -> None:
        """Step 1: fit the head, and with it the classifier's decision and the map's first values."""
        teacher = need_teacher(setting.teacher)
        images = setting.images[setting.example_ids[:_SAMPLE]]
        if self.config.teacher_latents == "output":
            latents = logits_of(teacher, images)
        else:
            latents, _ = latent_vectors(teacher, images)
        head, latent_map = self.extra.head, self.extra.map
        head.fit(
            latents.to(head.weight),
            steps=self.config.head_steps,
            temperature=self.config.head_temperature,
            seed=setting.seed,
        )
        # From any other start the quickest way down is to switch the student's ReLUs off for good.
        with frozen_statistics(setting.student):
            given, _ = latent_vectors(setting.student, images)
        weight, bias = least_squares(given, head(latents.to(head.weight)), ridge=_RIDGE)
        latent_map.weight.copy_(weight)
        latent_map.bias.copy_(bias)
        if self.config.decision == "classifier":
            layer = LatentNetwork(teacher).classifier
            bias = torch.zeros_like(layer.weight[:, 0]) if layer.bias is None else layer.bias
            weight, bias = head.pull_back(layer.weight, bias)
            self.extra.decision_weight.copy_(weight)
            self.extra.decision_bias.copy_(bias)

    def loss(
        self, batch: Batch, teacher: nn.Module | None, student: nn.Module, clock: Clock
    ) -> LossParts:
        """Distance of the student's latent vectors from the head's, batch mean."""
        del clock
        with torch.no_grad():
            latents = self._teacher_latents(need_teacher(teacher), batch.images)
        head = self.extra.head
        given = LatentNetwork(student)(batch.images)[0]
        # Two small products, and differences of what they give: no place for bfloat16.
        with torch.autocast(batch.images.device.type, enabled=False):
            target = head(latents.to(head.weight))
            mapped = self.extra.map(given.to(head.weight))
        cosine = functional.cosine_similarity(mapped, target, dim=1).mean()
        if self.config.distance == "cosine":
            value = 1.0 - cosine
        else:
            value = (mapped - target).square().sum(1).mean()
        return LossParts.weighted({"latents": (1.0, value)}, {"latent_cosine": cosine.detach()})

    @torch.no_grad()
    def finish_epoch(self, setting: Setting) -> None:
        """Write the decision on u into the student's last layer, the probe's after fitting it."""
        config, extra, ids = self.config, self.extra, setting.example_ids
        gain: float | Tensor = 1.0
        if config.decision == "probe" or config.distance == "cosine":
            # A copy of all images at once could be larger than the network's own memory.
            parts = [
                latent_vectors(setting.student, setting.images[p])[0] for p in ids.split(_ROWS)
            ]
            mapped = extra.map(torch.cat(parts))
            if config.distance == "cosine":
                # The targets' mean square is 1 by the head's scale.
                gain = mapped.square().sum(1).mean().clamp_min(1e-12).rsqrt()
            if config.decision == "probe":
                weight, bias = fit_probe(
                    gain * mapped,
                    setting.labels[ids],
                    extra.decision_weight,
                    extra.decision_bias,
                    penalty=config.probe_penalty,
                )
                extra.decision_weight.copy_(weight)
                extra.decision_bias.copy_(bias)
        layer = LatentNetwork(setting.student).classifier
        layer.weight.copy_(gain * extra.decision_weight @ extra.map.weight)
        layer.bias.copy_(gain * extra.decision_weight @ extra.map.bias + extra.decision_bias)

    def _teacher_latents(self, teacher: nn.Module, images: Tensor) -> Tensor:
        """The teacher's latent vectors (N, D)."""
        if self.config.teacher_latents == "output":
            return teacher(images)
        return LatentNetwork(teacher)(images)[0]
