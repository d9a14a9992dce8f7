"""State dicts as training programs save them: the wrappers, prefixes and shards around a network's own tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.errors import BlindspotError
from engine.files import read_json

ENTRIES = (
    *("ema", "ema_state_dict", "model_ema", "ema_model", "state_dict", "model_state_dict", "model", "module", "net"),
    *("network", "weights", "params", "autoencoder", "sae"),
)
"""Entries of a checkpoint that hold its network, averaged weights first: those are the ones its authors draw with."""
WRAPPERS = frozenset(
    ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module", "_fpw_module")
)
"""Names that DataParallel, torch.compile, FSDP and Lightning put anywhere into a tensor's."""
OWN_ROOTS = frozenset(("encoder", "decoder", "dictionary", "layer"))
"""First parts of names that a network gives itself, even if all of its tensors share them."""
HARMLESS = re.compile(
    r"(?:.*\.)?(?:num_batches_tracked|(?:sqrt_|log_)?(?:one_minus_|recip_|recipm1_)?(?:alphas|betas)\w*"
    r"|log_one_minus_alphas\w*|posterior_\w+|p2_loss_weight|loss_weight|snr|num_tokens_since_fired|n_forward_passes\w*"
    r"|steps_since_\w+|stats_last_nonzero|act_freq_scores|ema_frequency_counter|log_feature_sparsity|group_sizes)"
)
"""Names of buffers that decide nothing of what a network computes: counters, and the tables of a noise schedule."""
SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d+)-of-(?P<count>\d+)(?P<rest>(?:\.\w+)*\.(?:safetensors|bin|pt))")


def unwrapped(loaded: Mapping[Any, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the network's tensors under its own names, and the values that lie beside them.

    Parameters
    ----------
    loaded
        What a checkpoint holds: a state dict, or one inside entries such as `state_dict`, `ema` or `model`.

    Raises
    ------
    BlindspotError
        If two tensors have one name without their wrappers.
    """
    beside: dict[str, Any] = {}
    while (key := _entry(loaded)) is not None:
        beside = {**{str(name): value for name, value in loaded.items() if name != key}, **beside}
        loaded = loaded[key]
    tensors = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
    beside = {**{str(name): value for name, value in loaded.items() if not isinstance(value, Tensor)}, **beside}
    return without_prefixes(tensors), beside


def _entry(loaded: Mapping[Any, Any]) -> str | None:
    """The entry that holds the network; None in a state dict itself."""
    if any(isinstance(value, Tensor) and value.ndim > 1 for value in loaded.values()):
        return None
    return next((key for key in ENTRIES if isinstance(loaded.get(key), Mapping) and _holds_tensors(loaded[key])), None)


def _holds_tensors(entry: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in entry.values()) or _entry(entry) is not None


def without_prefixes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without wrappers' names, and without a first name that all of them share."""
    parts = {name: [part for part in name.split(".") if part not in WRAPPERS] for name in tensors}
    own = [name for name in parts if not HARMLESS.fullmatch(name)]
    while len(roots := {parts[name][0] for name in own if parts[name]}) == 1:
        named = roots & {*ENTRIES}
        if any(len(parts[name]) < 2 for name in own) or (not named and (len(own) < 3 or roots & OWN_ROOTS)):
            break
        parts = {name: found[1:] if found[:1] == [*roots] else found for name, found in parts.items()}
    names = {name: ".".join(found) or name for name, found in parts.items()}
    if len(set(names.values())) < len(names):
        twice = next(name for name in names.values() if list(names.values()).count(name) > 1)
        raise BlindspotError(
            f"The checkpoint holds the tensor {twice} twice, under different wrappers; save one network alone."
        )
    return {names[name]: tensor for name, tensor in tensors.items()}


def harmless(name: str) -> bool:
    """Whether a tensor of that name decides nothing of what a network computes."""
    return HARMLESS.fullmatch(name) is not None


def refuse_unusable(name: str, tensor: Tensor, where: object) -> None:
    """Refuse weights that are whole numbers (quantised, without their scales here) or not finite.

    Raises
    ------
    BlindspotError
        With the tensor's name.
    """
    if not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise BlindspotError(f"{where}: {name!r} holds {kind}, not floating-point weights; get an unquantised copy.")
    for part in tensor.detach().flatten().split(2**26):
        if not torch.isfinite(part if part.element_size() > 1 else part.float()).all():
            raise BlindspotError(f"{where}: {name!r} holds values that are not finite; get an intact copy.")


def shards_of(path: Path) -> list[Path]:
    """Return all files of the checkpoint that a file is part of: by its numbers, or by an index beside it.

    Raises
    ------
    BlindspotError
        If one of them is missing.
    """
    names = shard_names(path.name) or _indexed(path)
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        raise BlindspotError(
            f"{path} is one of {len(names)} shards, but {missing[0]} is not beside it; get all of them."
        )
    return [path.parent / name for name in names]


def shard_names(name: str) -> list[str]:
    """Return the names of all shards of which `name` is one; of another file nothing."""
    found = SHARD.fullmatch(name)
    if found is None or not 1 <= int(found["number"]) <= int(found["count"]) <= 10_000:
        return []
    digits = len(found["number"])
    count = range(1, int(found["count"]) + 1)
    return [f"{found['stem']}-{number:0{digits}d}-of-{found['count']}{found['rest']}" for number in count]


def _indexed(path: Path) -> list[str]:
    """The files of the index beside a file that lists it; else the file alone."""
    for index in sorted(path.parent.glob("*.index.json")):
        try:
            files = sorted(set(read_json(index)["weight_map"].values()))
        except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
            continue
        if path.name in files and all(Path(name).name == name and not name.startswith(".") for name in files):
            return files
    return [path.name]


def one_per_checkpoint(folder: Path, names: Iterable[str]) -> list[str]:
    """Return the names of a folder's weights with the first shard only of those that belong together."""
    kept: list[str] = []
    for name in sorted(names):
        together = shard_names(name) or _indexed(folder / name)
        if not any(other in kept for other in together):
            kept.append(name)
    return kept


def merged(parts: Iterable[tuple[Path, Mapping[str, Tensor]]]) -> dict[str, Tensor]:
    """Return the tensors of all shards.

    Raises
    ------
    BlindspotError
        If two shards hold different tensors of one name.
    """
    found: dict[str, Tensor] = {}
    for path, tensors in parts:
        for name, tensor in tensors.items():
            if name in found and not torch.equal(found[name], tensor):
                raise BlindspotError(f"{path} holds another tensor {name!r} than an earlier shard; get an intact copy.")
            found[name] = tensor
    return found
