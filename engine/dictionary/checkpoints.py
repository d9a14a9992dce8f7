"""Dictionaries on disk: `dictionary.safetensors` and `config.json` in a folder, never a pickle."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from engine.dictionary.archetypal import RelaxedArchetypal
from engine.dictionary.base import Dictionary
from engine.dictionary.topk import TopK
from engine.errors import BlindspotError

WEIGHTS = "dictionary.safetensors"
CONFIG = "config.json"
KINDS: dict[str, type[Dictionary]] = {cls.kind: cls for cls in (TopK, RelaxedArchetypal)}


def kind_named(kind: str) -> type[Dictionary]:
    """The class behind a kind's name."""
    if kind not in KINDS:
        raise BlindspotError(f"There is no dictionary kind {kind!r}; choose one of {', '.join(sorted(KINDS))}.")
    return KINDS[kind]


def save_dictionary(dictionary: Dictionary, folder: str | Path) -> None:
    """Write a dictionary into a folder, made if need be; each file appears whole or not at all."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in dictionary.state_dict().items()}
    config = {"kind": dictionary.kind, **dictionary.settings()}
    save_file(tensors, folder / (WEIGHTS + ".partial"))
    os.replace(folder / (WEIGHTS + ".partial"), folder / WEIGHTS)
    (folder / (CONFIG + ".partial")).write_text(json.dumps(config, indent=2) + "\n")
    os.replace(folder / (CONFIG + ".partial"), folder / CONFIG)


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
    except (ValueError, KeyError, TypeError) as error:
        raise BlindspotError(f"{folder / CONFIG} does not describe a dictionary; save the dictionary again.") from error
    dictionary_class = kind_named(kind)
    try:
        dictionary = dictionary_class(**config)
        dictionary.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, SafetensorError, RuntimeError, TypeError) as error:
        raise BlindspotError(
            f"{folder / WEIGHTS} does not hold the dictionary that config.json describes; save the dictionary again."
        ) from error
    return dictionary.to(device).eval().requires_grad_(False)
