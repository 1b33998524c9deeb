"""The model card: everything needed to rebuild a network and to know where it came from."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from fkd.core.config import Config

CARD_VERSION = 1

Role = Literal["teacher", "student"]


class ParentTeacher(Config):
    """The teacher a student was distilled or copied from."""

    name: str
    #: `ModelCard.model_hash` of the teacher.
    model_hash: str


class ModelCard(Config):
    """What ``card.json`` holds beside ``model.safetensors`` (or ``model.onnx``)."""

    called: ClassVar[str] = "card"

    schema_version: int = CARD_VERSION
    name: str = Field(description="The model's name; also its folder's name.")
    role: Role = Field(description="teacher or student.")
    dataset: str = Field(description="Name of the data set it was trained on.")
    method: str = Field(description="Registry name of the method, or of the way of copying.")
    method_config: dict[str, Any] = Field(default_factory=dict)
    training_config: dict[str, Any] = Field(default_factory=dict)
    architecture: str = Field(description="Registry name, or 'onnx'.")
    architecture_config: dict[str, Any] = Field(default_factory=dict)
    image_shape: tuple[int, int, int] = Field(description="(C, H, W).")
    num_classes: int = Field(ge=2)
    mean: tuple[float, ...] = Field(default=(), description="Per-channel mean taken off first.")
    std: tuple[float, ...] = Field(default=(), description="Per-channel divisor.")
    epsilon: float | None = Field(default=None, description="Training radius, null if none.")
    seed: int | None = None
    teacher: ParentTeacher | None = None
    weights_sha256: str = Field(
        default="", description="SHA-256 (hex) of the weights file; filled in when saved."
    )
    parameters: int = Field(default=0, ge=0, description="Number of trainable parameters.")
    metrics: dict[str, float] = Field(
        default_factory=dict,
        description="Shares in [0, 1] on the test split: clean_accuracy, teacher_agreement, and at each "
        "radius E robust_accuracy_E (PGD), certified_accuracy_E (the better of intervals and CROWN-IBP) "
        "and interval_accuracy_E (intervals alone); in cards without the last, certified_accuracy_E is "
        "by intervals alone.",
    )
    history: list[dict[str, float]] = Field(
        default_factory=list, description="One entry per epoch: named loss parts and accuracies."
    )
    data_fingerprint: str | None = Field(default=None, description="Train split's fingerprint.")
    versions: dict[str, str] = Field(default_factory=dict)
    device: str | None = None
    seconds: float | None = None
    created: str | None = Field(default=None, description="UTC time, ISO 8601.")

    @property
    def model_hash(self) -> str:
        """Identity of the function computed: architecture, normalisation and weights (hex)."""
        from fkd.core.hashing import hash_json

        return hash_json(
            {
                "architecture": self.architecture,
                "architecture_config": self.architecture_config,
                "image_shape": list(self.image_shape),
                "num_classes": self.num_classes,
                "mean": list(self.mean),
                "std": list(self.std),
                "weights": self.weights_sha256,
            }
        )
