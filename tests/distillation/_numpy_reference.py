"""The published formulas once more, in NumPy and float64, on fully connected networks.

Written from the papers' notation and without a line of the package's own mathematics, so that a slip in
one of the two shows.  Batches are rows; loops are fine, everything is tiny.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

Array = NDArray[np.float64]


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def cross_entropy(z: Array, labels: NDArray[np.int64]) -> float:
    return float(np.mean([-np.log(softmax(z)[i, y]) for i, y in enumerate(labels)]))


def kl(target: Array, z: Array, tau: float = 1.0) -> float:
    """Sum over classes, mean over the batch."""
    p, q = softmax(target / tau), softmax(z / tau)
    return float(np.mean([sum(p[i] * np.log(p[i] / q[i])) for i in range(len(p))]))


def sigmoid(a: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-a))


def log_sum_exp(m: Array) -> Array:
    return np.log(np.exp(m).sum(-1))


@dataclass
class MLP:
    """Weights and biases, the normalisation folded into the first layer."""

    layers: list[tuple[Array, Array]]

    @classmethod
    def of(cls, network: nn.Module) -> MLP:
        first = network.normalisation
        scale = first.weight[0, 0, 0, 0].double().item()
        shift = first.bias[0].double().item()
        layers = [
            (m.weight.detach().double().numpy().copy(), m.bias.detach().double().numpy().copy())
            for m in network.body
            if isinstance(m, nn.Linear)
        ]
        weight, bias = layers[0]
        layers[0] = (weight * scale, bias + weight.sum(1) * shift)
        return cls(layers)

    def logits(self, x: Array) -> Array:
        for number, (weight, bias) in enumerate(self.layers):
            x = x @ weight.T + bias
            x = np.maximum(x, 0) if number < len(self.layers) - 1 else x
        return x

    def pull_back(self, x: Array, dz: Array) -> Array:
        """Gradient in x of sum(dz * logits(x)), dz held fixed."""
        masks = []
        for weight, bias in self.layers[:-1]:
            x = x @ weight.T + bias
            masks.append(x > 0)
            x = np.maximum(x, 0)
        g = dz @ self.layers[-1][0]
        for (weight, _), mask in zip(reversed(self.layers[:-1]), reversed(masks), strict=True):
            g = (g * mask) @ weight
        return g

    def hidden_intervals(self, low: Array, high: Array) -> list[tuple[Array, Array]]:
        """Bounds of every hidden layer before its ReLU, from the bounds after the one below."""
        found = []
        for weight, bias in self.layers[:-1]:
            up, down = np.maximum(weight, 0), np.minimum(weight, 0)
            low, high = low @ up.T + high @ down.T + bias, high @ up.T + low @ down.T + bias
            found.append((low, high))
            low, high = np.maximum(low, 0), np.maximum(high, 0)
        return found

    def interval_margins(self, low: Array, high: Array, classes: NDArray[np.int64]):
        """Bounds of z_j - z_c, j != c, the last layer merged with the difference; (N, K - 1) each."""
        below, above = self.hidden_intervals(low, high)[-1]
        below, above = np.maximum(below, 0), np.maximum(above, 0)
        lows, highs = [], []
        for i, c in enumerate(classes):
            rows, offsets = self.margin_rows(int(c))
            up, down = np.maximum(rows, 0), np.minimum(rows, 0)
            lows.append(up @ below[i] + down @ above[i] + offsets)
            highs.append(up @ above[i] + down @ below[i] + offsets)
        return np.array(lows), np.array(highs)

    def margin_rows(self, c: int) -> tuple[Array, Array]:
        weight, bias = self.layers[-1]
        others = [j for j in range(len(bias)) if j != c]
        return weight[others] - weight[c], bias[others] - bias[c]

    def linear_margins(self, low: Array, high: Array, classes: NDArray[np.int64], sign: int):
        """CROWN over interval bounds: sign * (z_j - z_c) <= A x + b, lists of (K - 1, D), (K - 1,)."""
        hidden = self.hidden_intervals(low, high)
        found = []
        for i, c in enumerate(classes):
            rows, constant = self.margin_rows(int(c))
            rows, constant = sign * rows, sign * constant
            for number in range(len(hidden) - 1, -1, -1):
                lower, upper = hidden[number][0][i], hidden[number][1][i]
                weight, bias = self.layers[number]
                fresh = np.zeros_like(rows)
                for unit, (lo, hi) in enumerate(zip(lower, upper, strict=True)):
                    for r in range(len(rows)):
                        a = rows[r, unit]
                        if lo >= 0:
                            slope, intercept = 1.0, 0.0
                        elif hi <= 0:
                            slope, intercept = 0.0, 0.0
                        elif a >= 0:
                            slope, intercept = hi / (hi - lo), -hi * lo / (hi - lo)
                        else:
                            slope, intercept = float(hi > -lo), 0.0
                        fresh[r, unit] = a * slope
                        constant[r] += a * intercept
                constant = constant + fresh @ bias
                rows = fresh @ weight
            found.append((rows, constant))
        return found


def concretise(linear, low: Array, high: Array) -> Array:
    """Largest value of each linear function on its example's box."""
    return np.array(
        [
            np.maximum(rows, 0) @ high[i] + np.minimum(rows, 0) @ low[i] + constant
            for i, (rows, constant) in enumerate(linear)
        ]
    )


def box(x: Array, epsilon: float) -> tuple[Array, Array]:
    return np.clip(x - epsilon, 0, 1), np.clip(x + epsilon, 0, 1)


def pgd(gradient, x: Array, start: Array, *, epsilon: float, steps: int, size: float) -> Array:
    """x' <- clip(x' + size * sign(gradient(x')))."""
    low, high = box(x, epsilon)
    point = np.clip(start, low, high)
    for _ in range(steps):
        point = np.clip(point + size * np.sign(gradient(point)), low, high)
    return point


def towards(network: MLP, target: Array):
    """Gradient of CE(target, softmax(z(x))) and, where the target is fixed, of KL(target || ...)."""
    return lambda x: network.pull_back(x, softmax(network.logits(x)) - target)


def largest_gap(highest: float, lowest: float, difference: float | None, points: int = 40001):
    """max of sigmoid(a_P) - sigmoid(a_Q) with a_P <= highest, a_Q >= lowest, a_P - a_Q <= d; a grid."""
    if difference is None:
        return max(0.0, float(sigmoid(np.array(highest)) - sigmoid(np.array(lowest))))
    a = highest - np.linspace(0.0, 60.0, points)
    return max(0.0, float((sigmoid(a) - sigmoid(np.maximum(lowest, a - difference))).max()))
