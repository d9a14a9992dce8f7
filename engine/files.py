"""Files that are whole or absent, folders known by their contents, and a full disk said in one sentence."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import stat
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import numpy as np

from engine.errors import BlindspotError, printable

_CHECKOUT = Path(__file__).resolve().parents[1] / "data"
DATA = _CHECKOUT if (_CHECKOUT / "recipes").is_dir() else Path(sys.prefix) / "share" / "blindspot-atlas" / "data"
"""Recipes, the demo and measured results: in a checkout, or where pip put them."""
PARTIAL = ".partial"
"""Ending of a file that is being written; one that a killed run left behind is overwritten, ignored or deleted."""
_writer = ""
SYSTEM = ("/proc/", "/sys/", "/dev/")
"""Folders that hold no data but the machine itself; links into them are not followed."""
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""First characters, also in full width, with which a cell of text is a formula to spreadsheets."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def user_data() -> Path:
    """Return the folder where this project keeps what belongs to this user; it need not exist."""
    if os.name == "nt":
        shared = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        shared = Path.home() / "Library" / "Application Support"
    else:
        told = os.environ.get("XDG_DATA_HOME", "")
        shared = Path(told) if told.startswith("/") else Path.home() / ".local" / "share"
    return shared / "blindspot-atlas"


def regular_file(folder: Path, rel: str) -> Path:
    """`folder / rel`, once it is sure to be a regular file that no symbolic link below `folder` leads to.

    Raises
    ------
    FileNotFoundError
        If there is nothing.
    BlindspotError
        If a link is on the way, or it is a folder, pipe or device.
    """
    path = folder
    for part in PurePosixPath(rel).parts:
        path = path / part
        try:
            mode = os.lstat(path).st_mode
        except NotADirectoryError as error:
            raise FileNotFoundError(str(path)) from error
        if stat.S_ISLNK(mode):
            raise BlindspotError(f"{path} is a symbolic link, which is not followed: put a copy of the file there.")
    if not stat.S_ISREG(mode):
        raise BlindspotError(f"{path} is no regular file, so it is not opened: put the file itself there.")
    return path


def name_writer() -> None:
    """Give this process unfinished files of its own names, where another may write the same files at the same time."""
    global _writer
    _writer = f".{uuid.uuid4().hex[:12]}"


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a sibling of `path`, then move it into place, so that `path` is whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + _writer + PARTIAL)
    partial.unlink(missing_ok=True)
    try:
        write(partial)
        with open(partial, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """A document with None in place of numbers that JSON cannot express: NaN and the infinities."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys and `plain` numbers; a name that is no valid UTF-8 is kept in escapes."""
    text = json.dumps(plain(value), indent=1, sort_keys=True, ensure_ascii=False)
    # Bytes of a file name that are not UTF-8 are lone surrogates in Python, which JSON can only escape.
    text = re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)
    write_whole(path, lambda partial: partial.write_text(text + "\n", encoding="utf-8"))


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_array(path: Path, array: np.ndarray) -> None:
    """Write one array as .npy."""

    def write(partial: Path) -> None:
        # Not the handle itself: numpy would write past Python, and forget why a write failed (a full disk).
        with open(partial, "wb") as handle:
            np.save(SimpleNamespace(write=handle.write), array, allow_pickle=False)  # type: ignore[call-overload]

    write_whole(path, write)


class ArrayAppender:
    """Writes a one-dimensional array as .npy piece by piece, whole or not at all, as `write_array` would.

    Parameters
    ----------
    path : the file, which is there once `close` was called.
    dtype : of the array.
    """

    def __init__(self, path: Path, dtype: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.dtype, self._length = path, np.dtype(dtype), 0
        self._partial = path.with_name(path.name + PARTIAL)
        self._file = open(self._partial, "wb")  # noqa: SIM115
        self._write_header()

    def _write_header(self) -> None:
        # numpy leaves room in the header for the length of an array that grows.
        described = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self._length,),
        }
        np.lib.format.write_array_header_1_0(self._file, described)

    def append(self, piece: np.ndarray) -> None:
        """Add a piece [n]."""
        self._file.write(np.ascontiguousarray(piece, self.dtype).data)
        self._length += len(piece)

    def close(self) -> None:
        """Put the file in its place."""
        self._file.seek(0)
        self._write_header()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._partial, self.path)


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


def spreadsheet_safe(cell: Any) -> Any:
    """A table's cell as CSV: text that a spreadsheet would run as a formula gets an apostrophe before it (OWASP)."""
    return f"'{printable(cell)}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell


class KnownHashes:
    """Hashes of files that an earlier run computed, by what shows that a file is as it was: size, times and inode.

    A file that was changed within `FRESH` seconds before it was hashed is hashed again: it may change once more without
    its times telling.

    Parameters
    ----------
    path
        A JSON file, which need not exist; `save` writes it.
    """

    FRESH = 2.0

    def __init__(self, path: Path) -> None:
        self.path, self._changed = path, False
        try:
            found = read_json(path)
        except (OSError, ValueError):
            found = None
        self._hashes: dict[str, list[Any]] = found if isinstance(found, dict) else {}

    def hash(self, path: Path) -> str:
        """SHA-256 of a file, computed if it is not known."""
        try:
            found, key = os.stat(path), str(path)
        except OSError:
            return file_hash(path)
        mark = [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]
        known = self._hashes.get(key)
        if isinstance(known, list) and known[:-1] == mark and isinstance(known[-1], str):
            return known[-1]
        digest = file_hash(path)
        if time.time() - max(found.st_mtime, found.st_ctime) > self.FRESH and digest != "unreadable":
            self._hashes[key] = [*mark, digest]
            self._changed = True
        return digest

    def save(self) -> None:
        """Keep what was computed."""
        if self._changed:
            write_json(self.path, self._hashes)


_known: KnownHashes | None = None


@contextmanager
def known_hashes(path: Path) -> Iterator[None]:
    """Let `content_hash` use and keep the hashes in the JSON file `path`."""
    global _known
    before, _known = _known, KnownHashes(path)
    try:
        yield
    finally:
        found, _known = _known, before
        found.save()


def _input_hash(path: Path) -> str:
    return file_hash(path) if _known is None else _known.hash(path)


@lru_cache(maxsize=256)
def content_hash(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files of a folder, hidden ones left out.

    It is remembered while the process lives: one run sees one state of its inputs.
    """
    if path.is_file():
        return _input_hash(path)
    files = sorted(visible_files(path))
    with ThreadPoolExecutor() as pool:
        hashes = pool.map(_input_hash, (path / name for name in files))
        lines = [f"{name}\0{digest}\n" for name, digest in zip(files, hashes, strict=True)]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a regular file, or `unreadable`."""
    try:
        if not path.is_file():
            return "unreadable"
        with open(path, "rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError:
        return "unreadable"


def visible_files(folder: Path, left_out: dict[str, str] | None = None) -> Iterator[str]:
    """Relative paths, with `/`, of all files below a folder, without hidden files and folders.

    Links are followed, also out of the folder, for whoever keeps data links it from where it is; each folder is visited
    once and under its own name first, so that links in a circle end.

    Parameters
    ----------
    folder
        The folder.
    left_out
        Gets, by relative path, why a pipe, device, broken link, or folder was not visited.
    """
    left_out = {} if left_out is None else left_out
    parents = {_identity(parent) for parent in Path(os.path.realpath(folder)).parents}
    visited, links = {_identity(folder)}, [""]

    def refused(error: OSError) -> None:
        left_out[Path(os.path.relpath(error.filename, folder)).as_posix()] = f"cannot be opened: {error.strerror}"

    for link in links:
        if link:
            target = _identity(folder / link)
            if target in parents or target in visited or f"{os.path.realpath(folder / link)}/".startswith(SYSTEM):
                left_out[link] = "a link to a folder that is visited already, holds this one, or is the system's"
                continue
            visited.add(target)
        for root, folders, names in os.walk(folder / link, onerror=refused):
            below = Path(os.path.relpath(root, folder))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in list(folders):
                if os.path.islink(os.path.join(root, name)):
                    links.append((below / name).as_posix())
                    folders.remove(name)
                elif (found := _identity(Path(root, name))) in visited and link:
                    left_out[(below / name).as_posix()] = "a folder that is visited already"
                    folders.remove(name)
                else:
                    visited.add(found)
            for name in names:
                if name.startswith("."):
                    continue
                path = (below / name).as_posix()
                try:
                    regular = stat.S_ISREG(os.stat(os.path.join(root, name)).st_mode)
                except OSError as error:
                    left_out[path] = f"cannot be opened: {error.strerror}"
                    continue
                if regular:
                    yield path
                else:
                    left_out[path] = "a pipe, socket or device"


def _identity(path: Path) -> tuple[int, int]:
    """Device and inode: equal for all names of a folder."""
    try:
        found = os.stat(path)
    except OSError:
        return -1, -1
    return found.st_dev, found.st_ino


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
        cause: BaseException | None = error
        while cause is not None:
            if getattr(cause, "errno", None) in FULL or any(os.strerror(code) in str(cause) for code in FULL):
                raise BlindspotError(
                    f"The disk is full while writing to {where}; free some space and run the same command to go on."
                ) from error
            cause = cause.__cause__ or cause.__context__
        raise
