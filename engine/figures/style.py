"""What every figure shares: colours, layout, names of concepts on an axis, and the line under a figure's title.

One diverging scale for delta, sequential scales for amounts, a cycle for clusters. The two ends of the delta scale are
a blue and a yellow of high lightness, the middle is a dark plum. Blue against yellow is the pair that red-green colour
blindness keeps, and lightness grows from the middle to both ends, so "nothing special" recedes and the blindspots
glow, also in grey.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

SUPPRESSED = "#65c7de"
NEUTRAL = "#582949"
EXAGGERATED = "#e8b548"
GREY = "#8d8590"
"""Lines and text that are readable on both grounds."""
NIGHT = "#17111c"
"""Panel colour behind every concept map, in both themes: the ends of the scale are made for a dark ground."""
GUIDE = "#ffffff"
"""Lines on that panel."""

ColourScale = list[list[Any]]
"""Plotly's ``[[position, "#rrggbb"], ...]`` with positions rising from 0 to 1."""
DELTA_SCALE: ColourScale = [[0.0, SUPPRESSED], [0.5, NEUTRAL], [1.0, EXAGGERATED]]
AMOUNT_SCALE: ColourScale = [[0.0, "#3d2c55"], [0.35, "#7a58a3"], [0.7, "#c59ad0"], [1.0, "#fff0dc"]]
HEAT_SCALE: ColourScale = [[0.0, "#d6246e"], [0.4, "#ff5a3c"], [0.75, "#ffb347"], [1.0, "#fff3c4"]]
CLUSTERS = (
    "#65c7de", "#e8b548", "#c59ad0", "#8fce8b", "#ef8f72", "#8fa8ef",
    "#d9d3a0", "#e58bb5", "#5fb7a5", "#b98c5e", "#a9a5a0", "#d7f0f5",
)  # fmt: skip
DOTTED = {"width": 1, "dash": "dot", "color": GREY}
"""A thin line that marks a value."""
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x", "star")
UNPUBLISHED = "n not published"
TRANSPARENT = "rgba(0,0,0,0)"
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
    reference: str = "real"
    """What models were compared with."""

    def sentence(self) -> str:
        """Return estimator, temperature and n in a few words."""
        against = "" if self.reference == "real" else f"against {self.reference} · "
        return f"{ESTIMATORS.get(self.estimator, self.estimator)}, T = {self.temperature:g} · {against}{self.count()}"

    def count(self) -> str:
        """Return n in a few words."""
        return f"n = {self.images:,} {'paired images' if self.paired else 'images'}" if self.images else UNPUBLISHED


def apply_layout(figure: go.Figure, *, title: str, subtitle: str, how: str, height: int, **layout: Any) -> go.Figure:
    """Give a figure its title, subtitle, reading line and the shared layout, and return it.

    Parameters
    ----------
    figure
        Changed in place.
    title, subtitle
        Text above the figure.
    how
        How to read it, one line, for ``layout.meta["how"]``.
    height
        Pixels.
    **layout
        Further settings of plotly's layout. ``meta["narrow"]`` may hold, per axis, what is different on a phone.
    """
    shared = {
        "margin": {"l": 8, "r": 8, "t": 64, "b": 8},
        "paper_bgcolor": TRANSPARENT,
        "plot_bgcolor": TRANSPARENT,
        "hoverlabel": {"align": "left"},
        "modebar": {"bgcolor": TRANSPARENT, "color": GREY, "activecolor": "#c59ad0"},
    }
    text = {"text": title, "subtitle": {"text": subtitle}, "x": 0, "xref": "container", "xanchor": "left"}
    meta = {"how": how, **layout.pop("meta", {})}
    return figure.update_layout(**{**shared, **layout, "title": text, "meta": meta, "height": height})


def axis(title: str, **settings: Any) -> dict[str, Any]:
    """Return an axis with a title and room for its labels."""
    return {"title": {"text": title}, "automargin": True, **settings}


def legend_below(y: float = -0.2) -> dict[str, Any]:
    """Return a horizontal legend below the panel, `y` in units of the panel's height."""
    return {"orientation": "h", "y": y, "yanchor": "top"}


def colour_bar(title: str, length: float = 0.8, **settings: Any) -> dict[str, Any]:
    """Return a thin colour bar, `length` in units of the panel's height."""
    return {"title": {"text": title, "side": "right"}, "thickness": 8, "len": length, "outlinewidth": 0, **settings}


def mark_values(figure: go.Figure, *values: float) -> go.Figure:
    """Draw a dotted vertical line at each value, and return the figure."""
    for value in values:
        figure.add_vline(x=value, line=DOTTED)
    return figure


def concept_names(labels: Iterable[str | None], concepts: Iterable[int]) -> list[str]:
    """Return ``label · number`` of every concept, or ``concept number`` without a label: no two names coincide."""
    return [
        f"{label} · {concept}" if isinstance(label, str) and label else f"concept {concept}"
        for label, concept in zip(labels, concepts, strict=True)
    ]


def to_rgb(colour: str) -> np.ndarray:
    """Return ``#rrggbb`` as three floats in [0, 1]."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float64) / 255.0


def sample_scale(scale: ColourScale, values: np.ndarray) -> np.ndarray:
    """Look values up in a colour scale.

    Parameters
    ----------
    scale
        See `ColourScale`.
    values : float array, any shape
        Clipped to [0, 1].

    Returns
    -------
    float array [..., 3] of sRGB in [0, 1], linearly interpolated as plotly does.
    """
    stops = np.array([position for position, _ in scale])
    colours = np.stack([to_rgb(colour) for _, colour in scale])
    clipped = np.clip(np.asarray(values, dtype=np.float64), 0.0, 1.0)
    return np.stack([np.interp(clipped, stops, colours[:, channel]) for channel in range(3)], axis=-1)


def delta_colour(delta: float) -> str:
    """Return the colour of one delta in [0, 1] as ``#rrggbb``."""
    return "#" + "".join(f"{round(channel * 255):02x}" for channel in sample_scale(DELTA_SCALE, np.array(delta)))


def cluster_scale() -> ColourScale:
    """Return the cluster cycle as a stepped plotly colour scale over [0, len(CLUSTERS)]."""
    count = len(CLUSTERS)
    return [[edge / count, colour] for i, colour in enumerate(CLUSTERS) for edge in (i, i + 1)]
