"""Small pieces of HTML that several pages use: tiles, tags, numbers. Pure functions that escape what they get."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from engine.figures.style import delta_colour

SUPPRESSED, EXAGGERATED, BETWEEN = "suppressed", "exaggerated", "between the thresholds"


@dataclass(frozen=True)
class Fit:
    """How the encoder saw an image, so that a heat map lands where it belongs on the thumbnail."""

    aspect: float = 1.0
    """Width over height of the image."""
    crop: float | None = None
    """For encoders that crop the centre: the share of the shorter side that is left; None when they squeeze."""


def number(value: float, digits: int = 3) -> str:
    """Format a number briefly; a dash for what is not one."""
    if value is None or not math.isfinite(value):
        return "–"
    if value != 0 and abs(value) < 10**-digits:
        return f"{value:.1e}"
    return f"{value:,.{digits}f}"


def percent(share: float) -> str:
    """Format a share in [0, 1] as percent."""
    return "–" if not math.isfinite(share) else f"{100 * share:.2g} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"


def tags(words: Iterable[str]) -> str:
    """Return words as small tags."""
    return "".join(f'<span class="ba-tag">{escape(str(word))}</span>' for word in words)


def badge(delta: float, low: float, high: float) -> str:
    """Return a delta as a coloured badge that also says its status in a word."""
    word = SUPPRESSED if delta < low else EXAGGERATED if delta > high else BETWEEN
    ink = "#fff" if word == BETWEEN and 0.2 < delta < 0.8 else "#17111c"
    return (
        f'<span class="ba-badge" style="background:{delta_colour(delta)};color:{ink}">δ {delta:.2f}</span>'
        f'<span class="ba-status">{word}</span>'
    )


def dot(delta: float) -> str:
    """Return a dot in a delta's colour."""
    return f'<i class="ba-dot" style="background:{delta_colour(delta)}"></i>'


def title_of(concept: int, label: str | None) -> str:
    """Return a concept's name, plain text: its label if it has one."""
    return str(label) if label else f"Concept {concept}"


def name_of(concept: int, label: str | None) -> str:
    """Return a concept's name among others: labels repeat, so its id stands behind its label and is never cut off."""
    number = f"<i>{concept}</i>" if label else ""
    return f'<span class="ba-name"><span>{escape(title_of(concept, label))}</span>{number}</span>'


def picture(src: str, fit: Fit, heat: tuple[int, int] | None = None, alt: str = "") -> str:
    """Return a square crop of an image with an optional heat map on top.

    Parameters
    ----------
    src
        Address of the thumbnail.
    fit
        Shape of the image and what the encoder saw of it.
    heat
        (tile, tiles) of the heat sheet that an ancestor sets as ``--sheet``.
    """
    aspect = fit.aspect if fit.aspect > 0 else 1.0
    wide = 100 * max(aspect, 1.0), 100 * max(1 / aspect, 1.0)
    box = f"width:{wide[0]:.2f}%;height:{wide[1]:.2f}%;left:{50 - wide[0] / 2:.2f}%;top:{50 - wide[1] / 2:.2f}%"
    image = f'<img src="{escape(src)}" alt="{escape(alt)}" loading="lazy" decoding="async" style="{box}">'
    return f'<span class="ba-picture">{image}{_overlay(heat, box, fit.crop) if heat else ""}</span>'


def _overlay(heat: tuple[int, int], box: str, crop: float | None) -> str:
    tile, tiles = heat
    position = 100 * tile / (tiles - 1) if tiles > 1 else 0
    if crop is not None:
        edge = 50 * (1 - crop)
        box = f"inset:{edge:.2f}%"
    style = f"{box};background-size:100% {100 * tiles}%;background-position:0 {position:.3f}%"
    return f'<span class="ba-heat" style="{style}"></span>'
