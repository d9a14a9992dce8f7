"""How alike models are in what they miss: correlation heat maps and the matrix of scatter plots (paper 004, figure 6).

The statistics come ready-made as tables (`engine.blindspots.correlation`).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from engine.figures.frame import Basis, framed
from engine.figures.palette import AMOUNT_SCALE, DELTA_SCALE, NIGHT

CORRELATION_HOW = (
    "1: both models miss and overdo the same concepts, 0: nothing in common. Brackets: 95 % interval, which takes "
    "concepts for independent and is therefore too narrow."
)
PAIRS_HOW = (
    "Each panel holds all concepts, one model's delta against another's: the column's model to the right, the row's "
    "upwards, brighter where more concepts lie. Mass on the "
    "diagonal: the two models are blind to the same things."
)
_CELLS = 40
"""Cells along each side of a panel."""


def correlation_heat(
    matrix: pd.DataFrame,
    low: pd.DataFrame,
    high: pd.DataFrame,
    *,
    quantity: str,
    method: str,
    concepts: int,
    basis: Basis,
) -> go.Figure:
    """Draw the correlations of every two models.

    Parameters
    ----------
    matrix, low, high
        Models x models: correlation and the ends of its interval.
    quantity
        What was correlated: ``delta`` or ``relative``.
    method
        ``Pearson`` or ``Spearman``.
    concepts
        Live concepts.
    basis
        Estimator, temperature, thresholds and n.
    """
    text = [
        [f"{matrix.loc[a, b]:.2f}" + ("" if a == b else f"<br>[{low.loc[a, b]:.2f}, {high.loc[a, b]:.2f}]")
         for b in matrix.columns] for a in matrix.index
    ]  # fmt: skip
    heat = go.Heatmap(
        z=matrix.to_numpy(np.float64), x=list(matrix.columns), y=list(matrix.index), text=text,
        texttemplate="%{text}", zmin=-1, zmax=1, colorscale=DELTA_SCALE, textfont={"color": "#ffffff"},
        colorbar={"title": {"text": "r", "side": "right"}, "thickness": 8, "len": 0.8, "outlinewidth": 0},
        hovertemplate="%{y} and %{x}: %{z:.3f}<extra></extra>",
    )  # fmt: skip
    return framed(
        go.Figure(heat), title=f"{method} correlation of {quantity} between models",
        subtitle=f"{basis.sentence()}; {concepts:,} concepts", how=CORRELATION_HOW, height=140 + 70 * len(matrix),
        xaxis={"showgrid": False, "automargin": True, "constrain": "domain"},
        yaxis={"showgrid": False, "automargin": True, "autorange": "reversed"},
    )  # fmt: skip


def scatter_matrix(values: pd.DataFrame, *, quantity: str, basis: Basis) -> go.Figure:
    """Draw every two models against each other as counts of concepts in cells: exact, and small at any size.

    Parameters
    ----------
    values
        Live concepts x models.
    quantity
        ``delta`` (drawn on [0, 1]) or ``relative`` (on [-1, 1]).
    basis
        Estimator, temperature, thresholds and n.

    Raises
    ------
    ValueError
        For fewer than two models.
    """
    models = list(values)
    if len(models) < 2:
        raise ValueError("scatter_matrix draws two or more models.")
    span = (-1.0, 1.0) if quantity == "relative" else (0.0, 1.0)
    size = len(models) - 1
    figure = make_subplots(size, size, shared_xaxes=True, shared_yaxes=True, horizontal_spacing=0.02,
                           vertical_spacing=0.02)  # fmt: skip
    panels = [(row, column) for row in range(size) for column in range(row + 1)]
    counts = {}
    for row, column in panels:
        sides = values[models[row + 1]], values[models[column]]
        counts[row, column], edges, _ = np.histogram2d(*sides, bins=_CELLS, range=[span, span])
    top = max(np.log10(1 + count).max() for count in counts.values())
    centres = (edges[:-1] + edges[1:]) / 2
    ticks = [
        count for power in range(6) for count in (10**power, 3 * 10**power) if np.log10(1 + count) <= max(top, 0.5)
    ]
    bar = {"title": {"text": "concepts", "side": "right"}, "thickness": 8, "outlinewidth": 0,
           "tickvals": np.log10(1 + np.array(ticks)), "ticktext": [f"{count:,}" for count in ticks]}  # fmt: skip
    for number, ((row, column), count) in enumerate(counts.items()):
        shown = np.where(count > 0, np.log10(1 + count), np.nan)
        heat = go.Heatmap(
            z=shown, x=centres, y=centres, customdata=count, zmin=0, zmax=max(top, 1), colorscale=AMOUNT_SCALE,
            showscale=number == 0, colorbar=bar, hovertemplate="%{customdata} concepts<extra></extra>",
        )  # fmt: skip
        figure.add_trace(heat, row + 1, column + 1)
    marks = [span[0] + share * (span[1] - span[0]) for share in (0.25, 0.75)]
    framed(
        figure, title=f"{quantity} of every two models", subtitle=f"{basis.sentence()}; {len(values):,} concepts",
        how=PAIRS_HOW, height=160 + 220 * size,
    )  # fmt: skip
    figure.update_layout(plot_bgcolor=NIGHT)
    figure.update_xaxes(range=span, tickvals=marks, tickangle=0, showgrid=False, zeroline=False)
    figure.update_yaxes(range=span, tickvals=marks, showgrid=False, zeroline=False)
    for number in range(size):
        figure.update_xaxes(title_text=models[number], row=size, col=number + 1)
        figure.update_yaxes(title_text=models[number + 1], row=number + 1, col=1)
    return figure
