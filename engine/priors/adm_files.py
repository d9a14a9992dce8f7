"""An ADM network on disk: a folder of adm.json (its shape and noise schedule) and adm.safetensors."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.errors import BlindspotError
from engine.priors.adm_unet import ADMConfig, ADMUNet

CONFIG, WEIGHTS = "adm.json", "adm.safetensors"
NOISES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
"""Noise schedules of guided-diffusion, and diffusers' names for them."""
SHOWN = 3


def empty_adm(config: ADMConfig) -> ADMUNet:
    """The network without memory for its weights, to be given some by `fill`."""
    with torch.device("meta"):
        return ADMUNet(config).requires_grad_(False).eval()


def fill(unet: ADMUNet, state: Mapping[str, Tensor], where: str | Path) -> None:
    """Give a network the tensors of a state dict, all of them and no others, without copying.

    Raises
    ------
    BlindspotError
        If a tensor is missing, left over, or of another shape; the first few are named.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in unet.state_dict().items()}
    wrong = [f"{name} is missing" for name in expected if name not in state]
    wrong += [f"{name} has no place" for name in state if name not in expected]
    wrong += [
        f"{name} has shape {tuple(state[name].shape)} instead of {shape}"
        for name, shape in expected.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise BlindspotError(
            f"The weights of {where} do not fit an ADM network of that shape ({', '.join(wrong[:SHOWN])}{more}): "
            "get an intact guided-diffusion checkpoint with scale-shift norms and residual up- and downsampling."
        )
    unet.load_state_dict(dict(state), strict=True, assign=True)
    unet.requires_grad_(False)


def save_adm(state: Mapping[str, Tensor], config: ADMConfig, noise: str, folder: str | Path) -> None:
    """Write a new folder; it appears whole or not at all.

    Parameters
    ----------
    state, config
        The tensors under guided-diffusion's names, and the shape of the network.
    noise
        One of `NOISES`.
    folder
        Must not exist yet.

    Raises
    ------
    BlindspotError
        If it exists.
    """
    folder = Path(folder)
    if folder.exists():
        raise BlindspotError(f"{folder} exists already: give a new folder for the converted network.")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, partial / WEIGHTS)
        (partial / CONFIG).write_text(json.dumps({**asdict(config), "noise": noise}, indent=2) + "\n")
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def open_adm(folder: str | Path, device: str | torch.device, dtype: torch.dtype) -> tuple[ADMUNet, str]:
    """A saved network, frozen, and its noise schedule (one of `NOISES`).

    Raises
    ------
    BlindspotError
        If a file is missing or damaged, or the weights are not those that adm.json describes.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise BlindspotError(
            f"{folder} is no converted ADM network: make one with `python -m precompute convert-adm CHECKPOINT --out "
            f"{folder}`."
        )
    try:
        described = json.loads((folder / CONFIG).read_text())
        noise = described.pop("noise")
        known = {field.name for field in fields(ADMConfig)}
        if noise not in NOISES or not set(described) <= known:
            raise ValueError(f"unknown keys or noise schedule {noise!r}")
        unet = empty_adm(ADMConfig(**{key: _frozen(value) for key, value in described.items()}))
        state = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BlindspotError(
            f"The ADM network in {folder} cannot be read ({str(error)[:100]}): convert its checkpoint again."
        ) from error
    fill(unet, state, folder)
    return unet.to(device, dtype), noise


def _frozen(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value
