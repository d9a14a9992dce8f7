"""Where a published dictionary lies (a file, a folder, or a repository on the Hugging Face hub) and what it holds; none
of it is ever run.

Tensors come from safetensors, or from `torch.load(weights_only=True)`, whose reader knows tensors, numbers, strings and
plain containers, and here the parts of whole modules of overcomplete (see `modules`); every other object is refused
before it is built, and a file on the hub before it is downloaded.
"""

from __future__ import annotations

import io
import json
import re
import struct
import warnings
import zipfile
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from engine.checkpoints import (
    harmless,
    merged,
    one_per_checkpoint,
    refuse_unusable,
    shard_names,
    shards_of,
    unwrapped,
    without_prefixes,
)
from engine.dictionary.published.modules import SavedObject, contains_code, flatten, reading_saved_modules
from engine.errors import BlindspotError

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(?:/[\w./-]+)?(?:@[\w./-]+)?")
OWN_NAMES = ("sae_weights.safetensors", "sae.safetensors", "ae.pt", "sae.pt")
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
CONFIGS = ("cfg.json", "config.json")
IGNORED = ("sparsity.safetensors", "activation_whitening.safetensors", "activations_store_state.safetensors")
REFUSED = re.compile(r"GLOBAL ([\w.]+)")
"""How the weights-only reader names what it refused to build."""
PICKLE = b"\x80"
"""First byte of a bare pickle, which may hold what that reader cannot even name."""
REMOTE_BLOCK = 2**20
"""Bytes per request to the hub; the names in a checkpoint of gigabytes take a few of these."""


class Source(NamedTuple):
    """The files of one published dictionary: its weights, and the JSON file beside them if there is one."""

    weights: Path
    """Where they are in shards, the first one."""
    config: Path | None


def find_source(src: str) -> Source:
    """Resolve a path or a hub id (`owner/name` or `owner/name/folder/or/file`, with `@revision` if wanted).

    Raises
    ------
    BlindspotError
        When there is nothing at `src`, no weights in it, or more than one candidate.
    """
    path = Path(src).expanduser()
    if not path.exists():
        if not HUB_ID.fullmatch(src) or src.startswith((".", "/")) or ".." in src.split("/"):
            raise BlindspotError(f"There is no file or folder {src}, nor is it an owner/name on the Hugging Face hub.")
        path = _download(src)
    if not path.is_file():
        if not path.is_dir():
            raise BlindspotError(f"{path} is a pipe or a device; give the file or folder of one dictionary.")
        names = [file.name for file in path.iterdir() if file.is_file() and file.suffix in SUFFIXES]
        path /= _pick_weights(one_per_checkpoint(path, names), str(path))
    # dictionary_learning keeps the dictionaries of earlier steps in `checkpoints/`, below the configuration.
    folders = (path.parent, path.parent.parent) if path.absolute().parent.name == "checkpoints" else (path.parent,)
    config = next((at / name for at in folders for name in CONFIGS if (at / name).is_file()), None)
    return Source(path, config)


def _pick_weights(names: list[str], where: str) -> str:
    """The weights among file names: safetensors before PyTorch files, and a library's own names before others."""
    for suffix in SUFFIXES:
        found = [name for name in names if name.endswith(suffix) and name not in IGNORED]
        own = [name for name in OWN_NAMES if name in found]
        if len(found) > 1 and not own:
            raise BlindspotError(f"{where} holds several dictionaries ({', '.join(found[:6])}); give the path of one.")
        if found:
            return (own or found)[0]
    raise BlindspotError(
        f"{where} holds no weights ({', '.join(SUFFIXES)}); give the folder or file of one dictionary."
    )


def _download(src: str) -> Path:
    """Fetch one dictionary of a hub repository, its weights and JSON files only; code is never fetched."""
    from huggingface_hub import HfApi, snapshot_download

    name, _, at = src.partition("@")
    owner, repository, *rest = name.strip("/").split("/", 2)
    repo_id, inner, revision = f"{owner}/{repository}", "".join(rest), at or None
    # Which exceptions mean "no connection" depends on the hub's HTTP library, so whatever these calls raise is told.
    try:
        files = HfApi().list_repo_files(repo_id, revision=revision)
    except Exception as error:
        snapshot = _cached(repo_id, revision or "main")
        if snapshot is None or not (snapshot / inner).exists():
            raise _unreachable(src, error) from error
        return snapshot / inner
    wanted = files_of_one(files, inner, src)
    try:
        _refuse_remote_code(repo_id, wanted[0], revision)
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=wanted)) / wanted[0]
    except BlindspotError:
        raise
    except Exception as error:
        raise _unreachable(src, error) from error


def files_of_one(files: list[str], inner: str, where: str) -> list[str]:
    """Of a repository's files those of the one dictionary at `inner` (a folder or file), the weights first.

    Raises
    ------
    BlindspotError
        When `inner` is not in the repository, holds no weights, or several equally good ones.
    """
    folder = inner.rpartition("/")[0] if inner in files else inner
    prefix = f"{folder}/" if folder else ""
    here = sorted(file.removeprefix(prefix) for file in files if file.startswith(prefix))
    if not here:
        raise BlindspotError(f"{where}: the repository has no folder or file {inner}; check the name.")
    here = [file for file in here if "/" not in file]
    firsts = [file for file in here if file == (shard_names(file) or [file])[0]]
    weights = inner.removeprefix(prefix) if inner in files else _pick_weights(firsts, where)
    shards = [file for file in shard_names(weights) if file != weights]
    return [prefix + file for file in (weights, *shards, *CONFIGS) if file in here]


def _refuse_remote_code(repo_id: str, name: str, revision: str | None) -> None:
    """Refuse a PyTorch file with code inside by the names in its pickle, which is a small part of the file.

    Formats that are not zip files (PyTorch's before 1.6, saev's) are left to be judged once they are here.
    """
    from huggingface_hub import HfFileSystem

    if name.endswith(".safetensors"):
        return
    where = f"{repo_id}/{name}"
    with HfFileSystem().open(where, revision=revision, block_size=REMOTE_BLOCK) as file, reading_saved_modules():
        try:
            refused = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
        except UnpicklingError as error:
            raise contains_code(where, None) from error
        except (ValueError, struct.error):
            return
    if refused:
        raise contains_code(where, refused[0])


def _cached(repo_id: str, revision: str) -> Path | None:
    """The folder of an earlier download, whole or (which snapshot_download would not open) in part."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return None
    for repository in repositories:
        if repository.repo_type == "model" and repository.repo_id == repo_id:
            for found in repository.revisions:
                if revision == found.commit_hash or revision in found.refs:
                    return found.snapshot_path
    return None


def _unreachable(src: str, error: Exception) -> BlindspotError:
    return BlindspotError(
        f"{src} is not on this machine and could not be fetched from the Hugging Face hub ({type(error).__name__}); "
        "check the name and the connection, or give a local folder."
    )


@dataclass(frozen=True)
class Published:
    """The contents of a published dictionary."""

    where: str
    """Name of the weights file, for messages."""
    tensors: dict[str, Tensor]
    """The state dict, without the prefixes that DataParallel and torch.compile add."""
    config: dict[str, Any]
    """The JSON file beside the weights, overlaid with plain values saved next to the state dict."""
    header: dict[str, Any] | None = None
    """The JSON line in front of the weights (saev)."""
    taken: set[str] = field(default_factory=set, compare=False)
    """Names of the tensors that were read."""

    def take(self, key: str, *shape: int | None) -> Tensor:
        """The tensor named `key` as float32, checked against a shape (None: any size).

        Raises
        ------
        BlindspotError
            When it is missing, has another shape, or holds values that are not finite.
        """
        if key not in self.tensors:
            names = ", ".join(sorted(self.tensors)[:8]) or "nothing"
            raise BlindspotError(f"{self.where} has no tensor {key!r} (it holds {names}); check --kind and the file.")
        self.taken.add(key)
        tensor = self.tensors[key].detach().float()
        if len(tensor.shape) != len(shape) or any(
            size not in (None, found) for size, found in zip(shape, tensor.shape, strict=True)
        ):
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise BlindspotError(
                f"{self.where}: {key!r} has shape {list(tensor.shape)} where [{wanted}] belongs; "
                "check --kind and the file."
            )
        refuse_unusable(key, self.tensors[key] if tensor.ndim else tensor, self.where)
        return tensor

    def refuse_unread(self) -> None:
        """Refuse a dictionary of which a tensor was not read: without it the codes would be others.

        Raises
        ------
        BlindspotError
            With the tensors' names.
        """
        left = [name for name in sorted(self.tensors) if name not in self.taken and not harmless(name)]
        if left:
            raise BlindspotError(
                f"{self.where} holds tensors that no dictionary of its kind has ({', '.join(map(repr, left[:4]))}), so "
                "its codes would not be those of its authors; check --kind, or save the sparse autoencoder alone."
            )

    def setting(self, *names: str) -> Any:
        """The first of these keys that the configuration holds (tensors of one entry become numbers), or None."""
        for name in names:
            if self.config.get(name) is not None:
                value = self.config[name]
                return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
        return None


def read_source(source: Source) -> Published:
    """Read the weights and the configuration of a published dictionary.

    Raises
    ------
    BlindspotError
        When a file is unreadable, or holds pickled objects instead of tensors.
    """
    path = source.weights
    config = _read_config(source.config) if source.config else {}
    shards = shards_of(path)
    if path.suffix == ".safetensors":
        try:
            return Published(str(path), without_prefixes(merged((one, load_file(one)) for one in shards)), config)
        except (OSError, SafetensorError) as error:
            raise _unreadable(path) from error
    if len(shards) > 1:
        return Published(
            str(path), without_prefixes(merged((one, _split(one, _load(one, None))[0]) for one in shards)), config
        )
    header, rest = _open_header(path)
    tensors, extras = _split(path, _load(path, rest))
    return Published(str(path), tensors, {**config, **extras}, header)


def _open_header(path: Path) -> tuple[dict[str, Any] | None, io.BytesIO | None]:
    """The line of JSON that a file starts with and the rest of it; nothing where it starts otherwise."""
    try:
        with path.open("rb") as file:
            if file.peek(1)[:1] != b"{":
                return None, None
            return json.loads(file.readline()), io.BytesIO(file.read())
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path) from error


def _load(path: Path, buffer: io.BytesIO | None) -> Any:
    in_place = buffer is None and zipfile.is_zipfile(path)
    try:
        with warnings.catch_warnings(), reading_saved_modules() if in_place else nullcontext():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(buffer or path, map_location="cpu", weights_only=True, mmap=in_place)
    except UnpicklingError as error:
        refused = REFUSED.search(str(error))
        with path.open("rb") as file:
            bare_pickle = file.read(1) == PICKLE
        if not refused and not bare_pickle:
            raise _unreadable(path) from error
        raise contains_code(str(path), refused[1] if refused else None) from error
    except (OSError, EOFError, RuntimeError, ValueError, LookupError, AttributeError, TypeError, struct.error) as error:
        raise _unreadable(path) from error


def _split(path: Path, loaded: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state dict in what was loaded, and the plain values beside it."""
    if isinstance(loaded, SavedObject):
        tensors, said = flatten(loaded, str(path))
        return without_prefixes(tensors), said
    if not isinstance(loaded, dict):
        raise BlindspotError(
            f"{path} holds a {type(loaded).__name__}, not a state dict; save sae.state_dict() instead."
        )
    return unwrapped(loaded)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BlindspotError(f"{path} is not readable JSON; get an intact copy.") from error
    if not isinstance(read, dict):
        raise BlindspotError(f"{path} holds no JSON object; get the configuration that belongs to the weights.")
    return read


def _unreadable(path: Path) -> BlindspotError:
    return BlindspotError(f"{path} is not a readable safetensors or PyTorch file; get an intact copy.")
