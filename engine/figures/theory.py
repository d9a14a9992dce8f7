"""Threshold and tilt on the planar mixture: how they bend a prior as the mean score grows, and how near samplers come.

The laws and biases are those of "A Distributional View for Visual Mechanistic Interpretability" (arXiv:2605.17504).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

from engine.figures.style import (
    AMOUNT_SCALE,
    CLUSTERS,
    EXAGGERATED,
    SUPPRESSED,
    SYMBOLS,
    apply_layout,
    axis,
    legend_below,
)

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
DISTANCES_HOW = (
    "Further left is nearer to the tilt of the same mean score. At the tilt's own strength EnergyDPS overshoots; the "
    "same sampler inside a particle filter comes closer with every particle. Values below the axis' end sit on it."
)
PANEL = 230
"""Side of one plane in pixels."""
HEAD = 92
"""Pixels above the panels: title, subtitle and the panels' own titles."""
FLOOR = 1e-4
"""KL in nats below which chance decides, and a logarithmic axis ends."""


def bias_curves(rows: pd.DataFrame, *, nodes: int) -> go.Figure:
    """Draw the four biases of threshold and tilt against their common mean score.

    Parameters
    ----------
    rows
        One row per target and law: ``target, law`` (``hard`` or ``tilt``) and the columns in `BIASES`.
    nodes
        Quadrature nodes that the rows were computed with.
    """
    figure = make_subplots(2, 2, subplot_titles=list(BIASES.values()), horizontal_spacing=0.1, vertical_spacing=0.16)
    for i, (column, title) in enumerate(BIASES.items()):
        for line in _law_lines(rows, column, f"mean score %{{x:.2f}}: {title} %{{y:.4f}}"):
            figure.add_trace(line.update(showlegend=i == 0), i // 2 + 1, i % 2 + 1)
    figure.update_xaxes(automargin=True, showgrid=False)
    figure.update_xaxes(title_text="mean score", row=2)
    figure.update_yaxes(automargin=True, rangemode="tozero", nticks=5)
    apply_layout(
        figure, title="Threshold against tilt at the same mean score",
        subtitle=f"exact, {_span(rows, nodes)}", how=BIASES_HOW, height=520,
        hovermode="x unified", legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.12},
    )  # fmt: skip
    return figure.update_layout(margin_t=HEAD)


def tv_speeds(rows: pd.DataFrame, *, nodes: int) -> go.Figure:
    """Draw how fast threshold and tilt change as their common mean score grows.

    Parameters
    ----------
    rows
        One row per target and law: ``target, law`` (``hard`` or ``tilt``) and ``tv_speed`` per unit of mean score.
    nodes
        As in `bias_curves`.
    """
    return apply_layout(
        go.Figure(_law_lines(rows, "tv_speed", "%{y:.4f} per unit")), title="How fast each law moves",
        subtitle=f"TV per unit of mean score, exact, {_span(rows, nodes)}", height=340, how=SPEEDS_HOW,
        hovermode="x unified", legend=legend_below(-0.25), xaxis=axis("mean score", showgrid=False),
        yaxis=axis("TV speed (1 / score)", rangemode="tozero"),
    )  # fmt: skip


def _law_lines(rows: pd.DataFrame, column: str, hover: str) -> list[go.Scatter]:
    """Return a line per law over the mean score, a dot where there is one row only."""
    lines = []
    for law, (name, colour) in LAWS.items():
        chosen = rows[rows["law"] == law].sort_values("target")
        lines.append(go.Scatter(
            x=chosen["target"], y=chosen[column], name=name, legendgroup=law,
            mode="lines" if len(chosen) > 1 else "markers", line={"color": colour, "width": 2},
            hovertemplate=f"{hover}<extra>{name}</extra>",
        ))  # fmt: skip
    return lines


def _span(rows: pd.DataFrame, nodes: int) -> str:
    targets = rows["target"]
    return f"mean scores {targets.min():g} to {targets.max():g}; quadrature, n = {nodes:,} nodes"


def planar_laws(masses: Mapping[str, Float[np.ndarray, "side side"]], *, reach: float, subtitle: str) -> go.Figure:
    """Draw a prior and laws of the plane beside each other as heat maps on one scale.

    Parameters
    ----------
    masses
        Name to cell probabilities, first axis x_1, over the square [-reach, reach]^2.
    reach
        Half the side of the square.
    subtitle
        What the laws have in common.
    """
    figure = make_subplots(1, len(masses), subplot_titles=list(masses), horizontal_spacing=0.02)
    top = max(float(cells.max()) for cells in masses.values())
    shared = {"showgrid": False, "zeroline": False, "showticklabels": False, "ticks": "", "constrain": "domain"}
    for i, cells in enumerate(masses.values()):
        side = len(cells)
        centres = reach * (2 * np.arange(side) + 1 - side) / side
        heat = go.Heatmap(
            x=centres, y=centres, z=cells.T, zmin=0, zmax=top, colorscale=AMOUNT_SCALE, showscale=False,
            hovertemplate="(%{x:.1f}, %{y:.1f}): %{z:.2%} of the mass<extra></extra>",
        )  # fmt: skip
        figure.add_trace(heat, 1, i + 1)
        figure.update_yaxes(**shared, constraintoward="top", scaleanchor=f"x{i + 1 if i else ''}", col=i + 1)
    figure.update_xaxes(**shared)
    apply_layout(
        figure, title="The prior, and what each law makes of it", subtitle=subtitle, how=LAWS_HOW, height=PANEL + HEAD
    )
    return figure.update_layout(margin_t=HEAD)


def tilt_distances(rows: pd.DataFrame, *, samples: int) -> go.Figure:
    """Draw KL(samples || tilt) of every method, a mark per mean score.

    Parameters
    ----------
    rows
        One row per target and method in the order to show: ``target, method, mean`` (score units) and ``kl_tilt``
        (nats, corrected for the number of samples).
    samples
        Samples of EnergyDPS, and of SMC.
    """
    methods = list(dict.fromkeys(rows["method"]))
    figure = go.Figure()
    for i, (target, some) in enumerate(rows.groupby("target")):
        figure.add_scatter(
            x=some["kl_tilt"].clip(lower=FLOOR), y=some["method"], name=f"mean score {target:g}", mode="markers",
            marker={"size": 10, "color": CLUSTERS[i % len(CLUSTERS)], "symbol": SYMBOLS[i % len(SYMBOLS)]},
            customdata=some[["mean", "kl_tilt"]],
            hovertemplate="mean %{customdata[0]:.3f}, KL to the tilt %{customdata[1]:.4f} nats",
        )  # fmt: skip
    targets = ", ".join(f"{target:g}" for target in sorted(set(rows["target"])))
    return apply_layout(
        figure, title="How far samplers land from the tilt", how=DISTANCES_HOW, height=150 + 30 * len(methods),
        subtitle=f"KL on a 30 x 30 grid, bias-corrected; mean scores {targets}; n = {samples:,} samples",
        legend=legend_below(-0.22), showlegend=True,
        xaxis=axis("KL to the tilt (nats)", type="log", exponentformat="power", dtick=1),
        yaxis={"automargin": True, "categoryorder": "array", "categoryarray": methods[::-1]},
    )  # fmt: skip
