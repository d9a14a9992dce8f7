"""Checks every file of an atlas: header, checksums, tables, matrices, thumbnails, and that they fit each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.atlas import analysis_checks, checks, schema
from engine.atlas.reader import Atlas
from engine.atlas.schema import FileEntry
from engine.atlas.storage import manifest
from engine.errors import BlindspotError


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with an atlas."""

    file: str
    """The file or folder, relative to the atlas."""
    message: str
    """What is wrong with it."""

    def __str__(self) -> str:
        return f"{self.file}: {self.message}"


def verify(path: str | os.PathLike[str]) -> list[Problem]:
    """Everything that is wrong with the atlas at `path`; empty when it is whole.

    Reads every byte once. Damage is reported, never raised: a missing, truncated or changed file, a row or image too
    few, codes out of order, a pair or an exemplar that points nowhere.
    """
    try:
        atlas = Atlas.open(path)
    except BlindspotError as error:
        return [Problem(schema.HEADER, str(error))]
    return [
        *_files(atlas.path, atlas.info.files),
        *_run("atlas.json", lambda: checks.header(atlas.info)),
        *(problem for name, check in checks.TABLES.items() for problem in _table(atlas, name, check)),
        *(problem for source in atlas.sources for problem in _source(atlas, source.name)),
        *_run(schema.REPORT, lambda: checks.report_agrees(atlas.path, atlas.info)),
        *_run(schema.table_file("divergence"), lambda: analysis_checks.divergence_agrees(atlas)),
        *_run(schema.COMPOSITION, lambda: analysis_checks.composition(atlas)),
        *_run("thumbs/", lambda: checks.thumbs(atlas.path, atlas.info.images)),
        *_run("gallery/", lambda: checks.gallery(atlas.path)),
        *_run("images.faiss", lambda: checks.index(atlas.path / "images.faiss", atlas.info.images)),
        *_run("atoms.faiss", lambda: checks.index(atlas.path / "atoms.faiss", atlas.info.concepts)),
    ]


def _files(root: Path, listed: dict[str, FileEntry]) -> Iterator[Problem]:
    present = manifest(root)
    for rel, entry in sorted(listed.items()):
        if not schema.contained(rel):
            yield Problem(schema.HEADER, f"lists {rel!r}, which lies outside the atlas")
        elif rel not in present:
            yield Problem(rel, "is listed in the header but missing")
        elif present[rel].bytes != entry.bytes:
            yield Problem(rel, f"has {present[rel].bytes} bytes instead of {entry.bytes}")
        elif present[rel].sha256 != entry.sha256:
            yield Problem(rel, "has another content than was written (its SHA-256 differs)")
        elif present[rel].rows != entry.rows:
            yield Problem(rel, f"has {present[rel].rows} rows instead of {entry.rows}")
    for rel in sorted(present.keys() - listed.keys()):
        yield Problem(rel, "is not listed in the header")


def _table(atlas: Atlas, name: str, check: checks.TableCheck) -> Iterable[Problem]:
    rel = schema.table_file(name)
    optional = schema.OPTIONAL_TABLES | (schema.IMAGE_TABLES if atlas.info.published else set())
    if name in optional and not (atlas.path / rel).exists():
        return ()
    return _run(rel, lambda: check(checks.exact_table(atlas.path, name), atlas.info))


def _source(atlas: Atlas, source: str) -> Iterator[Problem]:
    if atlas.info.published and not any(atlas.has(f"{kind}/{source}") for kind in schema.CSR_VALUES):
        return
    for kind in schema.CSR_VALUES:
        rel = f"{kind}/{source}"
        yield from _run(rel, lambda rel=rel: checks.matrix(atlas.path / rel, atlas.info, rel))
    yield from _run(f"energy/{source}", lambda: checks.energies_agree(atlas.path, atlas.info, source))


def _run(file: str, check: Callable[[], Iterable[str]]) -> Iterator[Problem]:
    """The complaints of one check; an error while it runs is one more."""
    try:
        for message in check():
            yield Problem(file, message)
    except (BlindspotError, OSError, ValueError, IndexError, KeyError, TypeError) as error:
        yield Problem(file, str(error))
