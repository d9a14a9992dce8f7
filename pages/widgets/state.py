"""The URL is the truth: one frozen `View` is read from it, checked against the atlas, and written back.

Reading never fails. A value that does not fit (an unknown model, a concept out of range, a temperature of "abc") falls
back to its default and leaves the URL when the view is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from engine.blindspots.distribution import MARGIN
from engine.figures.tables import STATUSES

COLOURS = ("delta", "relative", "frequency", "cluster")
SIDES = ("suppressed", "exaggerated", "both")
QUANTITIES = ("relative", "delta")
MARGINS = (0.0, 0.4)
"""Margins on offer: from any to the neutral delta at the usual thresholds."""
TARGETS = (4.1, 7.7)
"""Mean scores on offer on the theory page: from just above the prior's to just below the highest."""
MOST_MODELS = 4
LONGEST_TEXT = 80
SETTINGS = ("model", "estimator", "temperature", "low", "high")
"""What every link to another page takes along."""
SHARED = (*SETTINGS, "concept")
"""What follows a person from page to page."""


@dataclass(frozen=True)
class Known:
    """What the atlas has, against which a URL is checked."""

    models: tuple[str, ...]
    concepts: int
    images: int
    estimator: str = "gap"
    temperatures: Mapping[str, float] = field(default_factory=lambda: {"gap": 0.8})
    """Default temperature of every estimator on offer."""
    low: float = 0.1
    high: float = 0.9
    colours: tuple[str, ...] = COLOURS
    """What a map's colour may mean: an atlas of published statistics has neither frequencies nor clusters."""


@dataclass(frozen=True)
class View:
    """Everything that a link must bring back."""

    model: str
    concept: int | None = None
    image: int | None = None
    estimator: str = "gap"
    temperature: float = 0.8
    low: float = 0.1
    high: float = 0.9
    colour: str = "delta"
    status: tuple[str, ...] = ()
    frequency: float = 0.0
    q: float = 1.0
    text: str = ""
    side: str = "suppressed"
    top: int = 12
    models: tuple[str, ...] = ()
    quantity: str = "relative"
    """What models are correlated on: the authors' relative gap, or delta."""
    margin: float = MARGIN
    """How far inside the threshold every other model is for a blindspot of one model alone."""
    target: float = 6.0
    """Mean score that threshold and tilt have on the theory page."""
    job: str | None = None


def default_view(known: Known) -> View:
    """Return the view of an empty URL."""
    return View(
        model=known.models[0],
        estimator=known.estimator,
        temperature=known.temperatures[known.estimator],
        low=known.low,
        high=known.high,
        models=known.models[: min(2, len(known.models))],
    )


def read(params: Mapping[str, str], known: Known) -> View:
    """Read a view from query parameters; values that do not fit are replaced by defaults.

    Parameters
    ----------
    params
        Query parameters, one string each (lists are comma separated).
    known
        What the atlas has.
    """
    base = default_view(known)
    found: dict[str, Any] = {}
    for name, parse in _parsers(known).items():
        if name in params:
            value = parse(str(params[name]))
            if value is not None:
                found[name] = value
    found.setdefault("temperature", known.temperatures[found.get("estimator", base.estimator)])
    view = replace(base, **found)
    return view if view.low < view.high else replace(view, low=base.low, high=base.high)


def misfits(params: Mapping[str, str], known: Known) -> dict[str, str]:
    """Return the parameters whose values do not fit, and what they say; of a list, its unknown parts."""
    wrong = {}
    for name, parse in _parsers(known).items():
        text = str(params.get(name, ""))
        found = parse(text)
        if isinstance(found, tuple):
            text = ",".join(part for part in text.split(",") if part not in found)
        if text and (found is None or isinstance(found, tuple)):
            wrong[name] = text
    return wrong


def write(view: View, known: Known, keys: tuple[str, ...] | None = None) -> dict[str, str]:
    """Return the query parameters of a view: only what differs from the defaults, only `keys` if given."""
    base = replace(default_view(known), temperature=known.temperatures[view.estimator])
    params = {}
    for name in (entry.name for entry in fields(View)):
        value = getattr(view, name)
        if value == getattr(base, name) or (keys is not None and name not in keys):
            continue
        params[name] = ",".join(value) if isinstance(value, tuple) else _text(value)
    return params


def picked(event: Any) -> int | None:
    """Turn what a plot or a link reports into a concept id; None for anything that is not one."""
    value = event.get("concept") if isinstance(event, Mapping) else event
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        return None
    return int(value)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _parsers(known: Known) -> dict[str, Callable[[str], Any]]:
    """Return, per parameter, a parser that gives None for what does not fit."""
    return {
        "model": _one_of(known.models),
        "concept": _whole(0, known.concepts - 1),
        "image": _whole(0, known.images - 1),
        "estimator": _one_of(tuple(known.temperatures)),
        "temperature": _number(0.05, 20.0),
        "low": _number(0.0, 0.5),
        "high": _number(0.5, 1.0),
        "colour": _one_of(known.colours),
        "status": _several(STATUSES, 0, len(STATUSES)),
        "frequency": _number(0.0, 1.0),
        "q": _number(0.0, 1.0),
        "text": lambda text: text if len(text) <= LONGEST_TEXT and text.isprintable() else None,
        "side": _one_of(SIDES),
        "top": _whole(6, 96),
        "models": _several(known.models, 1, MOST_MODELS),
        "quantity": _one_of(QUANTITIES),
        "margin": _number(*MARGINS),
        "target": _number(*TARGETS),
        "job": lambda text: text if len(text) <= 64 and text.isalnum() else None,
    }


def _one_of(allowed: tuple[str, ...]) -> Callable[[str], str | None]:
    return lambda text: text if text in allowed else None


def _several(allowed: tuple[str, ...], fewest: int, most: int) -> Callable[[str], tuple[str, ...] | None]:
    def parse(text: str) -> tuple[str, ...] | None:
        chosen = tuple(dict.fromkeys(part for part in text.split(",") if part in allowed))
        return chosen if fewest <= len(chosen) <= most else None

    return parse


def _whole(low: int, high: int) -> Callable[[str], int | None]:
    def parse(text: str) -> int | None:
        if not (text.isascii() and text.isdigit() and len(text) < 12):
            return None
        return int(text) if low <= int(text) <= high else None

    return parse


def _number(low: float, high: float) -> Callable[[str], float | None]:
    def parse(text: str) -> float | None:
        try:
            value = float(text)
        except ValueError:
            return None
        return value if math.isfinite(value) and low <= value <= high else None

    return parse
