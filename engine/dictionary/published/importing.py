"""Turn what others published into a dictionary folder of ours, and say what had to be assumed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from engine.dictionary.base import WEIGHTS, Dictionary
from engine.dictionary.published import linear_libraries
from engine.dictionary.published.conversion import Imported, Options
from engine.dictionary.published.overcomplete import read_overcomplete
from engine.dictionary.published.reading import SUFFIXES, Published, find_source, read_source
from engine.errors import BlindspotError


class Reader(NamedTuple):
    """How the files of one library are read, and recognised by their configuration and the names of their tensors."""

    read: Callable[[Published, Options], Imported]
    matches: Callable[[Published], bool]


READERS = {
    "saev": Reader(linear_libraries.read_saev, lambda given: given.header is not None),
    "dictionary_learning": Reader(
        linear_libraries.read_dictionary_learning,
        lambda given: isinstance(given.config.get("trainer"), dict) and "dict_class" in given.config["trainer"],
    ),
    "saelens": Reader(
        linear_libraries.read_saelens,
        lambda given: {"d_in", "d_sae"} <= given.config.keys() and {"W_enc", "W_dec"} <= given.tensors.keys(),
    ),
    "sparsify": Reader(
        linear_libraries.read_sparsify,
        lambda given: {"encoder.weight", "W_dec", "b_dec"} <= given.tensors.keys(),
    ),
    "overcomplete": Reader(
        read_overcomplete, lambda given: any(name.startswith("dictionary.") for name in given.tensors)
    ),
}
"""By kind; `auto` asks them in this order."""
AUTO = "auto"


@dataclass(frozen=True)
class ImportReport:
    """What was imported, JSON-ready with `dataclasses.asdict`."""

    source: str
    kind: str
    """The library that wrote it."""
    dictionary: str
    """Our kind of dictionary."""
    dim: int
    concepts: int
    sparsity: int
    assumed: dict[str, str]
    """By topic, how the file was understood."""


def read_published(src: str, kind: str = AUTO, options: Options | None = None) -> tuple[Imported, str]:
    """Read a published dictionary; nothing in the files is ever run.

    Parameters
    ----------
    src
        A file, a folder, or a hub id (see `find_source`).
    kind
        The library that wrote it, a key of `READERS`, or `auto`; the one found is returned.
    options
        What the files do not say.

    Raises
    ------
    BlindspotError
        When nothing is there, it holds code, its format is unknown, or it does not fit together.
    """
    if kind not in (AUTO, *READERS):
        raise BlindspotError(f"There is no published kind {kind!r}; choose one of {AUTO}, {', '.join(READERS)}.")
    published = read_source(find_source(src))
    if kind == AUTO:
        found = next((name for name, reader in READERS.items() if reader.matches(published)), None)
        if found is None:
            names = ", ".join(sorted(published.tensors)[:8]) or "none"
            raise BlindspotError(
                f"{published.where} is in no known format (its tensors: {names}); give --kind, one of "
                f"{', '.join(READERS)}."
            )
        kind = found
    imported = READERS[kind].read(published, options or Options())
    published.refuse_unread()
    return imported, kind


def open_dictionary(source: str | Path) -> Dictionary:
    """Open a dictionary: a folder of ours, or what others published, as a file, a folder or a hub id.

    Raises
    ------
    BlindspotError
        See `Dictionary.from_pretrained` and `read_published`.
    """
    folder = Path(source).expanduser()
    foreign = folder.is_dir() and any(path.suffix in SUFFIXES for path in folder.iterdir())
    if (folder / WEIGHTS).exists() or (folder.is_dir() and not foreign):
        return Dictionary.from_pretrained(folder)
    return _convert(str(source), AUTO, None)[0]


def import_dictionary(src: str, out: str | Path, kind: str = AUTO, options: Options | None = None) -> ImportReport:
    """Write a published dictionary as a folder of ours, whole or not at all; `config.json` records the report.

    Raises
    ------
    BlindspotError
        See `read_published`; also when `out` is not empty.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BlindspotError(f"{out} is not an empty folder; give a new one for the imported dictionary.")
    made, report = _convert(src, kind, options)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        made.save_pretrained(partial)
        partial.chmod(0o755)
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return report


def _convert(src: str, kind: str, options: Options | None) -> tuple[Dictionary, ImportReport]:
    """A published dictionary as ours, and what was assumed, which it also carries."""
    imported, kind = read_published(src, kind, options)
    made = imported.dictionary
    made.require_finite(src)
    report = ImportReport(src, kind, made.kind, made.dim, made.concepts, made.sparsity, imported.assumed)
    made.origin = {"source": report.source, "kind": kind, "assumed": report.assumed}
    return made, report
