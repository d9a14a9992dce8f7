"""Dictionaries on disk: `dictionary.safetensors` and `config.json` in a folder, never a pickle."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from engine.dictionary.archetypal import RelaxedArchetypal
from engine.dictionary.base import Dictionary
from engine.dictionary.batchtopk import BatchTopK
from engine.dictionary.threshold import Thresholded
from engine.dictionary.topk import TopK
from engine.dictionary.transcoder import Transcoder
from engine.errors import BlindspotError

WEIGHTS = "dictionary.safetensors"
CONFIG = "config.json"
KINDS: dict[str, type[Dictionary]] = {
    cls.kind: cls for cls in (TopK, BatchTopK, RelaxedArchetypal, Transcoder, Thresholded)
}
IMPORTED = "imported"
"""Key of config.json under which `engine.dictionary.published` records where a dictionary came from."""


def kind_named(kind: str) -> type[Dictionary]:
    """The class behind a kind's name."""
    if kind not in KINDS:
        raise BlindspotError(f"There is no dictionary kind {kind!r}; choose one of {', '.join(sorted(KINDS))}.")
    return KINDS[kind]


def save_dictionary(dictionary: Dictionary, folder: str | Path, imported: dict[str, Any] | None = None) -> None:
    """Write a dictionary into a folder, made if need be; each file appears whole or not at all.

    Parameters
    ----------
    dictionary, folder
        What to write, and where.
    imported
        Where it came from, if others published it (see `origin_of`).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in dictionary.state_dict().items()}
    config = {"kind": dictionary.kind, **dictionary.settings(), **({IMPORTED: imported} if imported else {})}
    save_file(tensors, folder / (WEIGHTS + ".partial"))
    os.replace(folder / (WEIGHTS + ".partial"), folder / WEIGHTS)
    (folder / (CONFIG + ".partial")).write_text(json.dumps(config, indent=2) + "\n")
    os.replace(folder / (CONFIG + ".partial"), folder / CONFIG)


def origin_of(folder: str | Path) -> dict[str, Any] | None:
    """Source, kind and assumptions of a saved dictionary that was imported; None for one of our own.

    Raises
    ------
    BlindspotError
        When config.json is missing or damaged.
    """
    path = Path(folder) / CONFIG
    try:
        return json.loads(path.read_text()).get(IMPORTED)
    except (OSError, ValueError, AttributeError) as error:
        raise BlindspotError(f"{path} does not describe a dictionary; save the dictionary again.") from error


def load_dictionary(folder: str | Path, device: str | torch.device = "cpu") -> Dictionary:
    """Open a saved dictionary for use: in eval mode and frozen (gradients still reach its input).

    Raises
    ------
    BlindspotError
        When a file is missing or damaged, or when the tensors do not have the shapes that config.json promises.
    """
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise BlindspotError(f"The dictionary folder {folder} has no {name}; point to a saved dictionary.")
    try:
        config = json.loads((folder / CONFIG).read_text())
        kind = config.pop("kind")
        config.pop(IMPORTED, None)
    except (ValueError, KeyError, TypeError) as error:
        raise BlindspotError(f"{folder / CONFIG} does not describe a dictionary; save the dictionary again.") from error
    dictionary_class = kind_named(kind)
    try:
        _compare(folder / WEIGHTS, config)
        dictionary = dictionary_class(**config)
        dictionary.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, SafetensorError, RuntimeError, TypeError, ValueError, KeyError) as error:
        raise BlindspotError(
            f"{folder / WEIGHTS} does not hold the dictionary that config.json describes; save the dictionary again."
        ) from error
    return dictionary.to(device).eval().requires_grad_(False)


def _compare(path: Path, config: dict[str, Any]) -> None:
    """Refuse sizes that the file does not have before memory is taken for them.

    Raises
    ------
    ValueError
        When the encoder or the candidates are not as many as promised, or not as wide.
    """
    with safe_open(path, framework="pt") as file:
        concepts, reads = file.get_slice("encoder.weight").get_shape()
        candidates = file.get_slice("points").get_shape()[0] if "points" in file.keys() else None  # noqa: SIM118
    expected = config["dim"] * config.get("kernel", 1) ** 2
    if (concepts, reads, candidates) != (config["concepts"], expected, config.get("candidates")):
        raise ValueError(f"{path} has {concepts} concepts that read {reads} numbers, and {candidates} candidates.")
