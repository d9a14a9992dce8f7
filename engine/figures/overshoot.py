"""How far samplers land from the tilt that they aim at, on the planar mixture where that tilt is known exactly."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from engine.figures.frame import framed
from engine.figures.palette import CLUSTERS

HOW = (
    "Further left is nearer to the tilt of the same mean score. At the tilt's own strength EnergyDPS overshoots; the "
    "same sampler inside a particle filter comes closer with every particle. Values below the axis' end sit on it."
)
FLOOR = 1e-4
"""KL in nats below which chance decides, and a logarithmic axis ends."""
ROW, HEAD = 30, 150
"""Pixels of a method, and of all that is above and below them."""
SYMBOLS = ("circle", "diamond", "square")


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
    return framed(
        figure, title="How far samplers land from the tilt", how=HOW, height=HEAD + ROW * len(methods),
        subtitle=f"KL on a 30 x 30 grid, bias-corrected; mean scores {targets}; n = {samples:,} samples",
        legend={"orientation": "h", "y": -0.22, "yanchor": "top"}, showlegend=True,
        xaxis={"title": {"text": "KL to the tilt (nats)"}, "type": "log", "automargin": True, "exponentformat": "power",
               "dtick": 1},
        yaxis={"automargin": True, "categoryorder": "array", "categoryarray": methods[::-1]},
    )  # fmt: skip
