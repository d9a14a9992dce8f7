"""The list of an atlas's files with their SHA-256, size and rows: written into the header, compared by `verify`.

A folder of thumbnails or of drawn images is one entry: tens of thousands of pictures would drown the header. Its
checksum is taken over the sorted names and checksums of its files.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from engine.atlas.schema import HEADER, FileEntry

PICTURES = ("thumbs", "gallery")
"""Folders of folders of pictures."""
_BLOCK = 1 << 20


def manifest(root: Path) -> dict[str, FileEntry]:
    """Describe every file under `root` but the header, by its path relative to `root`, sorted.

    A file whose rows cannot be read (a truncated table) is listed without rows.
    """
    entries: dict[str, FileEntry] = {}
    for path in sorted(root.rglob("*")):
        rel = path.relative_to(root).as_posix()
        if path.is_dir():
            if path.parent.name in PICTURES and path.parent.parent == root:
                entries[rel + "/"] = _folder_entry(path)
        elif rel != HEADER and rel.split("/")[0] not in PICTURES:
            entries[rel] = FileEntry(_sha256(path), path.stat().st_size, _rows(path))
    return entries


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _folder_entry(folder: Path) -> FileEntry:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    lines = "".join(f"{path.name} {_sha256(path)}\n" for path in files)
    return FileEntry(hashlib.sha256(lines.encode()).hexdigest(), sum(p.stat().st_size for p in files), len(files))


def _rows(path: Path) -> int | None:
    """Rows of a parquet table, length of an npy array's first axis, None for any other file."""
    try:
        if path.suffix == ".parquet":
            return pq.read_metadata(path).num_rows
        if path.suffix == ".npy":
            return int(np.load(path, mmap_mode="r", allow_pickle=False).shape[0])
    except (OSError, ValueError, IndexError):
        return None
    return None
