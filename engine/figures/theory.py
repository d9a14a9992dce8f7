"""Paper 000's distributional view: how threshold and tilt bend a prior as the mean score grows, and where mass goes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from engine.figures.frame import framed
from engine.figures.palette import AMOUNT_SCALE, EXAGGERATED, SUPPRESSED

LAWS = {"hard": ("threshold s > m'", EXAGGERATED), "tilt": ("tilt exp(βs)", SUPPRESSED)}
BIASES = {
    "boundary_mass": "boundary mass",
    "tv_prior": "TV to the prior",
    "tv_step": "TV to a step beyond",
    "kl_prior": "KL to the prior (nats)",
}
BIASES_HOW = (
    "Both laws have the mean score on the horizontal axis; lower is better everywhere. The threshold crowds its "
    "samples at its edge, moves faster as the mean grows, and always costs more KL than the tilt."
)
SPEEDS_HOW = (
    "Share of the law's mass that is exchanged per unit of mean score gained. The faster a law moves, the more a "
    "slightly different target shows other images."
)
LAWS_HOW = "One panel per law over the same plane; brighter cells hold more of its mass, on one scale for all."
BIASES_HEIGHT = 520
SPEEDS_HEIGHT = 340
PANEL = 230
"""Side of one plane in pixels."""
HEAD = 92
"""Pixels above the panels: title, subtitle and the panels' own titles."""


def bias_curves(rows: pd.DataFrame) -> go.Figure:
    """Draw the four biases of threshold and tilt against their common mean score.

    Parameters
    ----------
    rows
        One row per target and law: ``target, law`` (``hard`` or ``tilt``) and the columns in `BIASES`.
    """
    figure = make_subplots(2, 2, subplot_titles=list(BIASES.values()), horizontal_spacing=0.1, vertical_spacing=0.16)
    for law, (name, colour) in LAWS.items():
        chosen = rows[rows["law"] == law].sort_values("target")
        for i, (column, title) in enumerate(BIASES.items()):
            line = go.Scatter(
                x=chosen["target"], y=chosen[column], name=name, legendgroup=law, showlegend=i == 0,
                mode="lines" if len(chosen) > 1 else "markers", line={"color": colour, "width": 2},
                hovertemplate=f"mean score %{{x:.2f}}: {title} %{{y:.4f}}<extra>{name}</extra>",
            )  # fmt: skip
            figure.add_trace(line, i // 2 + 1, i % 2 + 1)
    figure.update_xaxes(automargin=True, showgrid=False)
    figure.update_xaxes(title_text="mean score", row=2)
    figure.update_yaxes(automargin=True, rangemode="tozero", nticks=5)
    targets = rows["target"]
    framed(
        figure, title="Threshold against tilt at the same mean score",
        subtitle=f"exact, mean scores {targets.min():g} to {targets.max():g}", how=BIASES_HOW, height=BIASES_HEIGHT,
        hovermode="x unified", legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.12},
    )  # fmt: skip
    return figure.update_layout(margin_t=HEAD)


def tv_speeds(rows: pd.DataFrame) -> go.Figure:
    """Draw how fast threshold and tilt change as their common mean score grows.

    Parameters
    ----------
    rows
        One row per target and law: ``target, law`` (``hard`` or ``tilt``) and ``tv_speed`` per unit of mean score.
    """
    figure = go.Figure()
    for law, (name, colour) in LAWS.items():
        chosen = rows[rows["law"] == law].sort_values("target")
        figure.add_scatter(
            x=chosen["target"], y=chosen["tv_speed"], name=name, mode="lines" if len(chosen) > 1 else "markers",
            line={"color": colour, "width": 2}, hovertemplate=f"%{{y:.4f}} per unit<extra>{name}</extra>",
        )  # fmt: skip
    targets = rows["target"]
    return framed(
        figure, title="How fast each law moves", height=SPEEDS_HEIGHT, how=SPEEDS_HOW, hovermode="x unified",
        subtitle=f"TV per unit of mean score, exact, mean scores {targets.min():g} to {targets.max():g}",
        legend={"orientation": "h", "y": -0.25, "yanchor": "top"},
        xaxis={"title": {"text": "mean score"}, "automargin": True, "showgrid": False},
        yaxis={"title": {"text": "TV speed (1 / score)"}, "automargin": True, "rangemode": "tozero"},
    )  # fmt: skip


def planar_laws(masses: Mapping[str, np.ndarray], *, reach: float, subtitle: str) -> go.Figure:
    """Draw laws of the plane beside each other as heat maps on one scale.

    Parameters
    ----------
    masses
        Name to cell probabilities [side, side], first axis x_1, over the square [-reach, reach]^2.
    reach
        Half the side of the square.
    subtitle
        What the laws have in common.
    """
    figure = make_subplots(1, len(masses), subplot_titles=list(masses), horizontal_spacing=0.02)
    top = max(float(cells.max()) for cells in masses.values())
    for i, cells in enumerate(masses.values()):
        side = len(cells)
        centres = reach * (2 * np.arange(side) + 1 - side) / side
        heat = go.Heatmap(
            x=centres, y=centres, z=cells.T, zmin=0, zmax=top, colorscale=AMOUNT_SCALE, showscale=False,
            hovertemplate="(%{x:.1f}, %{y:.1f}): %{z:.2%} of the mass<extra></extra>",
        )  # fmt: skip
        figure.add_trace(heat, 1, i + 1)
    axis = {"showgrid": False, "zeroline": False, "showticklabels": False, "ticks": "", "constrain": "domain"}
    figure.update_xaxes(**axis)
    for i in range(len(masses)):
        figure.update_yaxes(**axis, constraintoward="top", scaleanchor=f"x{i + 1 if i else ''}", col=i + 1)
    framed(figure, title=" · ".join(masses), subtitle=subtitle, how=LAWS_HOW, height=PANEL + HEAD)
    return figure.update_layout(margin_t=HEAD)
