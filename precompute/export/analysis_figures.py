"""The figures of an atlas's analyses beyond delta: single images and pairs of concepts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from engine.atlas import Atlas
from engine.atlas.schema import HALVES, REAL
from engine.blindspots.divergence import BINS
from engine.blindspots.spectrum import Spectrum, eigenvector_similarity, subspace_overlap
from engine.errors import BlindspotError
from engine.figures import composition, divergence

LEVEL = 0.01
"""Level at which a copy is confirmed, as in `engine.blindspots.divergence`."""
CHANGED = 30
"""Pairs of concepts in the figure of changes."""


def analysis_drawings(atlas: Atlas) -> dict[str, Callable[[], go.Figure]]:
    """Per file name without its ending, what draws the figure."""
    named = {
        "divergence": partial(histograms, atlas),
        "composition_l0": partial(l0, atlas),
        "composition_unique": partial(unique, atlas),
        "composition_spectrum": partial(spectra, atlas),
    }
    for model in atlas.models:
        named[f"copies_{model}"] = partial(copies, atlas, model)
        named[f"directions_{model}"] = partial(directions, atlas, model)
        named[f"changes_{model}"] = partial(changes, atlas, model)
    return named


def histograms(atlas: Atlas) -> go.Figure:
    """The divergence of every paired model."""
    paired = [model for model in atlas.models if atlas.info.source(model).paired]
    if not paired:
        raise BlindspotError(f"No model of the atlas {atlas.path} shares captions with the real images.")
    l2 = {model: atlas.divergence(model)["l2"] for model in paired}
    edges = np.histogram_bin_edges(np.concatenate(list(l2.values())), BINS)
    counts = {model: np.histogram(values, edges)[0] for model, values in l2.items()}
    return divergence.divergence_histograms(edges, counts, {model: values.median() for model, values in l2.items()})


def copies(atlas: Atlas, model: str) -> go.Figure:
    """Divergence against the similarity of the nearest real image."""
    rows = atlas.divergence(model).rename(columns={"nearest_real_similarity": "similarity"})
    return divergence.memorisation_scatter(rows.assign(confirmed=rows["p"] <= LEVEL), model=model, level=LEVEL)


def l0(atlas: Atlas) -> go.Figure:
    """The L0 curve of every source."""
    found = {source.name: atlas.composition(source.name) for source in atlas.sources}
    curves = pd.DataFrame({name: one.l0 for name, one in found.items()}, found[REAL].eps)
    return composition.l0_curves(curves, images=_images(atlas))


def unique(atlas: Atlas) -> go.Figure:
    """The share of every model's entries that reality lacks, beside that of a real half."""
    real = atlas.composition(REAL)
    shares = {HALVES: real.reference} | {model: atlas.composition(model).unique for model in atlas.models}
    images = {name: count for name, count in _images(atlas).items() if name != REAL}
    return composition.unique_shares(
        pd.DataFrame(shares, real.eps), images=images, baseline=HALVES, half=real.images // 2
    )


def spectra(atlas: Atlas) -> go.Figure:
    """The leading eigenvalues of every source, per image."""
    found = {source.name: atlas.composition(source.name) for source in atlas.sources}
    values = pd.DataFrame({name: one.eigenvalues / one.images for name, one in found.items()})
    return composition.spectra(values.set_axis(values.index + 1), images=_images(atlas))


def directions(atlas: Atlas, model: str) -> go.Figure:
    """The model's leading directions against the real ones."""
    real, drawn = (Spectrum(found.eigenvalues, found.eigenvectors) for found in map(atlas.composition, (REAL, model)))
    similarity = eigenvector_similarity(real, drawn)
    overlap = float(subspace_overlap(similarity)[-1])
    return composition.similarity_heat(similarity, overlap, model=model, images=_images(atlas, model))


def changes(atlas: Atlas, model: str) -> go.Figure:
    """The pairs of concepts that changed most."""
    rows = atlas.changes(model).head(CHANGED)
    if not len(rows):
        raise BlindspotError(f"No two concepts share tokens often enough in {model!r} to say what changed.")
    return composition.changed_cooccurrence(rows, model=model, images=_images(atlas, model))


def _images(atlas: Atlas, *models: str) -> dict[str, int]:
    names = (REAL, *(models or atlas.models))
    return {name: atlas.info.source(name).images for name in names}
