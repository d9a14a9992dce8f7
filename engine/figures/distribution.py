"""Blindspots over all concepts: densities of delta, both ends of the ranking, and misalignment against frequency.

The statistics come ready-made as tables (`engine.blindspots.distribution`); these functions only draw
them. Paper 004: figures 4, 8 and 11.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from engine.figures.frame import Basis, framed
from engine.figures.labels import concept_names
from engine.figures.palette import CLUSTERS, DELTA_SCALE, NIGHT, delta_colour

GREY = "#8d8590"
DENSITY_HOW = (
    "Height is the density of concepts on a log axis, so that the tails show; at the bottom, none. Left of the first "
    "dotted line: "
    "suppressed, right of the second: exaggerated. A longer left tail: the model leaves out more than it adds."
)
RANKING_HOW = (
    "The concepts at both ends of the ranking. Dot: delta, bar: its 95 % interval. A concept's place is only as sure "
    "as its bar is short."
)
FREQUENCY_HOW = (
    "Each dot is a concept, frequent ones to the right. Lines: 5th, 50th and 95th percentile of concepts of like "
    "frequency. Rare concepts scatter by chance too: compare with one real half against the other."
)
_ROW = 22


def delta_densities(densities: pd.DataFrame, summary: pd.DataFrame, *, basis: Basis) -> go.Figure:
    """Draw the log densities of delta of one or more models over each other.

    Parameters
    ----------
    densities
        Indexed by bin centre in [0, 1], a column per model: share of concepts per unit of delta.
    summary
        Indexed by model: ``concepts, median, skewness, suppressed, exaggerated`` (the last two are shares).
    basis
        Estimator, temperature, thresholds and n.
    """
    seen = densities.to_numpy()[densities.to_numpy() > 0]
    floor, ceiling = (seen.min() / 2, seen.max()) if seen.size else (0.1, 1.0)
    figure = go.Figure()
    for number, model in enumerate(densities):
        row = summary.loc[model]
        name = (
            f"{model}: median {row['median']:.2f}, skewness {row['skewness']:+.2f}, "
            f"{row['suppressed']:.1%} suppressed, {row['exaggerated']:.1%} exaggerated"
        )
        figure.add_trace(
            go.Scatter(
                x=densities.index, y=densities[model].clip(lower=floor), mode="lines", name=name,
                line={"shape": "hvh", "width": 1.6, "color": CLUSTERS[number % len(CLUSTERS)]},
                customdata=densities[model], hovertemplate="density %{customdata:.3g} at delta %{x:.3f}<extra></extra>",
            )
        )  # fmt: skip
    for mark in (basis.low, basis.high):
        figure.add_vline(x=mark, line={"width": 1, "dash": "dot", "color": GREY})
    concepts = int(summary["concepts"].max())
    return framed(
        figure, title="How delta is spread over concepts", subtitle=f"{basis.sentence()}; {concepts:,} concepts",
        how=DENSITY_HOW, height=380, legend={"orientation": "h", "y": -0.2, "yanchor": "top"},
        xaxis={"title": {"text": "delta (no unit)"}, "range": [-0.01, 1.01], "showgrid": False, "automargin": True},
        yaxis={"title": {"text": "concepts per unit of delta (share)"}, "type": "log", "automargin": True,
               "range": np.log10([floor, 1.3 * ceiling]).tolist(), **_round_ticks(floor, ceiling)},
    )  # fmt: skip


def _round_ticks(low: float, high: float) -> dict[str, list]:
    """Ticks at 1, 2 and 5 times the powers of ten between two numbers."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    shown = [tick for tick in ticks if low <= tick <= 1.3 * high]
    return {"tickvals": shown, "ticktext": [f"{tick:g}" for tick in shown]}


def delta_ranking(rows: pd.DataFrame, *, model: str, basis: Basis) -> go.Figure:
    """Draw some concepts, most suppressed on top, each with its interval.

    Parameters
    ----------
    rows
        Indexed by concept, in the order of the ranking: ``label, delta, ci_low, ci_high``.
    model
        Name for the title.
    basis
        Estimator, temperature, thresholds and n.
    """
    delta = rows["delta"].to_numpy(np.float64)
    names = concept_names(rows["label"], rows.index)
    dots = go.Scatter(
        x=delta, y=names, mode="markers", showlegend=False, customdata=rows.index.to_numpy(),
        marker={"size": 9, "color": [delta_colour(value) for value in delta], "line": {"width": 1, "color": GREY}},
        error_x={"type": "data", "symmetric": False, "array": rows["ci_high"] - delta,
                 "arrayminus": delta - rows["ci_low"], "color": GREY, "thickness": 1.5, "width": 0},
        hovertemplate="%{y}: delta %{x:.3f}<extra></extra>",
    )  # fmt: skip
    figure = go.Figure(dots)
    for mark in (basis.low, 0.5, basis.high):
        figure.add_vline(x=mark, line={"width": 1, "dash": "dot", "color": GREY})
    return framed(
        figure, title=f"{model}: both ends of the ranking", subtitle=basis.sentence(), how=RANKING_HOW,
        height=120 + _ROW * len(rows),
        xaxis={"title": {"text": "delta (no unit)"}, "range": [-0.02, 1.02], "showgrid": False, "automargin": True},
        yaxis={"autorange": "reversed", "showgrid": False, "automargin": True},
    )  # fmt: skip


def frequency_scatter(
    table: pd.DataFrame, bands: pd.DataFrame, *, model: str, spearman: float, basis: Basis
) -> go.Figure:
    """Draw misalignment against frequency in real images, with percentile bands.

    Parameters
    ----------
    table
        Indexed by concept: ``fires`` (token codes above zero in real images), ``value`` (delta).
    bands
        Indexed by frequency: ``low, middle, high``; rows of empty bins may be nan.
    model
        Name for the title.
    spearman
        Rank correlation of frequency with the distance from 0.5.
    basis
        Estimator, temperature, thresholds and n.
    """
    shown = table[table["fires"] > 0]
    value = shown["value"].to_numpy(np.float32)
    dots = go.Scattergl(
        x=shown["fires"], y=value, customdata=shown.index.to_numpy(np.uint32), mode="markers", showlegend=False,
        marker={"size": 4, "opacity": 0.5, "color": value, "colorscale": DELTA_SCALE, "cmin": 0, "cmax": 1},
        hovertemplate="concept %{customdata}: fires %{x:,} times, delta %{y:.3f}<extra></extra>",
    )  # fmt: skip
    figure = go.Figure(dots)
    kept = bands.dropna()
    for column, name, dash in (("low", "5th percentile", "dot"), ("middle", "median", "solid"),
                               ("high", "95th percentile", "dot")):  # fmt: skip
        figure.add_trace(
            go.Scatter(x=kept.index, y=kept[column], mode="lines", name=name, showlegend=False,
                       line={"color": "#ffffff", "width": 1.5, "dash": dash})
        )  # fmt: skip
    framed(
        figure, title=f"{model}: are rare concepts the misaligned ones?",
        subtitle=f"{basis.sentence()}; {len(shown):,} concepts; Spearman with |delta - 0.5|: {spearman:.2f}",
        how=FREQUENCY_HOW, height=420,
        xaxis={"title": {"text": "token codes above zero in real images"}, "type": "log", "automargin": True},
        yaxis={"title": {"text": "delta (no unit)"}, "range": [-0.02, 1.02], "automargin": True},
    )  # fmt: skip
    figure.update_layout(plot_bgcolor=NIGHT)
    figure.update_xaxes(showgrid=False)
    return figure.update_yaxes(showgrid=False, zeroline=False)
