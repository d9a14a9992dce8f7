"""Two to four models at once: maps with matched axes in one figure, and delta against delta."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from engine.figures.frame import Basis, framed
from engine.figures.map import colourings, plane, points
from engine.figures.palette import AMOUNT_SCALE, GUIDE, NIGHT
from engine.figures.tables import pearson

MAPS_HOW = (
    "The same concepts at the same places, coloured by what each model does with them: blue too little, yellow too "
    "much, plum about as often as reality. Zoom, pan or click in one map: all follow."
)
SCATTER_HOW = (
    "One dot per concept. On the diagonal both models treat it alike; bottom left is missing from both, top right "
    "overdrawn by both; off the diagonal, only one of them is blind."
)
ROW = 480
"""Pixels of one row of maps."""
NARROW_ROW = 350
"""Pixels of one map on a phone, where they stand below each other."""
SCATTER_HEIGHT = 460


def default_columns(models: int) -> int:
    """Return how many maps stand beside each other: all of two or three, and four as two by two."""
    return 2 if models == 4 else models


def maps_height(models: int, columns: int | None = None) -> int:
    """Return the height of `model_maps` in pixels; one column is for narrow screens."""
    return (NARROW_ROW if columns == 1 else ROW) * -(-models // (columns or default_columns(models)))


def model_maps(tables: dict[str, pd.DataFrame], *, basis: Basis, columns: int | None = None) -> go.Figure:
    """Draw several models' maps in one figure with matched axes.

    Parameters
    ----------
    tables
        Concept table per model over the same concepts (see `engine.figures.map.concept_map`).
    basis
        Estimator, temperature, thresholds and n.
    columns
        Maps beside each other before a new row starts; by default all of two or three, and four as two by two.

    Raises
    ------
    ValueError
        For fewer than one or more than four models.
    """
    if not 1 <= len(tables) <= 4:
        raise ValueError(f"model_maps draws one to four models, not {len(tables)}.")
    columns = columns or default_columns(len(tables))
    rows = -(-len(tables) // columns)
    figure = make_subplots(
        rows, columns, subplot_titles=list(tables), horizontal_spacing=0.015,
        vertical_spacing=0.07 if rows < 3 else 0.03,
    )  # fmt: skip
    live = ~next(iter(tables.values()))["dead"].to_numpy(bool)
    for i, table in enumerate(tables.values()):
        row, column = i // columns + 1, i % columns + 1
        marker = {**colourings(table[live], basis)["delta"], "showscale": i == 0}
        figure.add_trace(points(table[live], marker), row, column)
    framed(
        figure, title=" · ".join(tables), subtitle=f"delta by {basis.sentence()}; {int(live.sum()):,} concepts",
        how=MAPS_HOW, height=maps_height(len(tables), columns), dragmode="pan", clickmode="event", hovermode="closest",
        hoverdistance=12,
    )  # fmt: skip
    for n in ("", *range(2, len(tables) + 1)):
        linked = {"matches": "x"} if n else {}
        figure.layout[f"xaxis{n}"].update(plane(**linked))
        linked = {"matches": "y"} if n else {"scaleanchor": "x", "scaleratio": 1}
        figure.layout[f"yaxis{n}"].update(plane(**linked))
    _night_panels(figure)
    return figure


def _night_panels(figure: go.Figure) -> None:
    """Put the dark ground behind each subplot alone, so that the gaps and titles keep the page's colour."""
    domains = [
        (figure.layout[f"xaxis{n}"].domain, figure.layout[f"yaxis{n}"].domain)
        for n in ("", *range(2, len(figure.data) + 1))
    ]
    for x, y in domains:
        figure.add_shape(type="rect", xref="paper", yref="paper", x0=x[0], x1=x[1], y0=y[0], y1=y[1],
                         fillcolor=NIGHT, line={"width": 0}, layer="below")  # fmt: skip


def delta_scatter(a: pd.DataFrame, b: pd.DataFrame, *, names: tuple[str, str], basis: Basis) -> go.Figure:
    """Draw delta of model A against delta of model B over live concepts, with Pearson's r in the subtitle.

    Parameters
    ----------
    a, b
        Concept tables over the same concepts: ``delta, frequency, dead``.
    names
        The two models, A on the horizontal axis.
    """
    live = ~a["dead"].to_numpy(bool)
    x, y = a["delta"].to_numpy(np.float32)[live], b["delta"].to_numpy(np.float32)[live]
    frequency = np.log10(np.clip(a["frequency"].to_numpy(np.float32)[live], 1e-4, 1))
    bar = {"title": {"text": "share of real images", "side": "right"}, "thickness": 8, "len": 0.6, "outlinewidth": 0,
           "tickvals": [-4, -3, -2, -1, 0], "ticktext": ["≤ 0.01 %", "0.1 %", "1 %", "10 %", "100 %"]}  # fmt: skip
    marker = {"size": 6, "color": frequency, "colorscale": AMOUNT_SCALE, "cmin": -4, "cmax": 0, "colorbar": bar}
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
    framed(
        figure,
        title=f"{names[0]} against {names[1]}",
        subtitle=f"delta by {basis.sentence()} · {int(live.sum()):,} concepts · Pearson r = {pearson(x, y):.2f}",
        how=SCATTER_HOW, height=SCATTER_HEIGHT, hovermode="closest", clickmode="event", dragmode="pan",
        xaxis={"title": {"text": f"delta, {names[0]}"}, "range": [-0.03, 1.03], "constrain": "domain",
               "automargin": True},
        yaxis={"title": {"text": f"delta, {names[1]}"}, "range": [-0.03, 1.03], "scaleanchor": "x", "automargin": True,
               "constrain": "domain"},
    )  # fmt: skip
    figure.update_layout(plot_bgcolor=NIGHT)
    figure.update_xaxes(showgrid=False, zeroline=False)
    figure.update_yaxes(showgrid=False, zeroline=False)
    return figure
