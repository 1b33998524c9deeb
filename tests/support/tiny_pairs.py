"""Random tiny pairs of ReLU networks whose every property can be known exactly, and their truths."""

from __future__ import annotations

import copy
import functools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from hypothesis import Phase, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fkd.bounds import CERTIFICATES, CertificateResult, certificate_config, make_certificate
from fkd.core.ball import Region
from fkd.models.base import Normalisation
from tests.support.cells import Truth, largest_gap
from tests.support.dense import DenseNetwork, dense_form
from tests.support.exact import PairProgram
from tests.support.tiny_maps import KINDS, WIDE, map_network

#: From the loosest to the tightest: no level may be looser than the one before it.
LEVELS = ("fast", "tight", "exact")

#: Settings with which a level is judged here: no clock, so that a busy machine judges the same.
SETTINGS: dict[str, dict] = {
    "tight": {"domains": 24},
    "exact": {"seconds": 0.0, "domains": 400, "tolerance": 5e-4},
}


#: No explanation of failures: it takes minutes where a test takes seconds.
QUICK = settings(
    deadline=None, database=None, phases=(Phase.explicit, Phase.generate, Phase.shrink)
)


def registered(names: Sequence[str]) -> list[str]:
    """Those of ``names`` that are certificates, in the same order."""
    return [name for name in names if name in CERTIFICATES]


CERTIFICATES_UNDER_TEST = registered(["crown", "crown_ibp", *LEVELS])


def certify(
    name: str,
    teacher: nn.Module,
    student: nn.Module,
    region: Region,
    labels: Tensor,
    **settings: float,
) -> CertificateResult:
    """The certificate ``name`` with the settings for tiny pairs."""
    config = certificate_config({"name": name, **SETTINGS.get(name, {}), **settings})
    return make_certificate(config).bound(teacher, student, region, labels)


class _Residual(nn.Module):
    """relu(W x), then x + V relu(U x), then the logits."""

    def __init__(self, first: nn.Module, inner: nn.Module, outer: nn.Module, last: nn.Module):
        super().__init__()
        self.first, self.inner, self.outer, self.last = first, inner, outer, last
        self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.flatten = nn.Flatten()

    def forward(self, images: Tensor) -> Tensor:
        features = self.relu1(self.first(self.flatten(images)))
        return self.last(self.relu3(features + self.outer(self.relu2(self.inner(features)))))


@dataclass(frozen=True)
class TinyPair:
    """Everything that determines a pair and the boxes it is looked at on.

    Attributes:
        inputs: pixels of an image (1, 1, n).
        teacher: hidden units of its layers; empty for a linear network.
        student: likewise; not used where ``relation`` makes it a copy.
        classes: K.
        scale: of all weights.
        relation: "independent", or how the student is made from the teacher.
        is_residual: whether the teacher has a skip connection (both, where the student is a copy).
        epsilons: a box around a random image for each.
        seed: of weights and images.
    """

    inputs: int
    teacher: tuple[int, ...]
    student: tuple[int, ...]
    classes: int
    scale: float
    relation: str
    is_residual: bool
    epsilons: tuple[float, ...]
    seed: int


def _linear(inputs: int, outputs: int, scale: float, generator: torch.Generator) -> nn.Linear:
    """Random weights, the bias such that units change sign inside [0, 1]^n."""
    layer = nn.Linear(inputs, outputs)
    with torch.no_grad():
        weight = scale * torch.randn(outputs, inputs, generator=generator) / inputs**0.5
        layer.weight.copy_(weight)
        noise = 0.3 * scale * torch.randn(outputs, generator=generator)
        layer.bias.copy_(noise - weight.sum(1) / 2)
    return layer


def _network(
    pair: TinyPair, hidden: tuple[int, ...], is_residual: bool, generator: torch.Generator
) -> nn.Module:
    def linear(inputs: int, outputs: int) -> nn.Linear:
        return _linear(inputs, outputs, pair.scale, generator)

    if is_residual:
        units = hidden[0] if hidden else 3
        body: nn.Module = _Residual(
            linear(pair.inputs, units),
            linear(units, units),
            linear(units, units),
            linear(units, pair.classes),
        )
    else:
        layers: list[nn.Module] = [nn.Flatten()]
        width = pair.inputs
        for units in hidden:
            layers += [linear(width, units), nn.ReLU()]
            width = units
        body = nn.Sequential(*layers, linear(width, pair.classes))
    return nn.Sequential(Normalisation([0.4], [0.8]), body) if pair.seed % 2 else body


def _copy(relation: str, teacher: nn.Module, generator: torch.Generator) -> nn.Module:
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        for weight in student.parameters():
            if relation == "tuned":
                noise = torch.randn(weight.shape, generator=generator)
                weight.add_(0.05 * weight.abs().mean() * noise)
            elif relation == "pruned" and weight.ndim > 1:
                weight[weight.abs() < weight.abs().flatten().quantile(0.3)] = 0.0
            elif relation == "rounded":
                step = weight.abs().max().clamp_min(1e-9) / 15
                weight.copy_((weight / step).round() * step)
    return student


@dataclass(frozen=True)
class TinyCase:
    """A built pair: networks, their dense forms, boxes (one an epsilon) and classes to compare.

    ``pair`` is what its truths are kept by: a `TinyPair`, the seed of a `map_case`, or None.
    """

    pair: TinyPair | int | None
    teacher: nn.Module
    student: nn.Module
    dense_teacher: DenseNetwork
    dense_student: DenseNetwork
    region: Region
    labels: Tensor

    def box(self, row: int) -> tuple[Tensor, Tensor]:
        """Limits (n,) of a box: the ones that certificates have to hold on."""
        lower, upper = self.region.double_limits()
        return lower[row].flatten(), upper[row].flatten()

    def program(self, row: int) -> PairProgram:
        """The mixed-integer program of a box."""
        return PairProgram(self.dense_teacher, self.dense_student, *self.box(row))


@functools.lru_cache(maxsize=512)
def build_case(pair: TinyPair) -> TinyCase:
    """Networks and boxes of a pair; the same for the same pair."""
    # Of everything: hypothesis likes to change one field of a pair that it has tried.
    generator = torch.Generator().manual_seed(zlib.crc32(repr(pair).encode()))
    teacher = _network(pair, pair.teacher, pair.is_residual, generator)
    if pair.relation == "independent":
        student = _network(pair, pair.student, False, generator)
    else:
        student = _copy(pair.relation, teacher, generator)
    shape = (1, 1, pair.inputs)
    return _case(pair, teacher, student, shape, pair.classes, pair.epsilons, generator)


def _case(
    pair: TinyPair | int | None,
    teacher: nn.Module,
    student: nn.Module,
    shape: tuple[int, int, int],
    classes: int,
    epsilons: Sequence[float],
    generator: torch.Generator,
) -> TinyCase:
    count = len(epsilons)
    # A few pixels are exactly 0 or 1, where the ball is clipped.
    images = (1.2 * torch.rand(count, *shape, generator=generator) - 0.1).clamp(0, 1)
    radius = torch.tensor(epsilons, dtype=torch.float64)
    networks = [network.eval().requires_grad_(False) for network in (teacher, student)]
    return TinyCase(
        pair,
        *networks,
        *(dense_form(network, shape) for network in networks),
        Region.around(images, radius, torch.arange(count)),
        torch.arange(count) % classes,
    )


#: How far apart the ends of a true gap may be, by the number of inputs: cells multiply with them.
_TOLERANCE = {1: 1e-5, 2: 1e-4, 3: 5e-4, 4: 2e-3}


@functools.lru_cache(maxsize=4096)
def gap_truth(pair: TinyPair, row: int) -> tuple[Truth, Truth]:
    """True ``max p_T - p_S`` and ``max p_S - p_T`` on a box, to 0.002 or better."""
    case = build_case(pair)
    sides = case.dense_teacher, case.dense_student
    label = int(case.labels[row])
    return tuple(
        largest_gap(*order, *case.box(row), label, tolerance=_TOLERANCE[pair.inputs])
        for order in (sides, sides[::-1])
    )


@dataclass(frozen=True)
class Verdicts:
    """1, -1 or (a tie) 0: do they agree on the box, does each keep the prediction at the image?"""

    agrees: int
    teacher_robust: int
    student_robust: int


@functools.lru_cache(maxsize=4096)
def verdicts(pair: TinyPair | int, row: int) -> Verdicts:
    """What the mixed-integer programs decide of a box of `build_case` or `map_case`."""
    case = map_case(pair) if isinstance(pair, int) else build_case(pair)
    program = case.program(row)
    image = case.region.images[row].flatten().double()
    predictions = [int(z.argmax()) for z in program.logits(image)]
    return Verdicts(program.agreement(), *(program.robust(n, predictions[n]) for n in (0, 1)))


def samples(lower: Tensor, upper: Tensor, count: int, seed: int) -> Tensor:
    """Uniform points and corners of a box (n,), float64 (count, n)."""
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(count, len(lower), generator=generator, dtype=torch.float64)
    share[::2] = share[::2].round()
    return lower + share * (upper - lower)


def grid(lower: Tensor, upper: Tensor, steps: int = 401) -> Tensor:
    """A grid with ``steps`` points an axis, float64 (steps^n, n)."""
    axes = [
        torch.linspace(a, b, steps, dtype=torch.float64) for a, b in zip(lower, upper, strict=True)
    ]
    return torch.cartesian_prod(*axes)


def tiny_pairs(*, inputs: Sequence[int] = (2, 2, 3, 3, 4)) -> st.SearchStrategy[TinyPair]:
    """Pairs with up to two hidden layers of 3-6 units and two boxes each."""
    hidden = st.lists(st.integers(3, 6), min_size=1, max_size=2).map(tuple)
    return st.builds(
        TinyPair,
        inputs=st.sampled_from(list(inputs)),
        teacher=hidden,
        student=hidden,
        classes=st.integers(2, 4),
        scale=st.sampled_from([0.5, 1.0, 2.0, 4.0]),
        relation=st.sampled_from(["independent", "independent", "tuned", "pruned", "rounded"]),
        is_residual=st.sampled_from([False, False, True]),
        epsilons=st.tuples(
            st.sampled_from([0.01, 0.03, 0.06, 0.1]), st.sampled_from([0.15, 0.2, 0.3, 0.5])
        ),
        seed=st.integers(0, 10**6),
    )


@functools.lru_cache(maxsize=64)
def map_case(seed: int) -> TinyCase:
    """A pair of networks on maps; seeds take turns through `tiny_maps.KINDS`.

    The student is a copy, or a fully connected network.
    """
    generator = torch.Generator().manual_seed(seed)
    classes = 2 + seed % 2
    teacher, shape = map_network(KINDS[seed % len(KINDS)], classes, generator)
    student = _student_on_maps(teacher, seed, shape, classes, generator)
    return _case(seed, teacher, student, shape, classes, (0.03, 0.15), generator)


@functools.lru_cache(maxsize=64)
def wide_case(seed: int) -> TinyCase:
    """The same on the wider images of `tiny_maps.WIDE`, too many pixels for exact verdicts."""
    generator = torch.Generator().manual_seed(seed)
    teacher, shape = map_network(WIDE[seed % len(WIDE)], 3, generator, is_wide=True)
    student = _student_on_maps(teacher, seed // len(WIDE), shape, 3, generator)
    return _case(None, teacher, student, shape, 3, (0.02, 0.1), generator)


def _student_on_maps(
    teacher: nn.Module,
    seed: int,
    shape: tuple[int, int, int],
    classes: int,
    generator: torch.Generator,
) -> nn.Module:
    if seed % 4 < 2:
        return _copy(("tuned", "pruned")[seed % 2], teacher, generator)
    return nn.Sequential(
        nn.Flatten(),
        _linear(shape[0] * shape[1] * shape[2], 4, 2.0, generator),
        nn.ReLU(),
        _linear(4, classes, 2.0, generator),
    )
