"""Which pixels make the gap: the image, and beside it each pixel's part with its sign."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboard.figures import theme


def saliency(
    image: np.ndarray, parts: np.ndarray, *, title: str, index: int, height: int = 320
) -> theme.Chart:
    """The image beside a heat map whose scale is even around 0 and ends at the strongest pixel.

    Args:
        image: (C, H, W) in [0, 1]; one channel is drawn grey, three as red, green and blue.
        parts: (H, W), probability, signed: above 0 towards the teacher, below towards the student.
        title: of the colours, what they stand for.
        index: example id, for the description.
        height: pixels.
    """
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.04)
    pixels = np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)
    colours = pixels if len(pixels) == 3 else pixels[:1].repeat(3, axis=0)
    figure.add_trace(
        go.Image(
            z=np.moveaxis(colours, 0, 2),
            hovertemplate="row %{y}, column %{x}<extra>image</extra>",
        ),
        row=1,
        col=1,
    )
    largest = float(np.abs(parts).max())
    figure.add_trace(
        go.Heatmap(
            z=parts,
            hovertemplate="row %{y}, column %{x}: %{z:.3g}<extra></extra>",
            # A picture of zeros needs a scale too.
            **theme.diverging(largest or 1.0, title),
        ),
        row=1,
        col=2,
    )
    theme.lay_out(figure, x="", y="", height=height, legend=False)
    rows, columns = parts.shape
    # In a narrow window what is left of the height comes last.
    hidden = {"visible": False, "constrain": "domain"}
    figure.update_xaxes(range=(-0.5, columns - 0.5), title=None, **hidden)
    figure.update_yaxes(range=(rows - 0.5, -0.5), title=None, constraintoward="top", **hidden)
    figure.update_layout(
        margin={"t": 56, "l": 0, "r": 0, "b": 0},
        yaxis={"scaleanchor": "x"},
        yaxis2={"scaleanchor": "x2"},
    )
    row, column = np.unravel_index(np.abs(parts).argmax(), parts.shape)
    return theme.Chart(
        figure,
        f"Image {index} beside a heat map: {title}. The strongest pixel is in row {row}, column "
        f"{column} (both from 0) with {parts[row, column]:.3g}.",
    )
