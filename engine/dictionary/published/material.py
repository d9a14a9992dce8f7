"""What a published file holds, read without running anything that it contains.

Tensors come from safetensors, or from `torch.load(weights_only=True)`, whose reader knows tensors, numbers, strings and
plain containers, and here the parts of whole modules of overcomplete (see `modules`); every other object is refused
before it is built.
"""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from engine.dictionary.published.modules import Standin, flatten, with_standins
from engine.dictionary.published.refusals import refuse_code
from engine.dictionary.published.sources import Source
from engine.errors import BlindspotError

WRAPPERS = ("state_dict", "model_state_dict", "model", "sae")
PREFIXES = ("module.", "_orig_mod.")
REFUSED = re.compile(r"GLOBAL ([\w.]+)")
"""How the weights-only reader names what it refused to build."""

PICKLE = b"\x80"
"""First byte of a bare pickle, which may hold what that reader cannot even name."""


@dataclass(frozen=True)
class Material:
    """The contents of a published dictionary."""

    where: str
    """Name of the weights file, for messages."""

    tensors: dict[str, Tensor]
    """The state dict, without the prefixes that DataParallel and torch.compile add."""

    config: dict[str, Any]
    """The JSON file beside the weights, overlaid with plain values saved next to the state dict."""

    header: dict[str, Any] | None = None
    """The JSON line in front of the weights (saev)."""

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
        tensor = self.tensors[key].detach().float()
        wrong = len(tensor.shape) != len(shape) or any(
            size not in (None, found) for size, found in zip(shape, tensor.shape, strict=False)
        )
        if wrong:
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise BlindspotError(
                f"{self.where}: {key!r} has shape {list(tensor.shape)} where [{wanted}] belongs; "
                "check --kind and the file."
            )
        if not torch.isfinite(tensor).all():
            raise BlindspotError(f"{self.where}: {key!r} holds values that are not finite; get an intact copy.")
        return tensor

    def setting(self, *names: str) -> Any:
        """The first of these keys that the configuration holds (tensors of one entry become numbers), or None."""
        for name in names:
            if self.config.get(name) is not None:
                value = self.config[name]
                return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
        return None


def read_material(source: Source) -> Material:
    """Read the weights and the configuration of a published dictionary.

    Raises
    ------
    BlindspotError
        When a file is unreadable, or holds pickled objects instead of tensors.
    """
    path = source.weights
    config = _read_json(source.config) if source.config else {}
    if path.suffix == ".safetensors":
        try:
            return Material(str(path), _bare(load_file(path)), config)
        except (OSError, SafetensorError) as error:
            raise _unreadable(path) from error
    header, rest = _open_header(path)
    tensors, extras = _split(path, _load(path, rest))
    return Material(str(path), _bare(tensors), {**config, **extras}, header)


def _open_header(path: Path) -> tuple[dict[str, Any] | None, io.BytesIO | None]:
    """The line of JSON that a file starts with and the rest of it; nothing where it starts otherwise."""
    try:
        if not _starts_with(path, b"{"):
            return None, None
        with path.open("rb") as file:
            header = json.loads(file.readline())
            return header, io.BytesIO(file.read())
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path) from error


def _starts_with(path: Path, start: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(start)) == start


def _load(path: Path, buffer: io.BytesIO | None) -> Any:
    in_place = buffer is None and zipfile.is_zipfile(path)
    try:
        with warnings.catch_warnings(), with_standins() if in_place else nullcontext():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(buffer or path, map_location="cpu", weights_only=True, mmap=in_place)
    except UnpicklingError as error:
        refused = REFUSED.search(str(error))
        if not refused and not _starts_with(path, PICKLE):
            raise _unreadable(path) from error
        raise refuse_code(str(path), refused[1] if refused else None) from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
        raise _unreadable(path) from error


def _split(path: Path, loaded: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state dict in what was loaded, and the plain values beside it."""
    if isinstance(loaded, Standin):
        return flatten(loaded, str(path))
    if not isinstance(loaded, dict):
        raise BlindspotError(
            f"{path} holds a {type(loaded).__name__}, not a state dict; save sae.state_dict() instead."
        )
    inner = next((loaded[name] for name in WRAPPERS if isinstance(loaded.get(name), dict)), loaded)
    tensors = {str(name): value for name, value in inner.items() if isinstance(value, Tensor)}
    extras = {} if inner is loaded else {k: v for k, v in loaded.items() if v is not inner}
    return tensors, extras


def _bare(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _read_json(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BlindspotError(f"{path} is not readable JSON; get an intact copy.") from error
    if not isinstance(read, dict):
        raise BlindspotError(f"{path} holds no JSON object; get the configuration that belongs to the weights.")
    return read


def _unreadable(path: Path) -> BlindspotError:
    return BlindspotError(f"{path} is not a readable safetensors or PyTorch file; get an intact copy.")
