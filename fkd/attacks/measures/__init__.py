"""Ways in which two networks' outputs can differ, each searched for at its worst: one file a measure."""

from fkd.attacks.measures._base import MEASURES, Measure
from fkd.attacks.measures._search import MeasuredDifference, measure_differences

__all__ = ["MEASURES", "Measure", "MeasuredDifference", "measure_differences"]
