"""From a checkpoint of OpenAI's guided-diffusion to a folder that `load_prior` opens; no code in it is ever run.

Most of a network's shape is in its tensors. What is not (image size, heads, order of the attention's channels, noise
schedule) is asked for; the defaults are those of the published 256 x 256 models.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.checkpoints import harmless, merged, shards_of, unwrapped, without_prefixes
from engine.errors import BlindspotError
from engine.priors.adm import CONFIG, NOISES, WEIGHTS, ADMConfig, empty_adm, fill_adm

PICKLE = b"\x80"
"""How a pickle begins."""
REFUSED = re.compile(r"GLOBAL ([\w.]+)")
"""How the weights-only reader names what it refused to build."""


@dataclass(frozen=True)
class ADMAssumptions:
    """What a checkpoint does not say about its network."""

    image_size: int = 256
    heads: int | None = None
    """Heads of every attention; None: 64 channels a head."""
    qkv: Literal["legacy", "new"] = "legacy"
    noise: str = "linear"
    """One of `NOISES`."""


Unwritten = ADMAssumptions  # the name that scripts know


@dataclass(frozen=True)
class Converted:
    """What was converted."""

    parameters: int
    config: ADMConfig
    noise: str


def convert_adm(source: str | Path, folder: str | Path, assumed: ADMAssumptions = ADMAssumptions()) -> Converted:
    """Read a checkpoint, check every tensor, and write safetensors and json into a new folder, whole or not at all.

    Parameters
    ----------
    source
        A .pt file such as 256x256_diffusion_uncond.pt, or the same state dict as safetensors.
    folder
        New folder.
    assumed
        What the checkpoint does not say.

    Raises
    ------
    BlindspotError
        If the file is missing, unreadable or a pickle of objects, is of another architecture, or the folder exists.
    """
    if assumed.noise not in NOISES or assumed.qkv not in ("legacy", "new"):
        raise BlindspotError(
            f"There is no noise schedule {assumed.noise!r} with attention order {assumed.qkv!r}: choose "
            f"{' or '.join(NOISES)}, and legacy or new."
        )
    state = read_state(source)
    config = shape_of(state, source, assumed)
    try:
        unet = empty_adm(config)
    except (ValueError, ZeroDivisionError, RuntimeError) as error:
        raise BlindspotError(f"{source} holds no ADM network that can be built: {error}.") from error
    fill_adm(unet, config, state, source)
    save_adm(state, config, assumed.noise, folder)
    return Converted(sum(tensor.numel() for tensor in state.values()), config, assumed.noise)


def save_adm(state: Mapping[str, Tensor], config: ADMConfig, noise: str, folder: str | Path) -> None:
    """Write guided-diffusion's state dict, its shape and noise schedule (one of `NOISES`) into a new folder.

    Raises
    ------
    BlindspotError
        If the folder exists.
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


def read_state(source: str | Path) -> dict[str, Tensor]:
    """The state dict of a checkpoint, mapped from disk where its format allows.

    Wrappers around it (`engine.checkpoints`) and the buffers of a noise schedule are left out; shards are joined.

    Raises
    ------
    BlindspotError
        If it is missing, unreadable, or holds objects instead of tensors.
    """
    path = Path(source)
    if not path.is_file():
        raise BlindspotError(f"There is no checkpoint {path}: give a .pt or .safetensors file of guided-diffusion.")
    state = without_prefixes(merged((shard, _tensors(shard)) for shard in shards_of(path)))
    plain = (torch.float16, torch.bfloat16, torch.float32)
    return {
        name: tensor if tensor.dtype in plain or not tensor.is_floating_point() else tensor.float()
        for name, tensor in state.items()
        if not harmless(name)
    }


def _tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of one file."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if not zipfile.is_zipfile(path) and path.open("rb").read(1) != PICKLE:
            raise ValueError("neither of torch's formats")
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except UnpicklingError as error:
        refused = REFUSED.search(str(error))
        what = f"objects ({refused[1]})" if refused else "objects"
        raise BlindspotError(
            f"{path} is a pickle of {what}, which could run code, so it was not opened: give a file of tensors alone."
        ) from error
    except (OSError, EOFError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BlindspotError(f"{path} is not a readable checkpoint: get an intact copy.") from error
    state = unwrapped(loaded)[0] if isinstance(loaded, dict) else {}
    if not state:
        raise BlindspotError(f"{path} holds no state dict of tensors: give a checkpoint of guided-diffusion.")
    return state


def shape_of(state: Mapping[str, Tensor], source: str | Path, assumed: ADMAssumptions) -> ADMConfig:
    """The shape of the network that a state dict belongs to.

    Each level has `blocks` residual blocks on the way down and one more on the way up, where the last of every level
    but the finest also holds an upsampling one: the first of those tells `blocks`, and with it the levels.

    Raises
    ------
    BlindspotError
        If tensors that every ADM network has are not there.
    """
    try:
        channels = state["time_embed.0.weight"].shape[1]
        rising = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("output_blocks."))
        upsampled = [
            index
            for index in range(rising)
            if any(f"output_blocks.{index}.{layer}.in_layers.0.weight" in state for layer in (1, 2))
        ]
        period = upsampled[0] + 1 if upsampled else rising
        firsts = [1 + level * period for level in range(rising // period)]
        widths = [state[f"input_blocks.{first}.0.out_layers.3.weight"].shape[0] for first in firsts]
        variance = state["out.2.weight"].shape[0] == 6
    except (KeyError, ValueError, IndexError) as error:
        raise BlindspotError(
            f"{source} is no guided-diffusion ADM checkpoint with residual up- and downsampling (its tensors are named "
            f"{', '.join(sorted(state)[:3])} ...): give a file such as 256x256_diffusion_uncond.pt."
        ) from error
    return ADMConfig(
        image_size=assumed.image_size,
        channels=channels,
        multipliers=tuple(width / channels for width in widths),
        blocks=period - 1,
        attention=tuple(level for level, first in enumerate(firsts) if f"input_blocks.{first}.1.qkv.weight" in state),
        heads=assumed.heads,
        qkv=assumed.qkv,
        classes=state["label_emb.weight"].shape[0] if "label_emb.weight" in state else None,
        learned_variance=variance,
    )
