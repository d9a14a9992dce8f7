"""A training run on disk: parameters, optimiser moments and position in one safetensors file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from engine.dictionary.base import Dictionary
from engine.errors import BlindspotError

FILE = "training.safetensors"


def has_state(folder: str | Path | None) -> bool:
    """Whether a folder holds a run to continue."""
    return folder is not None and (Path(folder) / FILE).is_file()


def save_state(
    folder: Path,
    dictionary: Dictionary,
    optimiser: torch.optim.Optimizer,
    state: dict[str, Tensor],
    step: int,
    identity: dict,
) -> None:
    """Write the state to a temporary sibling and rename it, so that a kill leaves the previous one."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"dictionary.{name}": value for name, value in dictionary.state_dict().items()}
    for index, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": value for name, value in moments.items()}
    tensors |= {f"run.{name}": value for name, value in state.items()}
    partial = folder / (FILE + ".partial")
    metadata = {"step": str(step), "identity": json.dumps(identity, sort_keys=True)}
    save_file({name: value.contiguous() for name, value in tensors.items()}, partial, metadata=metadata)
    os.replace(partial, folder / FILE)


def load_state(
    folder: Path, dictionary: Dictionary, optimiser: torch.optim.Optimizer, state: dict[str, Tensor], identity: dict
) -> int:
    """Restore a run in place and return the number of steps done; 0 when the folder holds none.

    Raises
    ------
    BlindspotError
        When the file is damaged, or was written by a run with other settings or other tokens.
    """
    if not has_state(folder):
        return 0
    path = folder / FILE
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise BlindspotError(f"The training checkpoint {path} is damaged; delete it to start again.") from error
    if metadata.get("identity") != json.dumps(identity, sort_keys=True):
        raise BlindspotError(
            f"The training checkpoint {path} belongs to a run with other settings or tokens; "
            "delete it, or train with the old ones."
        )
    parameters: dict[str, Tensor] = {}
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        owner, _, rest = name.partition(".")
        if owner == "dictionary":
            parameters[rest] = value
        elif owner == "optimiser":
            index, _, moment = rest.partition(".")
            moments.setdefault(int(index), {})[moment] = value
    try:
        dictionary.load_state_dict(parameters)
        optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
        for name, value in state.items():
            value.copy_(tensors[f"run.{name}"])
    except (RuntimeError, KeyError, ValueError) as error:
        raise BlindspotError(f"The training checkpoint {path} is damaged; delete it to start again.") from error
    return int(metadata["step"])
