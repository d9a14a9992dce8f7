"""What every figure shares: title, subtitle, how to read it, margins and a transparent ground that takes any theme."""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go

ESTIMATORS = {
    "gap": "gap of mean energy",
    "relative": "relative gap",
    "share": "share of energy",
    "standardised": "standardised gap",
}


@dataclass(frozen=True)
class Basis:
    """What a delta was computed with; printed under every figure's title."""

    estimator: str = "gap"
    temperature: float = 0.8
    low: float = 0.1
    """Below: suppressed."""
    high: float = 0.9
    """Above: exaggerated."""
    images: int = 0
    """Images per source (pairs when paired); 0 for published statistics, which do not say."""
    paired: bool = False

    def sentence(self) -> str:
        """Say estimator, temperature and n in a few words."""
        name = ESTIMATORS.get(self.estimator, self.estimator)
        unit = "paired images" if self.paired else "images"
        n = f"n = {self.images:,} {unit}" if self.images else "n not published"
        return f"{name}, T = {self.temperature:g} · {n}"


def framed(figure: go.Figure, *, title: str, subtitle: str, how: str, height: int, **layout) -> go.Figure:
    """Give a figure its title, subtitle, reading line and the shared layout.

    ``meta["narrow"]`` may hold, per axis, what is different on a phone.
    """
    meta = {"how": how, **layout.pop("meta", {})}
    figure.update_layout(
        title={"text": title, "subtitle": {"text": subtitle}, "x": 0, "xref": "container", "xanchor": "left"},
        meta=meta,
        height=height,
        margin={"l": 8, "r": 8, "t": 64, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hoverlabel={"align": "left"},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": "#8d8590", "activecolor": "#c59ad0"},
        **layout,
    )
    return figure
