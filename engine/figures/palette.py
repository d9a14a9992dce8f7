"""The colours of the atlas: one diverging scale for delta, sequential scales for amounts, a cycle for clusters.

The two ends of the delta scale are a blue and a yellow of high lightness, the middle is a dark plum. Blue against
yellow is the pair that red-green colour blindness keeps, and lightness grows from the middle to both ends, so "nothing
special" recedes and the blindspots glow, also in grey.
"""

from __future__ import annotations

import numpy as np

SUPPRESSED = "#65c7de"
NEUTRAL = "#582949"
EXAGGERATED = "#e8b548"
NIGHT = "#17111c"
"""Panel colour behind every concept map, in both themes: the ends of the scale are made for a dark ground."""
GUIDE = "#ffffff"
"""Lines on that panel."""

DELTA_SCALE = [[0.0, SUPPRESSED], [0.5, NEUTRAL], [1.0, EXAGGERATED]]
AMOUNT_SCALE = [[0.0, "#3d2c55"], [0.35, "#7a58a3"], [0.7, "#c59ad0"], [1.0, "#fff0dc"]]
HEAT_SCALE = [[0.0, "#d6246e"], [0.4, "#ff5a3c"], [0.75, "#ffb347"], [1.0, "#fff3c4"]]
CLUSTERS = (
    "#65c7de", "#e8b548", "#c59ad0", "#8fce8b", "#ef8f72", "#8fa8ef",
    "#d9d3a0", "#e58bb5", "#5fb7a5", "#b98c5e", "#a9a5a0", "#d7f0f5",
)  # fmt: skip


def to_rgb(colour: str) -> np.ndarray:
    """Return ``#rrggbb`` as three floats in [0, 1]."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float64) / 255.0


def sample(scale: list[list], values: np.ndarray) -> np.ndarray:
    """Look values up in a plotly colour scale.

    Parameters
    ----------
    scale
        ``[[position, "#rrggbb"], ...]`` with positions rising from 0 to 1.
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


def hex_at(scale: list[list], value: float) -> str:
    """Return the scale's colour at one value as ``#rrggbb``."""
    return "#" + "".join(f"{round(channel * 255):02x}" for channel in sample(scale, np.array(value)))


def delta_colour(delta: float) -> str:
    """Return the colour of one delta in [0, 1]."""
    return hex_at(DELTA_SCALE, delta)


def cluster_scale() -> list[list]:
    """Return the cluster cycle as a stepped plotly colour scale over [0, len(CLUSTERS)]."""
    count = len(CLUSTERS)
    return [[edge / count, colour] for i, colour in enumerate(CLUSTERS) for edge in (i, i + 1)]
