"""Where a relaxation says that the gap is widest: points for an attack to start from.

A backward pass bounds each joint row of stage 2 by a linear function of the image; the corner of the ball
where that function is largest is where the relaxed networks differ most.  Nothing is claimed of these
points, so float rounding and slack play no part.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fkd.bounds._crew import Crew, Tell
from fkd.bounds._memory import fitting
from fkd.bounds._pair import Pair
from fkd.bounds._passes import Passes
from fkd.bounds.fast import Fast
from fkd.core.ball import Region
from fkd.core.errors import UnsupportedModelError

#: Classes with a row of their own: those whose margins may change most.
_ROWS = 9


def worst_corners(
    teacher: nn.Module, student: nn.Module, region: Region, classes: Tensor
) -> Tensor | None:
    """For both directions of the gap the corners of ``m^Q_j - m^P_j`` and of the chord row.

    Args:
        teacher: images (N, C, H, W) to logits (N, K), in eval mode.
        student: the same.
        region: N balls.
        classes: int64 (N,), the class whose confidences are compared.

    Returns:
        Points (N, P, C, H, W) of each ball, P = 2 (min(K - 1, 9) + 1); None where the engine cannot read
        a network.
    """
    try:
        pair = Pair(teacher, student, region.images[:1])
    except UnsupportedModelError:
        return None
    device = region.images.device
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    largest = Fast.at_once if device.type == "cpu" else 256
    size = fitting(threads * pair.bytes_per_example, device, largest=largest)

    def work(rows: slice, tell: Tell) -> Tensor:
        del tell
        return _corners(pair, region[rows], classes[rows])

    crew = Crew(work, lambda *_, **__: None, threads=threads, is_cpu=device.type == "cpu")
    ended, _ = crew.run(len(region), size)
    return torch.cat([part for chunk in ended for part in chunk.parts])


def _corners(pair: Pair, region: Region, classes: Tensor) -> Tensor:
    with torch.no_grad():
        hidden, logits = pair.hidden(region), pair.logits(region.images)
        sides = [
            Passes.run(propagator, part, values, classes)
            for propagator, part, values in zip(
                (pair.teacher, pair.student), hidden, logits, strict=True
            )
        ]
        inputs = hidden[0].inputs
        points = []
        for above, below in (sides, sides[::-1]):
            apart = below.up + above.down
            likely = apart.highest(inputs).topk(min(_ROWS, apart.constant.shape[1]), 1).indices
            index = likely[:, :, None].expand(-1, -1, apart.coefficients.shape[2])
            rows = torch.cat(
                [
                    apart.coefficients.gather(1, index),
                    (below.chord_form()[0] + above.own).coefficients,
                ],
                1,
            )
            points += [inputs.attained(row) for row in rows.unbind(1)]
    every = torch.stack(points, 1).to(region.images.dtype)
    shape = every.shape[:2]
    return region.repeat(shape[1]).clamp(every.flatten(0, 1)).unflatten(0, shape)
