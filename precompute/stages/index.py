"""Who is near whom: concepts that fire together, that have similar atoms, or that lie close on the map."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
from scipy import sparse

from engine.blindspots.cooccurrence import cooccurrence_neighbours
from engine.files import write_arrays
from precompute.stages.layout import unit

NEIGHBOURS = 16
"""Kept per concept and kind."""
TABLE = "neighbours.npz"
KINDS = ("cooccurrence", "atom", "map")


class Near(NamedTuple):
    """For each concept, its nearest others, best first."""

    others: np.ndarray
    """int32 `[concepts, count]`, -1 where there are no more."""
    values: np.ndarray
    """float32 `[concepts, count]`; larger is nearer."""


def find_neighbours(codes: sparse.csr_matrix, atoms: np.ndarray, xy: np.ndarray, folder: Path) -> dict[str, int]:
    """Find the neighbours of every live concept and keep them in the stage's folder.

    Args:
        codes: token codes of the real images, `[tokens, concepts]`.
        atoms: `[concepts, dim]`.
        xy: the concept map, `[concepts, 2]`.
        folder: the stage's folder.
    """
    live = np.flatnonzero(np.bincount(codes.indices, minlength=codes.shape[1]))
    found = {
        "cooccurrence": Near(*cooccurrence_neighbours(codes, NEIGHBOURS)),
        "atom": nearest(unit(atoms), live, faiss.IndexFlatIP),
        "map": nearest(xy, live, faiss.IndexFlatL2),
    }
    arrays = {f"{kind}_{part}": array for kind, near in found.items() for part, array in near._asdict().items()}
    write_arrays(folder / TABLE, **arrays)
    return {"neighbours": int(sum((near.others >= 0).sum() for near in found.values()))}


def read_neighbours(folder: Path) -> dict[str, Near]:
    """Read what `find_neighbours` kept, by kind."""
    with np.load(folder / TABLE) as stored:
        return {kind: Near(stored[f"{kind}_others"], stored[f"{kind}_values"]) for kind in KINDS}


def nearest(rows: np.ndarray, live: np.ndarray, index: type[faiss.Index]) -> Near:
    """The nearest of the live rows to each of them, exactly.

    Args:
        rows: `[concepts, dim]`.
        live: positions of the rows that are compared; the others get no neighbours.
        index: FAISS's inner-product or L2 index; with L2 the value is minus the distance.
    """
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    others = np.full((len(rows), NEIGHBOURS), -1, np.int32)
    values = np.zeros((len(rows), NEIGHBOURS), np.float32)
    count = min(NEIGHBOURS, len(live) - 1)
    if count < 1:
        return Near(others, values)
    search = index(rows.shape[1])
    search.add(rows[live])
    found, positions = search.search(rows[live], count + 1)
    if search.metric_type == faiss.METRIC_L2:
        found = -np.sqrt(np.maximum(found, 0))
    for own, concept in enumerate(live):
        keep = np.flatnonzero(positions[own] != own)[:count]
        others[concept, :count], values[concept, :count] = live[positions[own][keep]], found[own][keep]
    return Near(others, values)
