"""Reading and writing safetensors, and matching weights to a network, with one sentence per fault.

Nothing here unpickles: a file is either safetensors or refused.
"""

from __future__ import annotations

import difflib
import json
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from fkd.core.errors import CheckpointError

#: Bytes of header that a real model of ours could ever need; the format itself allows 100 MB.
_MAX_HEADER = 16 * 1024 * 1024

_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def read_bytes(path: Path, what: str) -> bytes:
    """The file's content.

    Raises:
        CheckpointError: it is absent or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(
            f"The {what} {path} does not exist; check the path or restore the file."
        ) from None
    except OSError as error:
        raise CheckpointError(
            f"The {what} {path} cannot be read ({error.strerror or error}); check the file."
        ) from None


def parse_weights(content: bytes, shown: str, *, is_stored: bool = False) -> dict[str, Tensor]:
    """Tensors of a safetensors file.

    Args:
        content: the whole file.
        shown: the file's name for error messages.
        is_stored: whether it is a model's that fkd keeps, whose damage saving anew does not mend.

    Raises:
        CheckpointError: a pickle, truncated, damaged or no safetensors at all.
    """
    # Pickles start with 0x80 and torch.save's archives with the zip signature; both can run code.
    # A safetensors header of 640 bytes, say, also starts with 0x80 0x02, but its JSON follows.
    again = "copy or train the model again"
    anew = again if is_stored else "save the weights with safetensors.torch.save_file"
    if content[:4] == b"PK\x03\x04" or (
        content[:1] == b"\x80" and content[1:2] in b"\x02\x03\x04\x05" and content[8:9] != b"{"
    ):
        raise CheckpointError(
            f"{shown} is not a safetensors file but a pickle (as torch.save writes), which could run "
            f"code when read; {anew if is_stored else f'where you trust it, {anew}'}."
        )
    _check_header(content, shown, again, anew)
    try:
        return load_safetensors(content)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{shown} is truncated or damaged ({str(error).splitlines()[0]}); {again}."
        ) from None


def _check_header(content: bytes, shown: str, again: str, anew: str) -> None:
    """Length and JSON of the header, before the library allocates anything.

    Args:
        content: the whole file.
        shown: its name.
        again: what to do where a part is missing.
        anew: what to do where it is something else.
    """
    not_safetensors = f"{shown} is not a safetensors file"
    if len(content) < 10:
        raise CheckpointError(f"{not_safetensors} (only {len(content)} bytes); {again}.")
    (length,) = struct.unpack("<Q", content[:8])
    if length > _MAX_HEADER:
        raise CheckpointError(f"{not_safetensors} (its header would take {length} bytes); {anew}.")
    if 8 + length > len(content):
        raise CheckpointError(
            f"{shown} is truncated: its header alone takes {8 + length} bytes and the file has "
            f"{len(content)}; {again}."
        )
    try:
        header = json.loads(content[8 : 8 + length])
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise CheckpointError(f"{not_safetensors} (its header is no JSON); {anew}.")


def dump_weights(network: nn.Module) -> bytes:
    """The network's persistent weights as a safetensors file, float32 on the CPU.

    Raises:
        CheckpointError: a weight is not finite.
    """
    weights = {
        # A copy each: safetensors refuses tensors that share memory.
        name: value.detach()
        .to("cpu", torch.float32 if value.is_floating_point() else value.dtype)
        .contiguous()
        .clone()
        for name, value in network.state_dict().items()
    }
    check_finite(weights, "The network")
    return save_safetensors(weights)


def check_finite(weights: Mapping[str, Tensor], shown: str) -> None:
    """Refuse NaN and infinity.

    Raises:
        CheckpointError: naming the first weight that holds one.
    """
    for name, value in weights.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CheckpointError(
                f"{shown} has NaN or infinite values in the weight '{name}'; "
                "train it again, with a smaller learning rate say."
            )


def match_weights(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], shown: str, architecture: str
) -> None:
    """Compare names, shapes and kinds of weights.

    Args:
        found: the file's weights.
        expected: the architecture's, values unused (they may be on the meta device).
        shown: the file's name for error messages.
        architecture: the architecture with its settings, for error messages.

    Raises:
        CheckpointError: naming the first weight that is missing, unexpected, misshapen or mistyped.
    """
    for name in expected:
        if name not in found:
            raise CheckpointError(
                f"{shown} lacks the weight '{name}' of shape {_shape(expected[name])} that "
                f"{architecture} needs{_nearest(name, found)}."
            )
    for name, value in found.items():
        if name not in expected:
            raise CheckpointError(
                f"{shown} holds the weight '{name}', which {architecture} does not have"
                f"{_nearest(name, expected)}."
            )
        if value.shape != expected[name].shape:
            raise CheckpointError(
                f"The weight '{name}' in {shown} has shape {_shape(value)}, but {architecture} needs "
                f"{_shape(expected[name])}; check the architecture's settings and the image shape."
            )
        wanted = expected[name].dtype
        if value.dtype != wanted and not (wanted.is_floating_point and value.dtype in _FLOATS):
            raise CheckpointError(
                f"The weight '{name}' in {shown} is {_dtype(value)}, but {architecture} needs "
                f"{_dtype(expected[name])}; save it as that."
            )


def _shape(value: Tensor) -> str:
    return str(tuple(value.shape))


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _nearest(name: str, names: Mapping[str, Tensor]) -> str:
    close = difflib.get_close_matches(name, list(names), n=1)
    return (
        f"; the nearest name is '{close[0]}', rename it if that is meant"
        if close
        else ("; check the architecture's settings")
    )
