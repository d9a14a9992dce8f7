"""Published `__enriched.json` files as an atlas: map, ranking, co-occurrence and comparison, and nothing made up.

What the files do not hold is absent or null in the atlas: images, codes, energies of single images, standard errors,
and with them intervals, p and q. The header's `origin` lists the files, what is missing and what was assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engine.atlas import AtlasInfo, AtlasWriter, Source
from engine.atlas.schema import REAL
from engine.errors import BlindspotError
from engine.files import file_hash
from precompute.saediff.enriched import Connections, Enriched, read_enriched
from precompute.saediff.sides import MOSTLY, Sides, find_sides
from precompute.saediff.tables import (
    check_base,
    concepts_table,
    cooccurrence_rows,
    delta_table,
    energies_table,
    image_links,
    near_on_map_rows,
    published_table,
)

KIND = "saediff"
MISSING = ("images", "codes", "energies of single images", "standard errors, intervals, p and q", "encoder", "words")
NUMBER_OF = {
    "real": "the real images' mean energies: they agree with energy_diff and relative_energy_diff",
    "model": "each model's own mean energies: they agree with energy_diff and relative_energy_diff",
    "other": "not the compared images' (they do not fit energy_diff and relative_energy_diff, and may be ImageNet's): "
    "kept as a published number",
    "absent": "not in the files",
}


@dataclass(frozen=True)
class Imported:
    """What became of the files.

    Attributes
    ----------
    concepts, live : number of concepts, and of those that are on the map.
    models : their names in the atlas.
    connections, links : rows of co-occurrences and of image links.
    assumed : per topic, one sentence.
    missing : what the files do not hold.
    """

    out: str
    concepts: int
    live: int
    models: tuple[str, ...]
    connections: int
    links: int
    assumed: dict[str, str]
    missing: tuple[str, ...]


def import_saediff(
    paths: Sequence[Path], out: Path, *, names: Sequence[str] = (), images_url: str | None = None
) -> Imported:
    """Write the atlas of published files, replacing the one at `out`.

    Parameters
    ----------
    paths : one file per model, all of one dictionary and the same real images.
    names : the models' names, one per file; by default from the files' names.
    images_url : base address of the images (see `tables`); without it the atlas has no links.

    Raises
    ------
    BlindspotError
        If a file is not what it should be, or the files contradict each other or themselves.
    """
    if images_url is not None:
        check_base(images_url)
    if names and len(names) != len(paths):
        raise BlindspotError(f"{len(names)} names for {len(paths)} files: give --name once per file, in their order.")
    files = [read_enriched(path) for path in paths]
    sources = _sources(files, names)
    _check_dictionary(files)
    sides = find_sides(files)
    if sides.energy != "model":
        _check_alike(files, "energy")
    dead = np.any([file.dead for file in files], axis=0)
    hidden = ~dead & ~_complete(files, sides)
    live = ~(dead | hidden)
    connections = next((file.connections for file in files if file.connections is not None), None)
    links = None if images_url is None else image_links(files, [source.name for source in sources[1:]], images_url)
    assumed = _assumptions(files, sides, connections, int(hidden.sum()), links is not None)
    neighbours = pd.concat(
        [cooccurrence_rows(connections, live), near_on_map_rows(files[0].xy, live)], ignore_index=True
    )
    with AtlasWriter(out) as writer:
        writer.write_table("concepts", concepts_table(files[0].xy, live))
        writer.write_table("energies", energies_table(sources, sides))
        writer.write_table("delta", delta_table(sources, files, sides))
        writer.write_table("neighbours", neighbours)
        writer.write_table("published", published_table(files, sides))
        if links is not None and len(links):
            writer.write_table("links", links)
        writer.finish(_info(out.name, files, sources, assumed))
    return Imported(
        out=str(out),
        concepts=len(live),
        live=int(live.sum()),
        models=tuple(source.name for source in sources[1:]),
        connections=int((neighbours["kind"] == "cooccurrence").sum()),
        links=0 if links is None else len(links),
        assumed=assumed,
        missing=MISSING,
    )


def _sources(files: Sequence[Enriched], names: Sequence[str]) -> tuple[Source, ...]:
    called = list(names) or [file.key for file in files]
    if REAL in called or len(set(called)) != len(called):
        raise BlindspotError(
            f"The models would be called {', '.join(called)}: give each file another --name, and none '{REAL}'."
        )
    models = (Source(name, "model", name, 0) for name in called)
    return (Source(REAL, "real", "Real images", 0), *models)


def _check_dictionary(files: Sequence[Enriched]) -> None:
    """Raise `BlindspotError` unless the files are about the same concepts."""
    for file in files[1:]:
        if len(file.gap) != len(files[0].gap):
            raise BlindspotError(
                f"{files[0].path} has {len(files[0].gap)} concepts and {file.path} {len(file.gap)}: they are of "
                "different dictionaries, import them one by one."
            )
    _check_alike(files, "xy")
    _check_alike(files, "fires")


def _check_alike(files: Sequence[Enriched], name: str) -> None:
    """Raise `BlindspotError` unless an array that belongs to the dictionary is the same in every file that has it."""
    having = [file for file in files if getattr(file, name) is not None]
    for file in having[1:]:
        a, b = getattr(having[0], name), getattr(file, name)
        same = float(np.isclose(a, b, rtol=0.02, atol=1e-3, equal_nan=True).mean())
        if same < MOSTLY:
            published = {"xy": "umap_x and umap_y", "fires": "nb_fire"}.get(name, name)
            raise BlindspotError(
                f"{having[0].path} and {file.path} differ in {published} for {1 - same:.0%} of the concepts: they are "
                "not of one dictionary and the same real images, import them one by one."
            )


def _complete(files: Sequence[Enriched], sides: Sides) -> np.ndarray:
    """[K] whether the concept has a place on the map and an energy in every source."""
    known = [np.isfinite(files[0].xy).all(axis=1), np.isfinite(sides.real)]
    return np.all([*known, *(np.isfinite(model) for model in sides.models)], axis=0)


def _assumptions(
    files: Sequence[Enriched], sides: Sides, connections: Connections | None, hidden: int, linked: bool
) -> dict[str, str]:
    how = "the numbers confirm it" if sides.checked else "the authors' definition, which one file alone cannot confirm"
    both = any(file.relative is not None for file in files)
    ratio = "energy_diff over the sum of both energies, so the two arrays give both energies"
    assumed = {
        "energy_diff": f"mean energy of the model minus that of the real images ({how})",
        "relative_energy_diff": ratio if both else "not in the files; energy is taken as the real images'",
        "energy": NUMBER_OF[sides.energy],
        "nb_fire": "how often the concept fired, in images that the files do not name; no share of images follows",
        "connections": "how strongly concepts occur together, of images and in a unit that the files do not name"
        if connections
        else "not in the files",
        "images": "the best real image is that of the first file; the two images of a pair are in one folder"
        if linked
        else "not linked, no --images-url was given",
    }
    if hidden:
        assumed["left out"] = f"{hidden} concepts without a place on the map or without energies, shown as dead"
    return assumed


def _info(name: str, files: Sequence[Enriched], sources: tuple[Source, ...], assumed: dict[str, str]) -> AtlasInfo:
    origin: dict[str, Any] = {
        "kind": KIND,
        "files": [
            {"model": source.name, "file": file.path.name, "sha256": file_hash(file.path)}
            for source, file in zip(sources[1:], files, strict=True)
        ],
        "missing": list(MISSING),
        "assumed": assumed,
    }
    return AtlasInfo(
        name=name,
        description="Statistics published by the authors of Conceptual Blindspots.",
        encoder={},
        dictionary={"concepts": len(files[0].gap)},
        sources=sources,
        origin=origin,
    )
