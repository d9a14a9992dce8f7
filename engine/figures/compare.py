"""Models against each other: delta against delta, every two models at once, and how their deltas correlate.

The correlations come ready-made as tables (`engine.blindspots.correlation`); the matrix of scatter plots is figure 6 of
"Conceptual Blindspots in Generative Image Models".
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from engine.figures.map import CLICKABLE, FREQUENCIES
from engine.figures.style import AMOUNT_SCALE, DELTA_SCALE, GUIDE, NIGHT, Basis, apply_layout, axis, colour_bar
from engine.figures.tables import pearson

SCATTER_HOW = (
    "One dot per concept. On the diagonal both models treat it alike; bottom left is missing from both, top right "
    "overdrawn by both; off the diagonal, only one of them is blind."
)
CORRELATION_HOW = (
    "1: both models miss and overdo the same concepts, 0: nothing in common. Brackets: 95 % interval, which takes "
    "concepts for independent and is therefore too narrow."
)
PAIRS_HOW = (
    "Each panel holds all concepts, one model's delta against another's: the column's model to the right, the row's "
    "upwards, brighter where more concepts lie. Mass on the "
    "diagonal: the two models are blind to the same things."
)
QUANTITIES = {"relative": "relative gap", "delta": "delta"}
SCATTER_HEIGHT = 460
MANY = 4_000
"""Concepts beyond which the dots of `delta_scatter` are small and pale, so that where many lie is brighter."""
CELLS = 40
"""Cells along each side of a panel of `scatter_matrix`."""


def delta_scatter(a: pd.DataFrame, b: pd.DataFrame, *, names: tuple[str, str], basis: Basis) -> go.Figure:
    """Draw delta of model A against delta of model B over live concepts, with Pearson's r in the subtitle.

    Parameters
    ----------
    a, b
        Concept tables over the same concepts: ``delta, frequency, dead``.
    names
        The two models, A on the horizontal axis.
    basis
        What the deltas were computed with.
    """
    live = ~a["dead"].to_numpy(bool)
    x, y = a["delta"].to_numpy(np.float32)[live], b["delta"].to_numpy(np.float32)[live]
    frequency = np.log10(np.clip(a["frequency"].to_numpy(np.float32)[live], 1e-4, 1))
    bar = colour_bar("share of real images", 0.6, tickvals=[-4, -3, -2, -1, 0], ticktext=FREQUENCIES)
    many = len(x) > MANY
    marker = {"size": 4 if many else 6, "opacity": 0.4 if many else 0.95, "color": frequency,
              "colorscale": AMOUNT_SCALE, "cmin": -4, "cmax": 0, "colorbar": bar}  # fmt: skip
    if np.isnan(frequency).all():
        marker = {"size": 3, "color": AMOUNT_SCALE[-1][1], "opacity": 0.3}
    figure = go.Figure([
        go.Scattergl(x=x, y=y, customdata=a.index.to_numpy()[live].astype(np.uint32), mode="markers", marker=marker,
                     hoverinfo="none", showlegend=False, meta={"role": "concepts"}),
    ])  # fmt: skip
    line = {"color": GUIDE, "width": 1, "dash": "dot"}
    figure.add_shape(type="line", x0=0, y0=0, x1=1, y1=1, line=line, opacity=0.5)
    for mark in (basis.low, basis.high):
        figure.add_shape(type="line", x0=mark, x1=mark, y0=0, y1=1, line={**line, "dash": "solid"}, opacity=0.15)
        figure.add_shape(type="line", y0=mark, y1=mark, x0=0, x1=1, line={**line, "dash": "solid"}, opacity=0.15)
    shared = {"range": [-0.03, 1.03], "constrain": "domain", "showgrid": False, "zeroline": False}
    return apply_layout(
        figure, title=f"{names[0]} against {names[1]}", how=SCATTER_HOW, height=SCATTER_HEIGHT,
        subtitle=f"delta by {basis.sentence()} · {int(live.sum()):,} concepts · Pearson r = {pearson(x, y):.2f}",
        xaxis=axis(f"delta, {names[0]}", **shared), yaxis=axis(f"delta, {names[1]}", scaleanchor="x", **shared),
        plot_bgcolor=NIGHT, **CLICKABLE,
    )  # fmt: skip


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
        What the deltas were computed with.
    """
    text = [
        [f"{matrix.loc[a, b]:.2f}" + ("" if a == b else f"<br>[{low.loc[a, b]:.2f}, {high.loc[a, b]:.2f}]")
         for b in matrix.columns] for a in matrix.index
    ]  # fmt: skip
    heat = go.Heatmap(
        z=matrix.to_numpy(np.float64), x=list(matrix.columns), y=list(matrix.index), text=text,
        texttemplate="%{text}", zmin=-1, zmax=1, colorscale=DELTA_SCALE, colorbar=colour_bar("r"),
        hovertemplate="%{y} and %{x}: %{z:.3f}<extra></extra>",
    )  # fmt: skip
    return apply_layout(
        go.Figure(heat), title=f"{method} correlation of {quantity} between models",
        subtitle=_subtitle(quantity, basis, concepts), how=CORRELATION_HOW, height=140 + 70 * len(matrix),
        xaxis={"showgrid": False, "automargin": True, "constrain": "domain"},
        yaxis={"showgrid": False, "automargin": True, "autorange": "reversed"},
    )  # fmt: skip


def _subtitle(quantity: str, basis: Basis, concepts: int) -> str:
    measured = basis.sentence() if quantity == "delta" else f"relative gap, from -1 to 1 · {basis.count()}"
    return f"{measured}; {concepts:,} concepts"


def scatter_matrix(values: pd.DataFrame, *, quantity: str, basis: Basis) -> go.Figure:
    """Draw every two models against each other as counts of concepts in cells: exact, and small at any size.

    Parameters
    ----------
    values
        Live concepts x models.
    quantity
        ``delta`` (drawn on [0, 1]) or ``relative`` (on [-1, 1]).
    basis
        What the deltas were computed with.

    Raises
    ------
    ValueError
        For fewer than two models.
    """
    models = list(values)
    if len(models) < 2:
        raise ValueError("scatter_matrix draws two or more models.")
    span = (0.0, 1.0) if quantity == "delta" else (-1.0, 1.0)
    name = QUANTITIES[quantity]
    size = len(models) - 1
    figure = make_subplots(size, size, shared_xaxes=True, shared_yaxes=True, horizontal_spacing=0.02,
                           vertical_spacing=0.02)  # fmt: skip
    edges = np.linspace(*span, CELLS + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    counts = {}
    for row, column in zip(*np.tril_indices(size), strict=True):
        sides = values[models[row + 1]], values[models[column]]
        counts[row, column] = np.histogram2d(*sides, bins=CELLS, range=[span, span])[0]
    top = max(np.log10(1 + count).max() for count in counts.values())
    ticks = [
        count for power in range(6) for count in (10**power, 3 * 10**power) if np.log10(1 + count) <= max(top, 0.5)
    ]
    bar = {"title": {"text": "concepts", "side": "right"}, "thickness": 8, "outlinewidth": 0,
           "tickvals": np.log10(1 + np.array(ticks)), "ticktext": [f"{count:,}" for count in ticks]}  # fmt: skip
    for number, ((row, column), count) in enumerate(counts.items()):
        heat = go.Heatmap(
            z=np.where(count > 0, np.log10(1 + count), np.nan), x=centres, y=centres, customdata=count, zmin=0,
            zmax=max(top, 1), colorscale=AMOUNT_SCALE, showscale=number == 0, colorbar=bar,
            hovertemplate="%{customdata} concepts<extra></extra>",
            meta={"role": "range", "models": [models[column], models[row + 1]], "half": (edges[1] - edges[0]) / 2,
                  "of": [] if quantity == "delta" else [quantity]},
        )  # fmt: skip
        figure.add_trace(heat, row + 1, column + 1)
    apply_layout(
        figure, title=f"{name.capitalize()} of every two models", subtitle=_subtitle(quantity, basis, len(values)),
        how=PAIRS_HOW.replace("delta", name), height=160 + 220 * size, plot_bgcolor=NIGHT,
    )  # fmt: skip
    marks = [span[0] + share * (span[1] - span[0]) for share in (0.25, 0.75)]
    shared = {"range": span, "tickvals": marks, "showgrid": False, "zeroline": False, "automargin": True}
    figure.update_xaxes(**shared, tickangle=0)
    figure.update_yaxes(**shared)
    for number in range(size):
        figure.update_xaxes(title_text=models[number], row=size, col=number + 1)
        figure.update_yaxes(title_text=models[number + 1], row=number + 1, col=1)
    return figure
