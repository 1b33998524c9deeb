"""Faithful distillation with linear relaxation over interval bounds and without an attack."""

from __future__ import annotations

from fkd.distillation._certified import Relaxation
from fkd.distillation.base import METHODS
from fkd.distillation.faithful import Faithful, FixedRelaxationConfig


class FaithfulCROWNIBPConfig(FixedRelaxationConfig):
    """The ball and the weight of the certified gap in it, by linear relaxation."""


@METHODS.register("faithful_crown_ibp")
class FaithfulCrownIBP(Faithful):
    """Faithful distillation by CROWN-IBP, L = tau^2 KL(p^T_tau(x) || p^S_tau(x)) + kappa(t) delta(x).

    As `FaithfulIBP`, but the student's margins are bounded by the better of intervals and one backward
    pass of linear relaxation over interval bounds of its hidden layers, which the abstract names; the
    teacher's are intervals, as in `Faithful`, where all else is told [ours].
    """

    title = "Faithful distillation (CROWN-IBP)"
    Config = FaithfulCROWNIBPConfig
    relaxation: Relaxation = "crown_ibp"
    attack_weight = 0.0
