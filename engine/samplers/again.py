"""The command that draws the same images again: what a figure in a paper needs beside it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from engine.samplers.drawing import Order

USUAL = {field.name: field.default for field in fields(Order)}
OPTIONS = ("method", "count", "seed", "steps", "strength", "particles", "states", "cap", "until")
"""Fields of `Order` that are options of their own: all but the concepts, their weights and the search."""


def again(parameters: Mapping[str, Any], atlas: str | Path = "ATLAS", out: str | Path = "DIR") -> str:
    """The command line of a drawing.

    Parameters
    ----------
    parameters
        Those of `Drawing.parameters`, where a strength that was looked for is the one that was found, or a row of the
        atlas's gallery; what is missing, None or NaN counts as usual, and so does not appear.
    atlas, out
        Folders.
    """
    words = ["python", "-m", "precompute", "sample", str(atlas), "--concept", str(parameters["concept"])]
    for other in parameters.get("others") or ():
        words += ["--concept", str(other)]
    for weight in parameters.get("weights") or ():
        words += ["--weight", repr(float(weight))]
    for name in OPTIONS:
        value = parameters.get(name)
        if value is not None and value == value and value != USUAL[name]:
            words += [f"--{name}", _text(value)]
    return shlex.join([*words, "--out", str(out)])


def _text(value: Any) -> str:
    """A value as the command line reads it, to the last digit."""
    if isinstance(value, str):
        return value
    return str(int(value)) if value == int(value) else repr(float(value))
