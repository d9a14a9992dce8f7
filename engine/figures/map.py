"""The concept map: one WebGL point per live concept, colour = what a model does with it, size = how often it is real.

Positions are quantised to int16 and colours to uint8, which keeps 32,000 concepts near 300 KB. The other colourings are
stored as ``updatemenus`` buttons, so that they switch in the browser and nothing is sent twice.
"""

from __future__ import annotations

import base64

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from engine.figures.frame import Basis, framed
from engine.figures.palette import AMOUNT_SCALE, CLUSTERS, DELTA_SCALE, NIGHT, cluster_scale

REACH = 30_000
"""Largest absolute coordinate after quantisation (int16 holds 32,767; the rest is room for panning)."""
LEVELS = 250
"""Steps of a quantised colour or size (uint8)."""
HEIGHT = 620
"""Pixels."""
OUTLINE = "rgba(255, 236, 250, 0.28)"
"""A hair of light around every dot keeps the plum ones apart from the dark panel."""
PLAIN_HOW = (
    "Each dot is a concept; near dots fire together. Blue: the model draws it too little, yellow: too much, "
    "plum: about as often as reality."
)
"""For dots of one size, where frequencies are unknown."""
HOW = f"{PLAIN_HOW} Larger: more frequent in real images."
UNKNOWN_FREQUENCY = 0.05
"""Dots of unknown frequency are as large as those of this one."""


def quantise_positions(xy: np.ndarray) -> np.ndarray:
    """Centre and scale positions [N,2] to int16, one scale for both axes so that shapes keep their proportions."""
    xy = np.asarray(xy, np.float64)
    centred = xy - (xy.max(axis=0) + xy.min(axis=0)) / 2 if len(xy) else xy
    reach = np.abs(centred).max() if len(xy) else 0.0
    return np.round(centred * (REACH / reach if reach > 0 else 0.0)).astype(np.int16)


def quantise(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map [low, high] to uint8 steps 0..LEVELS; nan becomes the middle."""
    scaled = (np.nan_to_num(np.asarray(values, np.float64), nan=(low + high) / 2) - low) / (high - low)
    return np.round(np.clip(scaled, 0.0, 1.0) * LEVELS).astype(np.uint8)


def point_sizes(frequency: np.ndarray, count: int) -> np.ndarray:
    """Return diameters [N] in eighths of a pixel (uint8): area grows with frequency, smaller when there are many."""
    scale = float(np.clip(np.sqrt(2_000 / max(count, 1)), 0.32, 1.0))
    known = np.nan_to_num(np.asarray(frequency, np.float64), nan=UNKNOWN_FREQUENCY)
    diameter = scale * (6.0 + 16.0 * np.sqrt(np.clip(known, 0.0, 1.0)))
    return np.round(np.clip(diameter, 2.5, 31.0) * 8).astype(np.uint8)


def delta_ticks(basis: Basis) -> dict:
    """Return colour-bar ticks of delta with the thresholds named, in quantised units."""
    marks = {0.0: "0", basis.low: f"{basis.low:g} suppressed", 0.5: "0.5 as real",
             basis.high: f"{basis.high:g} exaggerated", 1.0: "1"}  # fmt: skip
    return {"tickvals": [mark * LEVELS for mark in marks], "ticktext": list(marks.values())}


def colourings(table: pd.DataFrame, basis: Basis) -> dict[str, dict]:
    """Return, per colouring, the marker settings: quantised colours, scale and colour bar."""
    frequency = table["frequency"].to_numpy(np.float64)
    log_frequency = np.log10(np.clip(frequency, 1e-4, 1.0))
    clusters = len(CLUSTERS)
    cluster_colour = (table["cluster"].to_numpy(np.int64) % clusters).astype(np.uint8)
    noise = table["cluster"].to_numpy() < 0
    cluster_colour[noise] = clusters - 2
    return {
        "delta": _marker(quantise(table["delta"], 0, 1), DELTA_SCALE, "delta", delta_ticks(basis)),
        "relative": _marker(
            quantise(table["relative"], -1, 1), DELTA_SCALE, "relative difference",
            {"tickvals": [0, LEVELS / 2, LEVELS], "ticktext": ["-1 only real", "0 equal", "+1 only model"]},
        ),
        "frequency": _marker(
            quantise(log_frequency, -4, 0), AMOUNT_SCALE, "share of real images",
            {"tickvals": [LEVELS * i / 4 for i in range(5)], "ticktext": ["≤ 0.01 %", "0.1 %", "1 %", "10 %", "100 %"]},
        ),
        "cluster": {**_marker(cluster_colour, cluster_scale(), "cluster", {}, top=clusters), "showscale": False},
    }  # fmt: skip


def _typed(value: object) -> object:
    """Return an array as plotly's base64 specification; plotly.py writes those in traces but lists in buttons."""
    if not isinstance(value, np.ndarray):
        return value
    return {"dtype": "u1", "bdata": base64.b64encode(value.astype(np.uint8).tobytes()).decode("ascii")}


def _marker(colour: np.ndarray, scale: list, title: str, ticks: dict, top: float = LEVELS) -> dict:
    bar = {"title": {"text": title, "side": "right"}, "thickness": 8, "len": 0.6, "outlinewidth": 0, "x": 1.0, **ticks}
    return {"color": colour, "colorscale": scale, "cmin": 0, "cmax": top, "colorbar": bar, "showscale": True}


def points(table: pd.DataFrame, marker: dict, **trace) -> go.Scattergl:
    """Return the WebGL trace of live concepts; ``customdata`` holds the concept of every point."""
    position = quantise_positions(table[["x", "y"]].to_numpy())
    small = int(table.index.max() if len(table) else 0) < 65_536
    return go.Scattergl(
        x=position[:, 0],
        y=position[:, 1],
        customdata=table.index.to_numpy(np.uint16 if small else np.uint32),
        mode="markers",
        marker={"size": point_sizes(table["frequency"], len(table)), "sizeref": 8, "sizemode": "diameter",
                "opacity": 0.95, "line": {"width": 0.6, "color": OUTLINE}, **marker},
        unselected={"marker": {"opacity": 0.12}},
        selected={"marker": {"opacity": 0.95}},
        hoverinfo="none",
        showlegend=False,
        meta={"role": "concepts"},
        **trace,
    )  # fmt: skip


def plane(**axis) -> dict:
    """Return an axis without ticks: a map's coordinates have no unit."""
    limit = REACH * 1.06
    return {"visible": False, "range": [-limit, limit], "zeroline": False, **axis}


def concept_map(table: pd.DataFrame, *, model: str, basis: Basis, colour: str = "delta") -> go.Figure:
    """Draw one model's concept map.

    Parameters
    ----------
    table
        Indexed by concept: ``x, y, cluster, dead, delta, relative, frequency``. Dead concepts are left out.
    model
        Name for the title.
    basis
        Estimator, temperature, thresholds and n.
    colour
        ``delta``, ``relative``, ``frequency`` or ``cluster``; the others stay one click away.
    """
    live = table[~table["dead"].to_numpy(bool)]
    markers = colourings(live, basis)
    figure = go.Figure([points(live, markers[colour])])
    buttons = [
        {"label": name, "method": "restyle", "args": [{f"marker.{k}": [_typed(v)] for k, v in marker.items()}, [0]]}
        for name, marker in markers.items()
    ]
    framed(
        figure,
        title=f"{model}: {len(live):,} concepts",
        subtitle=basis.sentence(),
        how=HOW if live["frequency"].notna().any() else PLAIN_HOW,
        height=HEIGHT,
        xaxis=plane(),
        yaxis=plane(scaleanchor="x", scaleratio=1),
        dragmode="pan",
        clickmode="event",
        hovermode="closest",
        hoverdistance=12,
        updatemenus=[{"buttons": buttons, "active": list(markers).index(colour), "direction": "right",
                      "type": "buttons", "x": 0, "y": 1.08, "xanchor": "left"}],
    )  # fmt: skip
    room_for_colour_bar = {"l": 8, "r": 112, "t": 64, "b": 8, "autoexpand": False}
    return figure.update_layout(plot_bgcolor=NIGHT, margin=room_for_colour_bar)
