"""The concept map: one WebGL point per live concept, colour = what a model does with it, size = how often it is real.

Positions are quantised to int16 and colours to uint8, which keeps 32,000 concepts near 300 KB. The other colourings are
stored as ``updatemenus`` buttons, so that they switch in the browser and nothing is sent twice.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float, Int16, UInt8
from plotly.subplots import make_subplots

from engine.figures.style import (
    AMOUNT_SCALE,
    CLUSTERS,
    DELTA_SCALE,
    NIGHT,
    Basis,
    ColourScale,
    apply_layout,
    cluster_scale,
    colour_bar,
)

REACH = 30_000
"""Largest absolute coordinate after quantisation (int16 holds 32,767; the rest is room for panning)."""
LEVELS = 250
"""Steps of a quantised colour or size (uint8)."""
HEIGHT = 620
"""Pixels of one map alone."""
ROW = 480
"""Pixels of one row of maps."""
NARROW_ROW = 350
"""Pixels of one map on a phone, where they stand below each other."""
MOST_MAPS = 4
"""In one figure."""
OUTLINE = "rgba(255, 236, 250, 0.28)"
"""A hair of light around every dot keeps the plum ones apart from the dark panel."""
PLAIN_HOW = (
    "Each dot is a concept; near dots fire together. Blue: the model draws it too little, yellow: too much, "
    "plum: about as often as reality."
)
"""For dots of one size, where frequencies are unknown."""
HOW = f"{PLAIN_HOW} Larger: more frequent in real images."
MAPS_HOW = (
    "The same concepts at the same places, coloured by what each model does with them: blue too little, yellow too "
    "much, plum about as often as reality. Zoom, pan or click in one map: all follow."
)
UNKNOWN_FREQUENCY = 0.05
"""Dots of unknown frequency are as large as those of this one."""
FREQUENCIES = ["≤ 0.01 %", "0.1 %", "1 %", "10 %", "100 %"]
"""Names of the powers of ten from 1e-4 to 1."""
CLICKABLE = {"dragmode": "pan", "clickmode": "event", "hovermode": "closest"}
"""Layout of a figure whose points open a concept."""


def quantise_positions(xy: Float[np.ndarray, "n 2"]) -> Int16[np.ndarray, "n 2"]:
    """Centre and scale positions to int16, one scale for both axes so that shapes keep their proportions."""
    xy = np.asarray(xy, np.float64)
    centred = xy - (xy.max(axis=0) + xy.min(axis=0)) / 2 if len(xy) else xy
    reach = np.abs(centred).max() if len(xy) else 0.0
    return np.round(centred * (REACH / reach if reach > 0 else 0.0)).astype(np.int16)


def quantise(values: Float[np.ndarray, " n"], low: float, high: float) -> UInt8[np.ndarray, " n"]:
    """Map [low, high] to uint8 steps 0..LEVELS; nan becomes the middle."""
    scaled = (np.nan_to_num(np.asarray(values, np.float64), nan=(low + high) / 2) - low) / (high - low)
    return np.round(np.clip(scaled, 0.0, 1.0) * LEVELS).astype(np.uint8)


def point_sizes(frequency: Float[np.ndarray, " n"], count: int) -> UInt8[np.ndarray, " n"]:
    """Return diameters in eighths of a pixel (uint8): area grows with frequency, smaller when there are many."""
    scale = float(np.clip(np.sqrt(2_000 / max(count, 1)), 0.32, 1.0))
    known = np.nan_to_num(np.asarray(frequency, np.float64), nan=UNKNOWN_FREQUENCY)
    diameter = scale * (6.0 + 16.0 * np.sqrt(np.clip(known, 0.0, 1.0)))
    return np.round(np.clip(diameter, 2.5, 31.0) * 8).astype(np.uint8)


def colourings(table: pd.DataFrame, basis: Basis) -> dict[str, dict[str, Any]]:
    """Return, per colouring, the marker settings: quantised colours, scale and colour bar."""
    log_frequency = np.log10(np.clip(table["frequency"].to_numpy(np.float64), 1e-4, 1.0))
    cluster = table["cluster"].to_numpy(np.int64)
    count = len(CLUSTERS)
    marks = {0.0: "0", basis.low: f"{basis.low:g} suppressed", 0.5: f"0.5 as {basis.reference}",
             basis.high: f"{basis.high:g} exaggerated", 1.0: "1"}  # fmt: skip
    return {
        "delta": _marker(
            quantise(table["delta"].to_numpy(), 0, 1), DELTA_SCALE, "delta",
            [mark * LEVELS for mark in marks], [*marks.values()],
        ),
        "relative": _marker(
            quantise(table["relative"].to_numpy(), -1, 1), DELTA_SCALE, "relative difference",
            [0, LEVELS / 2, LEVELS], [f"-1 only {basis.reference}", "0 equal", "+1 only model"],
        ),
        "frequency": _marker(
            quantise(log_frequency, -4, 0), AMOUNT_SCALE, "share of real images",
            [LEVELS * i / 4 for i in range(5)], FREQUENCIES,
        ),
        "cluster": {
            **_marker(np.where(cluster < 0, count - 2, cluster % count).astype(np.uint8), cluster_scale(), "cluster"),
            "cmax": count, "showscale": False,
        },
    }  # fmt: skip


def _marker(
    colour: np.ndarray, scale: ColourScale, title: str, ticks: list[float] | None = None, names: list[str] | None = None
) -> dict[str, Any]:
    bar = colour_bar(title, 0.6, x=1.0, **({"tickvals": ticks, "ticktext": names} if ticks else {}))
    return {"color": colour, "colorscale": scale, "cmin": 0, "cmax": LEVELS, "colorbar": bar, "showscale": True}


def _points(table: pd.DataFrame, marker: dict[str, Any]) -> go.Scattergl:
    """Return the WebGL trace of live concepts; ``customdata`` holds the concept of every point."""
    position = quantise_positions(table[["x", "y"]].to_numpy())
    small = int(table.index.max() if len(table) else 0) < 65_536
    return go.Scattergl(
        x=position[:, 0], y=position[:, 1], customdata=table.index.to_numpy(np.uint16 if small else np.uint32),
        mode="markers", hoverinfo="none", showlegend=False, meta={"role": "concepts"},
        marker={"size": point_sizes(table["frequency"].to_numpy(), len(table)), "sizeref": 8, "sizemode": "diameter",
                "opacity": 0.95, "line": {"width": 0.6, "color": OUTLINE}, **marker},
        unselected={"marker": {"opacity": 0.12}}, selected={"marker": {"opacity": 0.95}},
    )  # fmt: skip


def _plane(**settings: Any) -> dict[str, Any]:
    """Return an axis without ticks: a map's coordinates have no unit."""
    limit = REACH * 1.06
    return {"visible": False, "range": [-limit, limit], "zeroline": False, **settings}


def concept_map(table: pd.DataFrame, *, model: str, basis: Basis) -> go.Figure:
    """Draw one model's concept map, coloured by delta; the other colourings stay one click away.

    Parameters
    ----------
    table
        Indexed by concept: ``x, y, cluster, dead, delta, relative, frequency``. Dead concepts are left out.
    model, basis
        Name of the model, and what its deltas were computed with.
    """
    live = table[~table["dead"].to_numpy(bool)]
    markers = colourings(live, basis)
    buttons = [
        {"label": name, "method": "restyle", "args": [{f"marker.{k}": [_typed(v)] for k, v in marker.items()}, [0]]}
        for name, marker in markers.items()
    ]
    return apply_layout(
        go.Figure([_points(live, markers["delta"])]), title=f"{model}: {len(live):,} concepts",
        subtitle=basis.sentence(), how=HOW if live["frequency"].notna().any() else PLAIN_HOW, height=HEIGHT,
        xaxis=_plane(), yaxis=_plane(scaleanchor="x", scaleratio=1), **CLICKABLE, hoverdistance=12, plot_bgcolor=NIGHT,
        updatemenus=[{"buttons": buttons, "active": 0, "direction": "right", "type": "buttons", "x": 0, "y": 1.08,
                      "xanchor": "left"}],
        margin={"l": 8, "r": 112, "t": 64, "b": 8, "autoexpand": False},
    )  # fmt: skip


def _typed(value: object) -> object:
    """Return an array as plotly's base64 specification; plotly.py writes those in traces but lists in buttons."""
    if not isinstance(value, np.ndarray):
        return value
    return {"dtype": "u1", "bdata": base64.b64encode(value.astype(np.uint8).tobytes()).decode("ascii")}


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
        Concept table per model over the same concepts (see `concept_map`).
    basis
        What the deltas were computed with.
    columns
        Maps beside each other before a new row starts; see `default_columns`.

    Raises
    ------
    ValueError
        For fewer than one or more than four models.
    """
    if not 1 <= len(tables) <= MOST_MAPS:
        raise ValueError(f"model_maps draws one to four models, not {len(tables)}.")
    height = maps_height(len(tables), columns)  # of a single map, too, unless it is for a narrow screen
    columns = columns or default_columns(len(tables))
    rows = -(-len(tables) // columns)
    figure = make_subplots(
        rows, columns, subplot_titles=list(tables), horizontal_spacing=0.015,
        vertical_spacing=0.07 if rows < 3 else 0.03,
    )  # fmt: skip
    live = ~next(iter(tables.values()))["dead"].to_numpy(bool)
    for i, table in enumerate(tables.values()):
        marker = {**colourings(table[live], basis)["delta"], "showscale": i == 0}
        figure.add_trace(_points(table[live], marker), i // columns + 1, i % columns + 1)
    apply_layout(
        figure, title=" · ".join(tables), subtitle=f"delta by {basis.sentence()}; {int(live.sum()):,} concepts",
        how=MAPS_HOW, height=height, **CLICKABLE, hoverdistance=12,
    )  # fmt: skip
    for i in range(len(tables)):
        x, y = (figure.layout[f"{name}axis{i + 1 if i else ''}"] for name in "xy")
        x.update(_plane(**({"matches": "x"} if i else {})))
        y.update(_plane(**({"matches": "y"} if i else {"scaleanchor": "x", "scaleratio": 1})))
        # The dark ground lies behind each panel alone, so that the gaps and titles keep the page's colour.
        figure.add_shape(type="rect", xref="paper", yref="paper", x0=x.domain[0], x1=x.domain[1], y0=y.domain[0],
                         y1=y.domain[1], fillcolor=NIGHT, line={"width": 0}, layer="below")  # fmt: skip
    return figure
