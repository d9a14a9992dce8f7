"""Who is near whom: concepts that fire together, that have similar atoms, or that lie close on the map."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np

from engine.atlas.schema import NEIGHBOUR_KINDS, REAL
from engine.atlas.tables import neighbours_table
from engine.atlas.writer import AtlasWriter
from engine.blindspots.cooccurrence import cooccurrence_neighbours, squared_norms
from engine.blindspots.rows import BLOCK, Rows
from engine.files import read_arrays, write_arrays
from precompute.runner import Context, Progress, Stage
from precompute.stages.dictionary import atoms_of
from precompute.stages.encode import read_spec
from precompute.stages.energies import stored_codes
from precompute.stages.layout import concept_map, unit

NEIGHBOURS = 16
"""Kept per concept and kind."""
TABLE = "neighbours.npz"


class Near(NamedTuple):
    """For each concept, its nearest others, best first."""

    others: np.ndarray
    """int32 `[concepts, count]`, -1 where there are no more."""
    values: np.ndarray
    """float32 `[concepts, count]`; larger is nearer."""


class NeighboursStage(Stage):
    """`index`: the nearest concepts of every concept, of each kind."""

    unit = "tables"

    def __init__(self, context: Context) -> None:
        super().__init__(context, "index", after=("dictionary", "layout", f"energies/{REAL}"))

    def run(self, folder: Path, progress: Progress) -> dict[str, int]:
        """Write `neighbours.npz`."""
        context = self.context
        tokens = read_spec(context.folder(f"encode/{REAL}")).tokens
        found = find_neighbours(stored_codes(context, REAL), atoms_of(context), concept_map(context).xy, tokens)
        arrays = {f"{kind}_{part}": array for kind, near in found.items() for part, array in near._asdict().items()}
        write_arrays(folder / TABLE, **arrays)
        return {"neighbours": int(sum((near.others >= 0).sum() for near in found.values()))}

    @classmethod
    def add_to_atlas(cls, context: Context, writer: AtlasWriter) -> None:
        """Write the table `neighbours`."""
        stored = read_arrays(context.folder("index") / TABLE)
        found = {kind: Near(stored[f"{kind}_others"], stored[f"{kind}_values"]) for kind in NEIGHBOUR_KINDS}
        writer.write_table("neighbours", neighbours_table(found))


def find_neighbours(codes: Rows, atoms: np.ndarray, xy: np.ndarray, tokens: int = 1) -> dict[str, Near]:
    """Find the neighbours of every live concept, by kind.

    Parameters
    ----------
    codes : token codes of the real images, `[tokens, concepts]`.
    atoms : `[concepts, dim]`.
    xy : the concept map, `[concepts, 2]`.
    tokens : per image; those of some images are read at once.
    """
    step = BLOCK * tokens
    live = np.flatnonzero(squared_norms(codes, step))
    return {
        "cooccurrence": Near(*cooccurrence_neighbours(codes, NEIGHBOURS, step)),
        "atom": nearest(unit(atoms), live, faiss.IndexFlatIP),
        "map": nearest(xy, live, faiss.IndexFlatL2),
    }


def nearest(rows: np.ndarray, live: np.ndarray, index: type[faiss.Index]) -> Near:
    """The nearest of the live rows to each of them, exactly.

    Parameters
    ----------
    rows : `[concepts, dim]`.
    live : positions of the rows that are compared; the others get no neighbours.
    index : FAISS's inner-product or L2 index; with L2 the value is minus the distance.
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
