"""How one model's deltas are spread: a histogram coloured by the delta scale itself."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from engine.figures.frame import Basis, framed
from engine.figures.palette import delta_colour

BINS = 40
HOW = "The height is the number of concepts. Mass at the left end is suppressed, at the right end exaggerated."


def delta_histogram(delta: np.ndarray, *, model: str, basis: Basis, height: int = 260) -> go.Figure:
    """Draw the histogram of one model's deltas.

    Parameters
    ----------
    delta : float array [concepts]
        Live concepts only, in [0, 1].
    model
        Name for the title.
    basis
        Estimator, temperature, thresholds and n.
    """
    counts, edges = np.histogram(np.asarray(delta, np.float64), bins=BINS, range=(0.0, 1.0))
    centres = (edges[:-1] + edges[1:]) / 2
    figure = go.Figure(
        go.Bar(
            x=centres, y=counts, width=0.92 / BINS, showlegend=False,
            marker={"color": [delta_colour(centre) for centre in centres], "line": {"width": 0}},
            customdata=np.stack([edges[:-1], edges[1:]], axis=1),
            hovertemplate="%{y} concepts with delta %{customdata[0]:.3f} to %{customdata[1]:.3f}<extra></extra>",
        )
    )  # fmt: skip
    for mark, name, side in ((basis.low, "‹ suppressed", "left"), (basis.high, "exaggerated ›", "right")):
        figure.add_vline(x=mark, line={"width": 1, "dash": "dot", "color": "#8d8590"})
        figure.add_annotation(x=mark, y=1, yref="paper", text=name, xanchor=side, yanchor="top", showarrow=False,
                              xshift=-4 if side == "right" else 4, font={"size": 11, "color": "#8d8590"})  # fmt: skip
    framed(
        figure, title=f"{model}: delta of {len(delta):,} concepts", subtitle=basis.sentence(), how=HOW, height=height,
        bargap=0, xaxis={"title": {"text": "delta (no unit)"}, "range": [-0.01, 1.01], "showgrid": False,
               "automargin": True},
        yaxis={"title": {"text": "concepts"}, "type": "linear", "rangemode": "tozero", "automargin": True, "nticks": 5},
    )  # fmt: skip
    return figure
