"""Anyone's model as ONNX: read safely, converted to plain torch modules, compared with the original."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from fkd.core.errors import CheckpointError, ConfigError, UnsupportedModelError
from fkd.models.base import Network, normalisation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnx import ModelProto

#: Largest difference of logits from ONNX's reference implementation, relative to the logits' size:
#: what float32 rounding makes of some ten layers, far below any real error of conversion.
_TOLERANCE = 1e-4


def network_from_onnx(
    content: bytes,
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    shown: str = "The ONNX file",
    folder: Path | None = None,
) -> tuple[Network, bytes]:
    """The network in an ONNX file, in eval mode and float32.

    A batch size fixed at export is freed, and a softmax at the end is taken off (its input are the
    logits, which give the same confidences).  The result is compared with ONNX's reference
    implementation on random images, and run in float64, before it is given out.

    Args:
        content: the ``.onnx`` file.
        image_shape: (C, H, W) of the images it will get.
        num_classes: K.
        mean: per-channel mean taken off before the graph; empty where the graph takes images in
            [0, 1] as they are.
        std: per-channel divisor, like ``mean``.
        shown: the file's name for error messages.
        folder: where weights in files of their own may lie; None refuses such models.

    Returns:
        The network, and the prepared graph as one file without external data.

    Raises:
        CheckpointError: corrupt, with values that are not finite, or data outside ``folder``.
        UnsupportedModelError: operators or a structure that cannot be used.
        ConfigError: the image shape or the number of classes do not fit.
    """
    from fkd.models._onnx_fx import to_modules
    from fkd.models._onnx_proto import read_onnx
    from fkd.models._onnx_static import prepare

    original = read_onnx(content, shown, folder)
    prepared = prepare(original, image_shape, shown)
    body = to_modules(prepared, image_shape, shown).float().eval().requires_grad_(False)
    for name, value in body.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CheckpointError(
                f"{shown} has NaN or infinite values in the weight '{name}'; export it again."
            )
    _compare(original, body, image_shape, num_classes, shown)
    _check_float64(body, image_shape, shown)
    network = Network(normalisation(tuple(mean), tuple(std), image_shape[0]), body)
    return network.eval().requires_grad_(False), prepared.SerializeToString(deterministic=True)


def _run(body: nn.Module, images: Tensor, shown: str) -> Tensor:
    """Logits, with torch's remarks on traced shapes kept from the user."""
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return body(images)
    except (RuntimeError, IndexError, TypeError, ValueError) as error:
        raise UnsupportedModelError(
            f"{shown} does not run with a batch of {len(images)} "
            f"({(str(error).splitlines() or ['no reason given'])[0][:160]}); export it with a free "
            "batch dimension (dynamic_axes)."
        ) from None


def _compare(
    original: ModelProto,
    body: nn.Module,
    image_shape: tuple[int, int, int],
    num_classes: int,
    shown: str,
) -> None:
    """Hold the converted network against the original graph, and one batch against single images."""
    from fkd.models._onnx_static import evaluate, image_input, random_images

    source = image_input(original.graph, image_shape, shown)
    inputs = random_images(source)
    images = torch.from_numpy(inputs.astype(np.float32)).reshape(-1, *image_shape)
    logits = _run(body, images, shown)
    name = original.graph.output[0].name
    expected = torch.from_numpy(
        np.array(evaluate(original, inputs, source.name, shown)[name], dtype=np.float64)
    )
    if logits.dim() != 2 or len(logits) != len(images):
        raise UnsupportedModelError(
            f"{shown} gives an output of shape {tuple(logits.shape)} for {len(images)} images; "
            "export a model that gives one row of logits per image, with a free batch dimension."
        )
    if logits.shape[1] != num_classes:
        raise ConfigError(
            f"{shown} tells {logits.shape[1]} classes apart, not {num_classes}; "
            "give the number of classes it was made for."
        )
    found = logits.double()
    if expected.shape != found.shape or not _is_close(found, expected):
        # Where a final softmax was taken off, the probabilities must agree.
        probabilities = found.softmax(1)
        agrees = expected.shape == found.shape and (
            _is_close(probabilities, expected) or _is_close(found.log_softmax(1), expected)
        )
        if not (agrees and _ends_in_softmax(original)):
            raise UnsupportedModelError(
                f"{shown} gives other outputs after conversion to PyTorch than ONNX's reference "
                "implementation; export it with simpler operators."
            )
    _check_logits(found, shown)
    more = torch.rand(
        (3, *image_shape), generator=torch.Generator().manual_seed(1), dtype=torch.float32
    )
    together = _run(body, more, shown)
    singly = torch.cat([_run(body, image[None], shown) for image in more])
    if together.shape != singly.shape or not _is_close(together.double(), singly.double()):
        raise UnsupportedModelError(
            f"{shown} gives an image other logits in a batch than alone; "
            "export it in inference mode with a free batch dimension."
        )


def _is_close(found: Tensor, expected: Tensor) -> bool:
    scale = 1.0 + float(expected.abs().max())
    return bool(((found - expected).abs() <= _TOLERANCE * scale).all())


def _ends_in_softmax(model: ModelProto) -> bool:
    return any(node.op_type in ("Softmax", "LogSoftmax") for node in model.graph.node)


def _check_logits(logits: Tensor, shown: str) -> None:
    if not bool(torch.isfinite(logits).all()):
        raise CheckpointError(f"{shown} gives NaN or infinite logits; export it again.")
    if bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < 1e-4).all()):
        raise UnsupportedModelError(
            f"{shown} gives probabilities; export it without what turns logits into probabilities."
        )


def _check_float64(body: nn.Module, image_shape: tuple[int, int, int], shown: str) -> None:
    """Certificates run in float64, so no step may fall back to float32."""
    images = torch.full((2, *image_shape), 0.5, dtype=torch.float64)
    logits = _run(copy.deepcopy(body).double(), images, shown)
    if logits.dtype != torch.float64:
        raise UnsupportedModelError(
            f"{shown} casts to {str(logits.dtype).removeprefix('torch.')} inside, so it cannot be "
            "evaluated in float64; export it without casts."
        )
