"""auto_LiRPA's alpha-CROWN on a `JointBounder`'s rows: slopes of activations optimised row by row.

Every value of the slopes is sound, so the better of both bounds is kept row by row and optimising can
never loosen one.  What comes back is not trusted more than plain CROWN: it is held against the values at
points of every box and against the other end of plain CROWN's interval.

The names of the options are the same in the releases 0.3 to 0.7; all others keep their defaults.

Source: alpha-CROWN, Xu et al. 2011.13824.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import Any

import torch
from torch import Tensor

from fkd.bounds._double import DoubleByDefault
from fkd.bounds._perturbation import perturbation
from fkd.bounds.joint import LOCK, JointBounder, is_out_of_memory, widened
from fkd.core.ball import Region
from fkd.core.lirpa_compat import has_alpha_crown, load_auto_lirpa

#: Steps of Adam at most, its step size, and after how many without any gain to stop.
_SCHEDULE = {"iteration": 20, "lr_alpha": 0.1, "early_stop_patience": 5}

#: Options of the bounded module besides.
_OPTIONS: dict[str, Any] = {}

#: Random points of every box that bounds are held against, the image besides.
_POINTS = 8

#: What rounding may add where two bounds of a row are held against each other, relative and absolute.
_SLACK = 1e-6


class SlopeOptimiser:
    """Tightens what a `JointBounder` proved; after a first failure plain CROWN's bounds stand.

    Args:
        plain: has bounded some rows already, so that it has settled on a way through its networks.
    """

    def __init__(self, plain: JointBounder) -> None:
        self._plain = plain
        # A module of its own: a failure halfway leaves optimised slopes on its nodes.
        self._module: Any = None
        #: Why optimising was given up, None while it was not.
        self.failure: Exception | None = None

    @classmethod
    def of(cls, plain: JointBounder) -> SlopeOptimiser | None:
        """One for ``plain``, or None where the installed auto_LiRPA's alpha-CROWN is not used."""
        return cls(plain) if has_alpha_crown() else None

    def tighten(
        self, region: Region, specification: Tensor, known: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor] | None:
        """The better of ``known`` and optimised bounds of every row, lower and upper.

        Args:
            region: N boxes.
            specification: float64 (N, R, 2K).
            known: what `JointBounder.bound` proved of them, two (N, R).

        Returns:
            Two float64 (N, R), or None where auto_LiRPA cannot optimise these networks.

        Raises:
            MemoryError: several boxes do not fit at once (or torch.OutOfMemoryError).
        """
        found = self._attempt(region, specification, known)
        if found is None:
            return None
        return torch.fmax(known[0], found[0]), torch.fmin(known[1], found[1])

    def tighten_upper(self, region: Region, specification: Tensor, known: Tensor) -> Tensor:
        """The better of ``known`` and optimised upper bounds (N, R) of more rows."""
        found = self._attempt(region, specification, (None, known))
        return known if found is None else torch.fmin(known, found[1])

    def _attempt(
        self, region: Region, specification: Tensor, known: tuple[Tensor | None, Tensor]
    ) -> tuple[Tensor | None, Tensor] | None:
        if self.failure is not None:
            return None
        try:
            lower, upper = self._compute(region, specification, bound_lower=known[0] is not None)
            self._check(region, specification, known, (lower, upper))
        except Exception as error:
            if is_out_of_memory(error) and len(region) > 1:
                raise MemoryError(str(error)) from error
            self.failure, self._module = error, None
            return None
        return lower, upper

    def _compute(
        self, region: Region, specification: Tensor, *, bound_lower: bool
    ) -> tuple[Tensor | None, Tensor]:
        if self._module is None:
            self._module = self._plain.build(optimize_bound_args=dict(_SCHEDULE), **_OPTIONS)
        images = load_auto_lirpa().BoundedTensor(region.images.double(), perturbation(region))
        # Early stops are printed whatever the verbosity.
        with (
            LOCK,
            torch.enable_grad(),
            _ForSlopes(),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            lower, upper = self._module.compute_bounds(
                x=(images,),
                C=specification,
                method="CROWN-Optimized",
                bound_lower=bound_lower,
                bound_upper=True,
            )[:2]
        lower = None if lower is None else widened(_in_double(lower, -1.0), -1.0)
        return lower, widened(_in_double(upper, 1.0), 1.0)

    def _check(
        self,
        region: Region,
        specification: Tensor,
        known: tuple[Tensor | None, Tensor],
        found: tuple[Tensor | None, Tensor],
    ) -> None:
        """Refuse bounds that are not of the rows asked for, or wrong at a point.

        Raises:
            ArithmeticError: they are.
        """
        if any(new is not None and new.shape != known[1].shape for new in found):
            raise ArithmeticError("its bounds are not of the rows asked for")
        if known[0] is not None and found[0] is not None:
            slack = _SLACK * (1.0 + known[0].abs().maximum(known[1].abs()))
            if bool(((found[0] > known[1] + slack) | (found[1] < known[0] - slack)).any()):
                raise ArithmeticError("its bounds contradict those of plain CROWN")
        generator = torch.Generator().manual_seed(0)
        self._plain.check_clean(region.images, specification, *found)
        for number in range(_POINTS):
            share = torch.rand(region.images.shape, generator=generator).to(region.images)
            # Corners, where affine functions are largest, and points inside by turns.
            share = share if number % 2 else share.round()
            points = region.clamp(region.lower + share * (region.upper - region.lower))
            self._plain.check_clean(points, specification, *found)


class _ForSlopes(DoubleByDefault):
    """What auto_LiRPA needs of torch to optimise in float64.

    * It casts its best bounds to torch's default type at the end.  That rounds to the nearest, which is
      no bound any more, and better ones, in float64, cannot be written into the result: nothing is cast.
    * Slopes start at 0 or 1 and are clamped to [0, 1].  Since torch 2.14 a clamp has no gradient at its
      ends, so that nothing would ever move; here it has, as before.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """``func``'s result, with these two differences."""
        kwargs = kwargs or {}
        if func is Tensor.to and args[0].dtype == torch.float64 and torch.float32 in args[1:]:
            return args[0]
        if func in (torch.clamp, Tensor.clamp) and args and args[0].requires_grad:
            low, high = _ends(*args[1:], **kwargs)
            if isinstance(low, int | float) and isinstance(high, int | float):
                value = args[0]
                is_inside = (value >= low) & (value <= high)
                return torch.where(is_inside, value, value.detach().clamp(low, high))
        return super().__torch_function__(func, types, args, kwargs)


def _ends(min: Any = None, max: Any = None) -> tuple[Any, Any]:
    """Both ends of a clamp, however they were given."""
    return min, max


def _in_double(bound: Tensor, outwards: float) -> Tensor:
    """``bound`` in float64; from a narrower type a step outwards, for it was rounded to the nearest."""
    bound = bound.detach()
    if bound.dtype != torch.float64:
        bound = torch.nextafter(bound, torch.full_like(bound, outwards * torch.inf))
    return bound.double()
