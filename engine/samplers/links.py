"""A drawing's settings as short text: what a link to it carries, so that it can be drawn again where its files are not.

``method:energydps,strength:0.4,with:54+60*0.5`` names what differs from the defaults of a `GenerationRequest`; ``with``
lists the other concepts of a weighted set, ``weight`` is the concept's own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from engine.errors import BlindspotError
from engine.samplers.generation import MAX_LEVEL, STORED_NAMES, GenerationRequest
from engine.samplers.records import stored_method
from engine.samplers.registry import SAMPLERS

LONGEST = 400
WHOLE = ("count", "seed", "steps", "candidates", "particles")
LIMITS = {
    "count": ("Images", 1, 16),
    "seed": ("Seed", 0, 2**31 - 1),
    "steps": ("Steps", 5, 250),
    "strength": ("Strength", 0, 20),
    "candidates": ("Beginnings", 1, 128),
    "particles": ("Particles", 1, 64),
}
"""What the app draws at most: fields of `GenerationRequest`, their names on its form, and both ends."""
CONCEPT = re.compile(r"(\d{1,9})(?:[:*]([+-]?(?:\d+\.?\d*|\.\d+)))?")
DEFAULTS = {field.name: field.default for field in fields(GenerationRequest)}


def settings_text(request: GenerationRequest) -> str:
    """Return what a request asks for besides its concept, as far as it is not the default."""
    parts = [
        f"{name}:{value}"
        for name in ("method", "prior", *LIMITS)
        if (value := getattr(request, name)) != DEFAULTS[name] and value is not None
    ]
    weights = request.weights or (1.0,) * len(request.concepts)
    parts += [f"weight:{weights[0]:g}"] if weights[0] != 1 else []
    others = "+".join(f"{concept}*{weight:g}" for concept, weight in zip(request.others, weights[1:], strict=True))
    return ",".join(
        [*parts, *([f"with:{others}"] if others else []), *([f"match:{request.level:g}"] if request.match else [])]
    )


def parse_settings(text: str) -> dict[str, Any] | None:
    """Return what `settings_text` wrote as fields by name, None for any other text.

    ``with`` stays a text for `parse_concepts`; whether numbers fit is said by `check_limits`.
    """
    found: dict[str, Any] = {}
    for part in text.split(",") if 0 < len(text) <= LONGEST else []:
        name, _, value = part.partition(":")
        if name in WHOLE and value.isascii() and value.isdigit() and len(value) < 12:
            found[name] = int(value)
        elif name in ("strength", "weight") and _is_number(value):
            found[name] = float(value)
        elif name == "match" and _is_number(value) and 0 < float(value) <= MAX_LEVEL:
            found |= {"match": True, "level": float(value)}
        elif (name == "method" and value in SAMPLERS) or (name == "prior" and value.isprintable() and value):
            found[name] = value
        elif name == "with" and all(CONCEPT.fullmatch(one) for one in value.split("+")):
            found[name] = value.replace("+", ", ").replace("*", ":")
        else:
            return None
    return found if found or not text else None


def request_of(stored: Mapping[str, Any]) -> GenerationRequest:
    """Return the request that a drawing's stored parameters say (`GenerationRequest.parameters`).

    Raises
    ------
    BlindspotError, TypeError
        For what makes no sense.
    """
    names = {old: new for new, old in STORED_NAMES.items()}
    renamed = {names.get(name, name): value for name, value in stored.items()}
    known = {name: value for name, value in renamed.items() if name in DEFAULTS}
    lists = {name: tuple(known.get(name) or ()) for name in ("others", "weights")}
    return GenerationRequest(**{**known, **lists, "method": stored_method(stored)})


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def parse_concepts(text: str, weight: float = 1.0) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return other concepts and the weights of a set, from ``54, 60:0.5``; no weights where all are 1.

    Raises
    ------
    BlindspotError
        For anything else.
    """
    others, weights = [], [weight]
    for part in filter(None, (one.strip() for one in text.split(","))):
        match = CONCEPT.fullmatch(part)
        if match is None:
            raise BlindspotError(
                f"“{part[:40]}” is no concept: write numbers, each with a weight where it is not 1, such as 54, 60:0.5."
            )
        others.append(int(match[1]))
        weights.append(float(match[2] or 1))
    return tuple(others), () if set(weights) == {1.0} else tuple(weights)


def check_limits(settings: Mapping[str, Any]) -> None:
    """Raise `BlindspotError` with one sentence for every number that the app does not draw."""
    wrong = [
        f"{name} {settings[field]:g} is out of range, choose {low:,} to {high:,}"
        for field, (name, low, high) in LIMITS.items()
        if field in settings and not low <= settings[field] <= high
    ]
    if wrong:
        raise BlindspotError("; ".join(wrong) + ".")
