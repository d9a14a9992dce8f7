"""Adds the analyses beyond delta to an atlas that was built without them: divergence, composition, changes, metrics."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pandas as pd

from engine.atlas import Atlas
from engine.atlas.schema import COMPOSITION, TABLES, table_file
from engine.atlas.tables import divergence_table
from precompute.stages.composition import compose_model, compose_real
from precompute.stages.divergence import measure_pairs
from precompute.stages.metrics import compare_halves, compare_model


def add_analyses(path: Path) -> Path:
    """Measure them with the stages' own functions and write them into the atlas at `path`."""
    atlas = Atlas.open(path)
    live, tokens = ~atlas.concepts["dead"].to_numpy(), atlas.info.tokens
    index = faiss.read_index(str(path / "images.faiss"))
    vectors = index.reconstruct_n(0, index.ntotal)
    energy, codes, embedding = {}, {}, {}
    for source in atlas.sources:
        energy[source.name], codes[source.name] = atlas.energy(source.name), atlas.codes(source.name).rows()
        embedding[source.name] = vectors[list(atlas.info.image_range(source.name))]
    spaces = {name: {"encoder": embedding[name], "concepts": energy[name]} for name in energy}
    divergence, changes = [], []
    real = compose_real(codes["real"], tokens, _silent)
    curves, metrics = real.stored("real"), compare_halves(spaces["real"], _silent)
    for model in atlas.models:
        start = atlas.info.image_range(model).start
        pair_index = np.arange(energy[model].shape[0]) if atlas.info.source(model).paired else np.full(0, -1)
        sides = [(found["real"], found[model]) for found in (energy, embedding, codes)]
        found = measure_pairs(sides[0], sides[1], pair_index, live, 0.8)
        own = found.rows, start + found.rows, found.rows
        divergence.append(divergence_table(model, *own, found.divergence, found.nearest, found.similarity, found.p))
        composition, changed = compose_model(model, sides[2], tokens, pair_index, real, _silent)
        changes.append(changed)
        curves |= composition.stored(model)
        metrics += compare_model(model, spaces["real"], spaces[model], pair_index, _silent)
    for name, rows in (("divergence", pd.concat(divergence)), ("changes", pd.concat(changes)), ("metrics", metrics)):
        pd.DataFrame(rows)[TABLES[name].names].to_parquet(path / table_file(name), schema=TABLES[name], index=False)
    np.savez(path / COMPOSITION, **curves)
    return path


def _silent(done: int, total: int) -> None:
    """Nobody watches."""
