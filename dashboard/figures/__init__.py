"""Records to plotly figures: one chart per function, one theme for all, a description with each."""

from dashboard.figures.agreement import agreement
from dashboard.figures.bracket import bracket
from dashboard.figures.comparison import brackets
from dashboard.figures.curve import curve
from dashboard.figures.distribution import cumulative, histogram
from dashboard.figures.levels import closing, level_brackets
from dashboard.figures.measures import measure_spread, who_stays_right
from dashboard.figures.multiples import Panel, multiples
from dashboard.figures.pareto import out_of_view, pareto
from dashboard.figures.plane import plane, plane_disagreement
from dashboard.figures.probabilities import probabilities
from dashboard.figures.radii import (
    at_least_radius,
    at_most_radius,
    found_radius,
    proved_radius,
    radii,
)
from dashboard.figures.reliability import reliability
from dashboard.figures.robustness import robustness, share_with_interval
from dashboard.figures.saliency import saliency
from dashboard.figures.scatter import PAIRINGS, examples
from dashboard.figures.seeds import seeds
from dashboard.figures.side_by_side import ENDS, bracket_text, side_by_side
from dashboard.figures.theme import (
    Chart,
    at_least,
    at_most,
    ball,
    ball_in_pixels,
    bound,
    percent,
    reached,
    rounded,
    seconds,
    signed,
    styled,
    toolbar,
    unbroken,
)
from dashboard.figures.training import lines
from dashboard.figures.transfer import short_names, transfer_map
from dashboard.figures.ways import Way, ways

__all__ = [
    "ENDS",
    "PAIRINGS",
    "Chart",
    "Panel",
    "Way",
    "agreement",
    "at_least",
    "at_least_radius",
    "at_most",
    "at_most_radius",
    "ball",
    "ball_in_pixels",
    "bound",
    "bracket",
    "bracket_text",
    "brackets",
    "closing",
    "cumulative",
    "curve",
    "examples",
    "found_radius",
    "histogram",
    "level_brackets",
    "lines",
    "measure_spread",
    "multiples",
    "out_of_view",
    "pareto",
    "percent",
    "plane",
    "plane_disagreement",
    "probabilities",
    "proved_radius",
    "radii",
    "reached",
    "reliability",
    "robustness",
    "rounded",
    "saliency",
    "seconds",
    "seeds",
    "share_with_interval",
    "short_names",
    "side_by_side",
    "signed",
    "styled",
    "toolbar",
    "transfer_map",
    "unbroken",
    "ways",
    "who_stays_right",
]
