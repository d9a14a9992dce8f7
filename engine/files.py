"""Files that are whole or absent, folders known by their contents, and a full disk said in one sentence."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import BlindspotError

_CHECKOUT = Path(__file__).resolve().parents[1] / "data"
DATA = _CHECKOUT if (_CHECKOUT / "recipes").is_dir() else Path(sys.prefix) / "share" / "blindspot-atlas" / "data"
"""Recipes, the demo and measured results: in a checkout, or where pip put them."""
PARTIAL = ".partial"
"""Ending of a file that is being written; one that a killed run left behind is overwritten or ignored."""
FULL = (errno.ENOSPC, errno.EDQUOT)


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a sibling of `path`, then move it into place, so that `path` is whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL)
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
    write_whole(path, lambda partial: partial.write_text(text + "\n", encoding="utf-8"))


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_array(path: Path, array: np.ndarray) -> None:
    """Write one array as .npy."""

    def write(partial: Path) -> None:
        with open(partial, "wb") as handle:
            np.save(handle, array, allow_pickle=False)

    write_whole(path, write)


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write named arrays as .npz, not compressed."""

    def write(partial: Path) -> None:
        with open(partial, "wb") as handle:
            np.savez(handle, allow_pickle=False, **arrays)

    write_whole(path, write)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what `write_arrays` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


@lru_cache(maxsize=256)
def content_hash(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files of a folder, hidden ones left out.

    It is remembered while the process lives: one run sees one state of its inputs.
    """
    if path.is_file():
        return file_hash(path)
    files = sorted(visible_files(path))
    with ThreadPoolExecutor() as pool:
        hashes = pool.map(file_hash, (path / name for name in files))
        lines = [f"{name}\0{digest}\n" for name, digest in zip(files, hashes, strict=True)]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file, or `unreadable`."""
    try:
        with open(path, "rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError:
        return "unreadable"


def visible_files(folder: Path) -> Iterator[str]:
    """Relative paths, with `/`, of all files below a folder, without hidden files and folders."""
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                yield Path(os.path.relpath(os.path.join(root, name), folder)).as_posix()


@contextmanager
def full_disk_explained(where: Path) -> Iterator[None]:
    """Turn any library's way of saying that the disk is full into one sentence.

    Raises
    ------
    BlindspotError
        If something written inside did not fit.
    """
    try:
        yield
    except BlindspotError:
        raise
    except Exception as error:
        text = str(error)
        if getattr(error, "errno", None) in FULL or any(os.strerror(code) in text for code in FULL):
            raise BlindspotError(
                f"The disk is full while writing to {where}; free some space and run the same command to go on."
            ) from error
        raise
