"""auto_LiRPA 0.3 in float64: tensors that it makes without naming a type are float64 as well."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_MAKERS = {
    torch.empty,
    torch.eye,
    torch.full,
    torch.linspace,
    torch.ones,
    torch.tensor,
    torch.zeros,
}


class DoubleByDefault(TorchFunctionMode):
    """New float tensors are float64 unless a type is asked for.

    Pooling, splitting and gathering in release 0.3 otherwise mix float32 with float64 and fail.
    Unlike `torch.set_default_dtype` this holds for the current thread only.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """``func``'s result, in float64 where it would be float32 by default."""
        kwargs = kwargs or {}
        if func is Tensor.view:
            # Release 0.3 views coefficients that a step before left transposed; it only reads them.
            func = Tensor.view if args[0].is_contiguous() else Tensor.reshape
        result = func(*args, **kwargs)
        is_ours = func in _MAKERS and kwargs.get("dtype") is None and isinstance(result, Tensor)
        return result.double() if is_ours and result.dtype == torch.float32 else result
