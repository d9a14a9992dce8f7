"""What of an atlas goes over the network, and how it is known to have arrived whole.

A published atlas is the atlas, with each folder of small pictures packed into one archive, and `published.json`, the
list of its files with sizes and SHA-256. Nothing is taken that the list does not name, no more bytes than it says, and
the atlas appears under its name only when all of it is there and `verify` finds nothing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from engine.atlas.reader import Atlas
from engine.atlas.schema import HEADER, contained
from engine.atlas.verify import verify
from engine.errors import BlindspotError
from engine.files import file_hash, full_disk_explained, read_json, write_json, write_whole
from precompute.sharing.places import Place, place

LIST = "published.json"
FORMAT = 1
LIST_BYTES = 64 << 20
"""Largest list that is read."""
CHUNK = 1 << 20
TRIES = 3
"""Of a file that does not arrive."""
SPARE = 100 << 20
"""Bytes that are left free on a disk."""
OnBytes = Callable[[int, int], None]
"""Called with the bytes that are here and all bytes."""


@dataclass(frozen=True)
class PublishedFile:
    """One file of a published atlas."""

    name: str
    """Where it lies; of an archive of pictures `FOLDER.zip`."""
    bytes: int
    sha256: str
    folder: str = ""
    """Of an archive, the folder of the atlas that it holds."""


def publish(atlas: Path, where: str) -> list[PublishedFile]:
    """Put an atlas at a place, see `place`, from where `fetch` brings it; what lies there under its names is replaced.

    Raises
    ------
    BlindspotError
        If the atlas is not whole, or nothing can be written there.
    """
    opened, target = Atlas.open(atlas), place(where)
    if problems := verify(atlas):
        raise BlindspotError(f"{atlas} is not whole, so it is not published ({problems[0]}): see `verify`.")
    with tempfile.TemporaryDirectory() as temporary:
        paths: dict[str, Path] = {}
        files = []
        for name, entry in sorted(opened.info.files.items()):
            if not name.endswith("/"):
                paths[name] = atlas / name
                files.append(PublishedFile(name, entry.bytes, entry.sha256))  # which `verify` has just found right
                continue
            packed = _packed(atlas / name, Path(temporary, f"{len(paths)}.zip"))
            paths[f"{name[:-1]}.zip"] = packed
            files.append(PublishedFile(f"{name[:-1]}.zip", packed.stat().st_size, file_hash(packed), name))
        header = atlas / HEADER
        files.append(PublishedFile(HEADER, header.stat().st_size, file_hash(header)))
        paths[HEADER] = header
        paths["README.md"] = Path(temporary, "README.md")
        paths["README.md"].write_text(_card(opened, where), encoding="utf-8")
        paths[LIST] = Path(temporary, LIST)  # the last: who finds it finds the others
        write_json(paths[LIST], {"format": FORMAT, "files": [asdict(one) for one in files]})
        target.put(paths)
    return files


def local_models(atlas: Path) -> list[str]:
    """Folders that the header names as models: they are no part of the atlas, and are not published."""
    header = read_json(atlas / HEADER)
    named = [header.get("encoder"), header.get("prior"), header.get("judge"), *(header.get("pipelines") or {}).values()]
    found = [str(one.get("id") or one.get("pipeline") or "") for one in named if isinstance(one, dict)]
    return sorted({ref for ref in found if ref and (ref.startswith((".", "/")) or (atlas / ref).exists())})


def fetch(where: str, out: Path, on_bytes: OnBytes = lambda done, total: None) -> Path:
    """Bring a published atlas to the folder `out`; what an interrupted run has brought is not brought again.

    Raises
    ------
    BlindspotError
        If there is none at that place, it does not arrive as it is listed, `out` holds something else, or the disk is
        too small.
    """
    source = place(where)
    listed = _read_list(source, where)
    header = next(one for one in listed if one.name == HEADER)
    if out.exists():
        if (out / HEADER).is_file() and file_hash(out / HEADER) == header.sha256:
            return out
        raise BlindspotError(f"{out} exists and is not that atlas: name another folder with --out.")
    part = out.with_name(f"{out.name}.part")
    total = sum(one.bytes for one in listed)
    with full_disk_explained(out):
        part.mkdir(parents=True, exist_ok=True)
        _clear(part, listed)
        here = [one for one in listed if _arrived(part / one.name, one)]
        done, missing = sum(one.bytes for one in here), [one for one in listed if one not in here]
        needed = sum(one.bytes * (2 if one.folder else 1) for one in missing)
        if needed + SPARE > (free := shutil.disk_usage(part).free):
            raise BlindspotError(f"{where} takes {needed >> 20:,} MiB, and {free >> 20:,} MiB are free at {out}.")
        on_bytes(done, total)
        for one in missing:
            _bring(source, where, one, part / one.name, partial(_report, on_bytes, done, total))
            done += one.bytes
        for one in listed:
            if one.folder:
                _unpack(part / one.name, part / one.folder, where)
        for one in listed:
            if one.folder:
                (part / one.name).unlink()
        if problems := verify(part):
            raise BlindspotError(f"The atlas at {where} is not whole: {problems[0]}; what came is at {part}.")
        part.rename(out)
    return out


def _report(on_bytes: OnBytes, before: int, total: int, more: int) -> None:
    on_bytes(before + more, total)


def _read_list(source: Place, where: str) -> list[PublishedFile]:
    """The files of a published atlas, each at a name inside it."""
    try:
        with source.open(LIST) as file:
            content = file.read(LIST_BYTES + 1)
    except FileNotFoundError as error:
        raise BlindspotError(f"There is no published atlas at {where}: it has no {LIST}.") from error
    except OSError as error:
        raise BlindspotError(f"{where} cannot be reached: {_line(error)}.") from error
    try:
        document = json.loads(content)
        if document["format"] != FORMAT:
            raise BlindspotError(f"The atlas at {where} was published by a newer version: update this one.")
        files = [PublishedFile(**{name: one[name] for name in ("name", "bytes", "sha256", "folder")})
                 for one in document["files"]]  # fmt: skip
        sound = all(
            contained(one.name) and (not one.folder or contained(one.folder)) and type(one.bytes) is int
            and one.bytes >= 0 and isinstance(one.sha256, str)
            for one in files
        )  # fmt: skip
        if len(content) > LIST_BYTES or not sound or HEADER not in {one.name for one in files}:
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BlindspotError(f"The {LIST} at {where} is damaged: publish the atlas again.") from error
    return files


def _arrived(path: Path, one: PublishedFile) -> bool:
    return path.is_file() and path.stat().st_size == one.bytes and file_hash(path) == one.sha256


def _clear(part: Path, listed: list[PublishedFile]) -> None:
    """Remove what an earlier run brought of an atlas that was published anew since."""
    names = {one.name for one in listed}
    for path in [path for path in part.rglob("*") if path.is_file() or path.is_symlink()]:
        if path.relative_to(part).as_posix() not in names:
            path.unlink()


def _bring(source: Place, where: str, one: PublishedFile, path: Path, on_more: Callable[[int], None]) -> None:
    """Copy one file, whole or not at all."""

    def write(unfinished: Path) -> None:
        digest, done = hashlib.sha256(), 0
        with source.open(one.name) as read, unfinished.open("wb") as written:
            while piece := read.read(min(CHUNK, one.bytes - done + 1)):
                done += len(piece)
                if done > one.bytes:
                    raise BlindspotError(f"{one.name} at {where} is larger than its list says: it was changed.")
                digest.update(piece)
                written.write(piece)
                on_more(done)
        if done < one.bytes:
            raise OSError(f"{done:,} of {one.bytes:,} bytes came")
        if digest.hexdigest() != one.sha256:
            raise BlindspotError(f"{one.name} at {where} is not what its list says: it was changed.")

    path.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(TRIES):
        try:
            write_whole(path, write)
            return
        except FileNotFoundError as error:
            raise BlindspotError(f"{one.name} is missing at {where}: publish the atlas again.") from error
        except OSError as error:
            if error.errno is not None and error.filename is not None:  # of this machine's disk
                raise
            if attempt == TRIES - 1:
                raise BlindspotError(
                    f"{one.name} does not arrive from {where} ({_line(error)}); run the same command to go on."
                ) from error


def _packed(folder: Path, path: Path) -> Path:
    """The pictures of a folder in one archive, the same bytes each time."""
    with zipfile.ZipFile(path, "w") as archive:
        for picture in sorted(folder.iterdir()):
            archive.writestr(zipfile.ZipInfo(picture.name), picture.read_bytes())
    return path


def _unpack(path: Path, folder: Path, where: str) -> None:
    """Take the pictures out of an archive, no more of them than its size allows: they are stored as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:  # entries may overlap
                raise zipfile.BadZipFile
            for entry in archive.infolist():
                if entry.compress_type != zipfile.ZIP_STORED or "/" in entry.filename or not contained(entry.filename):
                    raise zipfile.BadZipFile
                (folder / entry.filename).write_bytes(archive.read(entry))
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise BlindspotError(f"{path.name} at {where} is no archive of pictures: publish the atlas again.") from error


def _card(atlas: Atlas, where: str) -> str:
    """A page that says what lies there and how to open it."""
    info = atlas.info
    rows = "".join(f"| {source.name} | {source.alias} | {source.images:,} |\n" for source in info.sources)
    return (
        f"# {info.name}\n\n{info.description}\n\n| source | | images |\n| --- | --- | --- |\n{rows}\n"
        f"{info.concepts:,} concepts. An atlas of Blindspot Atlas; open it by\n\n    blindspot-atlas app {where}\n"
    )


def _line(error: Any) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
