"""How good a dictionary is: histograms over concepts (or tokens) of the numbers in its report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from engine.figures.style import GREY, apply_layout, axis, mark_values

BINS = 40
HEIGHT = 210
BAR = "#a06a96"
"""Readable on both grounds; the bars carry no other meaning."""
LONGEST_TAIL = 0.001
"""Share of the tokens above which L0 values are drawn together."""

HOW_FREQUENCY = (
    "A healthy dictionary has one hump: concepts far right fire on every other token and mean little, far left almost "
    "never. Dead ones are not drawn."
)
HOW_L0 = "How many concepts write a token. A TopK fills its k nearly always; a threshold spreads."
HOW_COHERENCE = (
    "Largest |cosine| of each atom to another one. Close to 1: two concepts that say the same, or a thing and its "
    "opposite."
)
HOW_OWN = (
    "How far each atom leaves the convex hull of the dictionary's own candidates, which are centroids of real tokens, "
    "as a share of their radius: 0 is a mixture of candidates. The hull of all tokens is larger. An RA-SAE bounds the "
    "distance by its delta."
)
HOW_FREE = (
    "How far each atom leaves the convex hull of some centroids of real tokens, as a share of their radius: 0 is a "
    "mixture of them. The hull of all tokens is larger. Atoms are taken at that radius, since codes make up for any "
    "length."
)
HOW_STABILITY = (
    "Cosine of each atom to its best match in trainings from other seeds, matched one to one. Near 1: found again, "
    "whatever the seed."
)


def frequency_histogram(frequency: Float[np.ndarray, " concepts"], *, tokens: int) -> go.Figure:
    """Draw how often concepts fire, on a logarithmic axis.

    Parameters
    ----------
    frequency
        Share of tokens in which each concept fires; zeros are dead and counted in the subtitle.
    tokens
        Number of tokens it was measured on.
    """
    live = np.log10(frequency[frequency > 0])
    dead = len(frequency) - len(live)
    low = np.floor(min(live.min(initial=-1.0), -1.0))
    span = (low, 0.0)
    figure = _histogram(live, span, lambda a, b: f"{_share(10**a)} to {_share(10**b)} of tokens")
    ticks = np.arange(low, 1)
    if len(live):
        _mark_median(figure, float(np.median(live)), span, _share(10 ** float(np.median(live))))
    return _finish(
        figure, "Frequency", f"{len(live):,} live and {dead:,} dead concepts · {tokens:,} tokens", HOW_FREQUENCY,
        axis("share of tokens (log)", range=_around(span), tickvals=ticks,
             ticktext=[_share(10.0**tick) for tick in ticks]),
    )  # fmt: skip


def l0_histogram(counts: Sequence[int]) -> go.Figure:
    """Draw the number of active concepts per token.

    Parameters
    ----------
    counts : int [most + 1]
        Tokens with 0, 1, 2, ... active concepts.
    """
    tokens = np.asarray(counts, np.float64)
    total = max(tokens.sum(), 1.0)
    tail = np.flatnonzero(tokens[::-1].cumsum() > LONGEST_TAIL * total)
    shown = len(tokens) - int(tail[0]) if len(tail) else 1
    share = 100 * np.append(tokens[: shown - 1], tokens[shown - 1 :].sum()) / total
    names = [str(number) for number in range(shown)]
    if shown < len(tokens):
        names[-1] = f"≥ {names[-1]}"
    bars = go.Bar(
        x=np.arange(shown), y=share, width=0.9, marker={"color": BAR, "line": {"width": 0}}, customdata=names,
        hovertemplate="%{y:.3g} % of tokens have %{customdata} active concepts<extra></extra>", showlegend=False,
    )  # fmt: skip
    mean = float((np.arange(len(tokens)) * tokens).sum() / total)
    ticks = {"tickvals": list(range(shown)), "ticktext": names} if shown <= 12 else {"nticks": 8}
    return _finish(
        go.Figure(bars), "Active concepts per token", f"mean {mean:.2f} · {int(total):,} tokens", HOW_L0,
        axis("active concepts", range=[-0.6, max(shown, 2) - 0.4], **ticks), "% of tokens",
    )  # fmt: skip


def coherence_histogram(coherence: Float[np.ndarray, " concepts"]) -> go.Figure:
    """Draw the largest |cosine| of atoms to another one."""
    return _unit("Coherence", coherence, HOW_COHERENCE, "largest |cosine| to another atom")


def hull_histogram(distance: Float[np.ndarray, " concepts"], *, points: int, own: bool) -> go.Figure:
    """Draw the distance of atoms to the hull of the candidates, or of centroids of tokens, as a share of its radius.

    Parameters
    ----------
    points, own
        How many points make the hull, and whether they are the dictionary's own candidates.
    """
    what = f"hull of its {points:,} candidates" if own else f"hull of {points:,} centroids"
    how = HOW_OWN if own else HOW_FREE
    top = max(0.1, float(np.ceil(10 * distance.max(initial=0.0)) / 10))
    return _unit(
        "Distance to the hull of the candidates" if own else "Distance to the hull of centroids",
        distance,
        how,
        "distance / radius",
        (0.0, top),
        what,
    )


def stability_histogram(stability: Float[np.ndarray, " concepts"], *, seeds: int) -> go.Figure:
    """Draw the matched cosine of atoms between trainings from different seeds."""
    low = min(0.0, float(np.floor(10 * stability.min(initial=0.0)) / 10))
    return _unit("Stability", stability, HOW_STABILITY, "matched cosine", (low, 1.0), f"{seeds} seeds")


def most_alike(report: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return the `count` pairs of atoms with the largest |cosine|, each pair once: columns a, b, coherence.

    Parameters
    ----------
    report
        Indexed by concept: ``coherence, nearest``.
    """
    pairs = np.sort(np.stack([report.index.to_numpy(), report["nearest"].to_numpy()], axis=1), axis=1)
    table = pd.DataFrame({"a": pairs[:, 0], "b": pairs[:, 1], "coherence": report["coherence"].to_numpy()})
    ranked = table.sort_values("coherence", ascending=False, kind="stable").drop_duplicates(["a", "b"])
    return ranked.head(count).reset_index(drop=True)


def _unit(
    title: str, values: np.ndarray, how: str, unit: str, span: tuple[float, float] = (0.0, 1.0), what: str = ""
) -> go.Figure:
    """Draw a linear histogram of one number per concept."""
    figure = _histogram(values, span, lambda a, b: f"{a:.3g} to {b:.3g}")
    subtitle = f"{len(values):,} concepts" + (f" · {what}" if what else "")
    if len(values):
        _mark_median(figure, float(np.median(values)), span, f"{np.median(values):.2g}")
    return _finish(figure, title, subtitle, how, axis(unit, range=_around(span)))


def _histogram(values: np.ndarray, span: tuple[float, float], name: Callable[[float, float], str]) -> go.Figure:
    """Draw `BINS` bars over a span; `name(a, b)` says in words what a bar holds."""
    counts, edges = np.histogram(np.clip(np.asarray(values, np.float64), *span), bins=BINS, range=span)
    return go.Figure(
        go.Bar(
            x=(edges[:-1] + edges[1:]) / 2, y=counts, width=0.92 * (span[1] - span[0]) / BINS, showlegend=False,
            marker={"color": BAR, "line": {"width": 0}},
            customdata=[name(a, b) for a, b in pairwise(edges)],
            hovertemplate="%{y:,} concepts: %{customdata}<extra></extra>",
        )
    )  # fmt: skip


def _mark_median(figure: go.Figure, median: float, span: tuple[float, float], text: str) -> None:
    """Mark the median with a line and its value above the bars, within the figure."""
    place = (median - span[0]) / (span[1] - span[0])
    side = "left" if place < 0.15 else "right" if place > 0.85 else "center"
    mark_values(figure, median)
    figure.add_annotation(x=median, y=1, yref="paper", text=f"median {text}", xanchor=side, yanchor="bottom",
                          showarrow=False, font={"size": 11, "color": GREY})  # fmt: skip


def _around(span: tuple[float, float]) -> list[float]:
    """Return an axis's range: a span with a little room."""
    room = 0.015 * (span[1] - span[0])
    return [span[0] - room, span[1] + room]


def _finish(
    figure: go.Figure, title: str, subtitle: str, how: str, xaxis: dict[str, Any], unit: str = "concepts"
) -> go.Figure:
    """Apply the layout of a small histogram."""
    return apply_layout(
        figure, title=title, subtitle=subtitle, how=how, height=HEIGHT, bargap=0,
        xaxis={"showgrid": False, "zeroline": False, "fixedrange": True, **xaxis},
        yaxis=axis(unit, rangemode="tozero", nticks=4, fixedrange=True),
    )  # fmt: skip


def _share(value: float) -> str:
    """Return a share as percent, briefly."""
    return f"{100 * value:.3g} %" if value >= 1e-5 else f"{100 * value:.0e} %"
