"""What one network contributes to joint bounds: linear forms in the image, to be added to the other's.

A backward pass is positively homogeneous and the two networks only meet in the image, so one pass over a
network's margins serves its own ranges, differences of margins and support lines of every slope.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fkd.bounds._lines import Lines
from fkd.bounds._rows import MarginBounds, Side, make_side
from fkd.bounds.engine.intervals import margin_rows
from fkd.bounds.engine.propagate import Hidden, LinearForm, Propagator
from fkd.bounds.finish import chord, entropy, odds_range, raised, tangent_slope


@dataclass(frozen=True)
class Passes:
    """One network on N sets; magnitudes M are those of `Propagator.hidden`.

    Attributes:
        propagator: the network.
        hidden: its hidden bounds.
        side: its margins at the image, and simplex weights.
        up: bounds of m_j = z_j - z_c, K-1 rows.
        down: of -m_j, K-1 rows.
        own: of -lambda . m, one row.
        lean: of -lambda^j . m, K-1 rows.
        size: M of the margins, (N, K-1).
        margins: lower and upper bounds of m, (N, K-1) each.
    """

    propagator: Propagator
    hidden: Hidden
    side: Side
    up: LinearForm
    down: LinearForm
    own: LinearForm
    lean: LinearForm
    size: Tensor
    margins: tuple[Tensor, Tensor]

    @classmethod
    def run(cls, propagator: Propagator, hidden: Hidden, logits: Tensor, classes: Tensor) -> Passes:
        """One backward pass of 3 (K-1) + 1 rows.

        Args:
            propagator: the network.
            hidden: its hidden bounds on N sets.
            logits: float64 (N, K), at the images.
            classes: int64 (N,), c.
        """
        rows = margin_rows(classes, logits.shape[1], logits)
        side = make_side(rows, logits, classes)
        others = rows.shape[1]
        leaning = side.lean @ rows
        form = propagator.back(
            propagator.logits,
            torch.cat([rows, -rows, -leaning, -side.own_row], dim=1),
            hidden.relaxations,
        )
        size = (rows.abs() @ hidden.logit_size.unsqueeze(2)).squeeze(2)
        up, down, lean = (form.rows(slice(k * others, (k + 1) * others)) for k in range(3))
        slack = propagator.slack * size
        margins = -(down.highest(hidden.inputs) + slack), up.highest(hidden.inputs) + slack
        own = form.rows(slice(3 * others, None))
        return cls(propagator, hidden, side, up, down, own, lean, size, margins)

    def __getitem__(self, sets: Tensor | slice) -> Passes:
        forms = (self.up, self.down, self.own, self.lean)
        return Passes(
            self.propagator,
            self.hidden[sets],
            self.side[sets],
            *(form[sets] for form in forms),
            self.size[sets],
            (self.margins[0][sets], self.margins[1][sets]),
        )

    def with_margins(self, other: Passes) -> Passes:
        """The same passes, knowing what another choice of slopes proved of the margins."""
        low = torch.fmax(self.margins[0], other.margins[0])
        high = torch.fmin(self.margins[1], other.margins[1])
        return replace(self, margins=(low, high))

    @property
    def own_size(self) -> Tensor:
        """M of the row lambda . m, (N, 1)."""
        return (self.side.weights * self.size).sum(1, keepdim=True)

    @property
    def lean_size(self) -> Tensor:
        """M of the rows lambda^j . m, (N, K-1)."""
        return (self.side.lean @ self.size.unsqueeze(2)).squeeze(2)

    def odds(self) -> tuple[Tensor, Tensor]:
        """Range of the log-odds: stage 1, and F1 on the row lambda . m from above."""
        low, high = odds_range(*self.margins)
        own = self.own.highest(self.hidden.inputs) + self.propagator.slack * self.own_size
        return low, torch.fmin(high, raised(own[:, 0] - entropy(self.side.weights)))

    def chord_form(self) -> tuple[LinearForm, Tensor, Tensor]:
        """Bound of ``kappa . m``, the chord's constant (N,), and M of the row (N, 1)."""
        weights, constant = chord(*self.margins, self.side.margins)
        row = weights[:, None, :] @ self.side.rows
        form = self.propagator.back(self.propagator.logits, row, self.hidden.relaxations)
        return form, constant, (weights * self.size).sum(1, keepdim=True)


def difference(above: Passes, below: Passes) -> Tensor:
    """Upper bounds of ``m^Q_j - m^P_j``, (N, K-1): exact cancellation of what the networks share."""
    return _joint(above, below, below.up + above.down, above.size + below.size)


def _joint(above: Passes, below: Passes, form: LinearForm, size: Tensor) -> Tensor:
    slack = above.propagator.slack + below.propagator.slack
    return form.highest(above.hidden.inputs) + slack * size


def known_lines(above: Passes, below: Passes, paired: Tensor | None = None) -> Lines:
    """Ranges and three support lines of ``p_P - p_Q`` for P = ``above`` and Q = ``below``.

    At slope 1: F3 on the differences, F1 with F2 on leaning rows, and the chord row; then the leaning and
    chord rows at the slope of the tangent where the bound so far is attained, twice (cutting planes).

    Args:
        above: P.
        below: Q.
        paired: further upper bounds of ``m^Q_j - m^P_j``, (N, K-1), where the networks pair up.
    """
    amin_p, amax_p = above.odds()
    amin_q, _ = below.odds()
    chord_form, constant, chord_size = below.chord_form()
    alone = chord_form.highest(below.hidden.inputs) + below.propagator.slack * chord_size
    amin_q = torch.fmax(amin_q, -raised(alone[:, 0] + constant))

    def shift(slope: Tensor) -> Tensor:
        column = slope[:, None]
        leaning = _joint(
            above,
            below,
            below.up + above.lean.scaled(slope),
            below.size + column * above.lean_size,
        )
        by_rows = torch.logsumexp(leaning - column * entropy(above.side.lean), 1)
        single = _joint(
            above,
            below,
            chord_form + above.own.scaled(slope),
            chord_size + column * above.own_size,
        )
        by_chord = single[:, 0] + constant - slope * entropy(above.side.weights)
        return raised(torch.fmin(by_rows, by_chord))

    one = torch.ones_like(amin_p)
    apart = difference(above, below)
    apart = apart if paired is None else torch.fmin(apart, paired)
    first = torch.fmin(apart.amax(1), shift(one))
    lines = Lines(amin_p, amax_p, amin_q, one[:, None], first[:, None])
    for _ in range(2):
        slope = tangent_slope(lines.where())
        lines = lines.also(slope, shift(slope))
    return lines


def agreement(
    pairs: list[tuple[Passes, Passes]], paired: tuple[Tensor | None, Tensor | None] = (None, None)
) -> tuple[Tensor, Tensor, Tensor]:
    """Teacher robust, student robust, equal predictions, bool (N,); see `MarginBounds.agreement`.

    Args:
        pairs: teacher and student, one pair a choice of slopes; about the class predicted at the image.
        paired: further upper bounds of ``m^T_j - m^S_j`` and of ``m^S_j - m^T_j``.
    """
    teacher, student = pairs[0]
    highs, lows = zip(*((difference(s, t), -difference(t, s)) for t, s in pairs), strict=True)
    low, high = torch.stack(lows).amax(0), torch.stack(highs).amin(0)
    if paired[0] is not None and paired[1] is not None:
        low, high = torch.fmax(low, -paired[1]), torch.fmin(high, paired[0])
    return MarginBounds.of(teacher.margins, student.margins, (low, high)).agreement()
