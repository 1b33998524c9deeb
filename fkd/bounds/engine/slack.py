"""What rounding can add to a bound on a reduced network: ``gamma_n`` times a pass of absolute values."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fkd.bounds.engine.domains import Slopes
from fkd.bounds.engine.reduced import Reduced


def rounding(reduced: Reduced, rows: Tensor, theta: Sequence[Tensor], slopes: Slopes) -> Tensor:
    """``gamma_n M`` of rows (E, D, R, K), multipliers of split units included; (E, D, R)."""
    size = (rows.abs() @ reduced.logit_size[:, None, :, None])[..., 0]
    for k, stage in enumerate(reduced.stages):
        multipliers = theta[k] * slopes.signs[k].abs()
        size = size + (multipliers @ stage.size[:, None, :, None])[..., 0]
    return reduced.slack * size
