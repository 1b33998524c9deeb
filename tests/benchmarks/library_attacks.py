"""Attacks of published libraries on a pair, which they take for a classifier.

`PairAsClassifier` is given to all of them: three logits of which the cross-entropy with class 0, the loss
that each of them climbs unless told otherwise, is the gap ``|p_T(c) - p_S(c)|``.  Class 0 is what it
always predicts, so none of them thinks that it has succeeded, stops, or leaves an example out.

They are development tools that nothing else needs (the group ``compare`` in pyproject.toml).  To leave
the pinned environment as it is, install them beside it::

    uv pip install --python .venv/bin/python --target DIR --no-deps foolbox eagerpy gitpython gitdb \\
        smmap adversarial-robustness-toolbox six
    PYTHONPATH=DIR .venv/bin/python -m tests.benchmarks.bench_attacks --libraries
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fkd.attacks import PairAttackResult
from fkd.attacks.base import _measure
from fkd.attacks.best import Best
from fkd.attacks.objectives import confidence
from fkd.attacks.single._library import load_attacks
from fkd.core.ball import Region
from fkd.core.precision import double_copy

#: Added to the gap: the logarithm of 0 has no gradient.
_FLOOR = 1e-7
#: By how much a library's rounding may leave the ball; what counts is brought back into it.
_ROUNDING = 1e-6
#: Examples at once: adversarial-robustness-toolbox predicts for as many, whatever it is told.
_ROWS = 128
#: Five starts of a hundred steps are adversarial-robustness-toolbox's default, and 500 gradients too.
_STEPS, _RESTARTS = 50, 10
_AUTO_STEPS, _AUTO_RESTARTS = 100, 5


class PairAsClassifier(nn.Module):
    """A pair as a classifier of three classes whose cross-entropy with class 0 is the gap (+ 1e-7).

    With logits ``(0, a, a)`` the cross-entropy with class 0 is ``log(1 + 2 e^a)``, and ``a = log((e^g -
    1) / 2)`` makes it g, with the gradient of g.  As g is at most 1, a is negative: the prediction is
    always class 0.

    Attributes:
        best: the best points evaluated so far: attacks on one network forget a point that does not fool
            it, adversarial-robustness-toolbox's among them, so all are looked at here.
        gradients: how many were evaluated so far, a point of one example counted as one.

    Args:
        networks: teacher and student, images (N, C, H, W) to logits (N, K), in eval mode.
        region: N balls; row n of a full batch is a point of ball n.
        classes: int64 (N,), the class whose confidences are compared.
    """

    def __init__(
        self, networks: tuple[nn.Module, nn.Module], region: Region, classes: Tensor
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.region, self.classes = region, classes
        self.best = Best(region, classes)
        self.gradients = 0

    def forward(self, points: Tensor) -> Tensor:
        """Logits (M, 3) of points (M, C, H, W), M = N, or fewer where a library tries its model out."""
        classes = self.classes[: len(points)]
        logits = [network(points) for network in self.networks]
        gap = (confidence(logits[0], classes) - confidence(logits[1], classes)).abs()
        self._note(points.detach(), *(part.detach() for part in logits))
        other = torch.log(torch.expm1(gap + _FLOOR) / 2)
        output = torch.stack([torch.zeros_like(other), other, other], 1)
        if output.requires_grad:
            output.register_hook(self._count)
        return output

    def _count(self, gradient: Tensor) -> None:
        self.gradients += len(gradient)

    def _note(self, points: Tensor, teacher: Tensor, student: Tensor) -> None:
        lower, upper = (part[: len(points)] for part in (self.region.lower, self.region.upper))
        outside = torch.maximum(lower - points, points - upper)
        rows = (outside.flatten(1).amax(1) <= _ROUNDING).nonzero()[:, 0]
        if len(rows):
            self.best.look(points[rows], teacher[rows], student[rows], rows)


@dataclass(frozen=True)
class Ask:
    """What a library is asked: attack the model's region, all balls of one radius."""

    model: PairAsClassifier
    epsilon: float
    norm: float

    @property
    def images(self) -> Tensor:
        """The balls' centres, (N, C, H, W)."""
        return self.model.region.images

    @property
    def labels(self) -> Tensor:
        """The class that the model always predicts, int64 (N,)."""
        return torch.zeros(len(self.images), dtype=torch.int64, device=self.images.device)


def _foolbox(kind: str) -> Callable[[Ask], None]:
    """Projected gradient descent: starts at random points, steps of the library's default size."""

    def attack(ask: Ask) -> None:
        import foolbox

        norm = "Linf" if ask.norm == math.inf else "L2"
        made = getattr(foolbox.attacks, f"{norm}{kind}")(steps=_STEPS, random_start=True)
        device = ask.images.device
        model = foolbox.PyTorchModel(ask.model, bounds=(0, 1), device=device)
        for _ in range(_RESTARTS):
            made(model, ask.images, ask.labels, epsilons=ask.epsilon)

    return attack


def _art(ask: Ask) -> None:
    """Auto-PGD of adversarial-robustness-toolbox; the paper's first step, twice epsilon."""
    from art.attacks.evasion import AutoProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        ask.model,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(ask.images.shape[1:]),
        nb_classes=3,
        clip_values=(0.0, 1.0),
        device_type="gpu" if ask.images.is_cuda else "cpu",
    )
    made = AutoProjectedGradientDescent(
        classifier,
        norm=ask.norm if ask.norm == math.inf else 2,
        eps=ask.epsilon,
        eps_step=2 * ask.epsilon,
        max_iter=_AUTO_STEPS,
        nb_random_init=_AUTO_RESTARTS,
        batch_size=_ROWS,
        loss_type="cross_entropy",
        verbose=False,
    )
    made.generate(ask.images.cpu().numpy(), ask.labels.cpu().numpy())


def _adv_lib(ask: Ask) -> None:
    """Auto-PGD of adv-lib, its authors' own code adapted.

    When it looks for the largest loss it takes its default of 100 steps, whatever it is told (0.2.8);
    each start evaluates one gradient more.
    """
    load_attacks().apgd(
        ask.model,
        ask.images,
        ask.labels,
        eps=ask.epsilon,
        norm=ask.norm,
        n_restarts=_AUTO_RESTARTS,
        loss_function="ce",
        best_loss=True,
    )


#: Name of each attack, the module that it needs, the package that holds that, and the attack.
LIBRARIES: dict[str, tuple[str, str, Callable[[Ask], None]]] = {
    "foolbox-pgd": ("foolbox", "foolbox", _foolbox("ProjectedGradientDescentAttack")),
    "foolbox-bim": ("foolbox", "foolbox", _foolbox("BasicIterativeAttack")),
    "art-apgd": ("art", "adversarial-robustness-toolbox", _art),
    "advlib-apgd": ("adv_lib", "adv-lib", _adv_lib),
}


def installed_libraries() -> list[str]:
    """Names of the attacks whose packages are installed; says which are not, one sentence a package."""
    names, missing = [], {}
    for name, (module, package, _) in LIBRARIES.items():
        if importlib.util.find_spec(module) is None:
            missing[package] = [*missing.get(package, []), name]
        else:
            names.append(name)
    for package, attacks in missing.items():
        print(
            f"left out: {' and '.join(attacks)}, since {package} is not installed; "
            "tests/benchmarks/library_attacks.py says how."
        )
    return names


def attack_by_library(
    name: str, networks: tuple[nn.Module, nn.Module], region: Region, classes: Tensor, *, seed: int
) -> PairAttackResult:
    """What a library's attack finds: the best of all points that it evaluated, by float64, in the balls.

    Args:
        name: one of `LIBRARIES`.
        networks: teacher and student, in eval mode.
        region: N balls of one radius, without channel scales.
        classes: int64 (N,), the class whose confidences are compared.
        seed: of torch's and NumPy's own generators, which the libraries draw from.
    """
    torch.manual_seed(seed)
    np.random.seed(seed)
    norm = 2 if region.norm == "l2" else math.inf
    gap_points, margin_points, gradients = [], [], 0
    for rows, part in region.chunks(_ROWS):
        model = PairAsClassifier(networks, part, classes[rows]).eval()
        with warnings.catch_warnings():
            # Their own imports use what SciPy and NumPy are retiring.
            warnings.simplefilter("ignore")
            LIBRARIES[name][2](Ask(model, float(part.radius[0]), norm))
        gap_points.append(part.clamp(model.best.gap_point))
        margin_points.append(part.clamp(model.best.margin_point))
        gradients += model.gradients
    return _measure(
        (double_copy(networks[0]), double_copy(networks[1])),
        region,
        classes,
        torch.cat(gap_points),
        torch.cat(margin_points),
        gradient_evaluations=gradients / len(region),
    )
