"""A forest plot: one concept's delta in every model, with 95 % intervals, between the two thresholds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from engine.figures.frame import Basis, framed
from engine.figures.palette import EXAGGERATED, SUPPRESSED, delta_colour

HOW = (
    "Dot: the estimate, bar: its 95 % interval. A bar that stays inside the blue band is suppressed, inside the yellow "
    "band exaggerated; one that covers 0.5 agrees with reality."
)
BARE_HOW = "Dot: the estimate; intervals were not published. In the blue band: suppressed, in the yellow: exaggerated."
ROW = 34
GREY = "#8d8590"


def delta_intervals(rows: pd.DataFrame, *, concept: int, basis: Basis) -> go.Figure:
    """Draw one concept's delta per model.

    Parameters
    ----------
    rows
        Indexed by model: ``delta, ci_low, ci_high, q, energy_real, energy_model``. Intervals that are nan for every
        model are left out.
    concept
        Its id, for the title.
    basis
        Estimator, temperature, thresholds and n.
    """
    rows = rows.iloc[::-1]
    delta = rows["delta"].to_numpy(np.float64)
    low, high = rows["ci_low"].to_numpy(np.float64), rows["ci_high"].to_numpy(np.float64)
    bands = ((0.0, basis.low, SUPPRESSED), (basis.high, 1.0, EXAGGERATED))
    middle = {"type": "line", "x0": 0.5, "x1": 0.5, "yref": "paper", "y0": 0, "y1": 1}
    bare = bool(np.isnan(low).all() and np.isnan(high).all())
    certainty = "" if bare else " [%{customdata[0]:.3f}, %{customdata[1]:.3f}]<br>q = %{customdata[2]:.2g},"
    bar = {"type": "data", "symmetric": False, "array": high - delta, "arrayminus": delta - low, "color": GREY,
           "thickness": 2, "width": 0}  # fmt: skip
    shapes = [
        *({"type": "rect", "x0": left, "x1": right, "yref": "paper", "y0": 0, "y1": 1, "fillcolor": colour,
           "opacity": 0.18, "line": {"width": 0}, "layer": "below"} for left, right, colour in bands),
        {**middle, "line": {"width": 1, "dash": "dot", "color": GREY}},
    ]  # fmt: skip
    dots = go.Scatter(
        x=delta, y=list(rows.index), mode="markers", showlegend=False,
        marker={"size": 12, "color": [delta_colour(value) for value in delta], "line": {"width": 1.5, "color": GREY}},
        error_x=None if bare else bar,
        customdata=rows[["ci_low", "ci_high", "q", "energy_real", "energy_model"]].to_numpy(np.float64),
        hovertemplate=f"%{{y}}: delta %{{x:.3f}}{certainty} energy %{{customdata[3]:.3f}} real, "
                      "%{customdata[4]:.3f} here<extra></extra>",
    )  # fmt: skip
    return framed(
        go.Figure(dots), title=f"Concept {concept}: delta per model", subtitle=basis.sentence(),
        how=BARE_HOW if bare else HOW,
        height=64 + 44 + ROW * len(rows), shapes=shapes,
        xaxis={"range": [-0.02, 1.02], "tickvals": [0, basis.low, 0.5, basis.high, 1], "title": {"text": "delta"},
               "showgrid": False, "zeroline": False, "fixedrange": True, "automargin": True},
        yaxis={"showgrid": False, "automargin": True, "fixedrange": True},
    )  # fmt: skip
