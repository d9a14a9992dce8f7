"""The concept map: concepts that fire in the same real images lie close together.

A concept's profile is its row of image energies, log(1 + energy), divided by its norm, reduced to 100 components. Exact
cosine neighbours (FAISS) of the profiles feed UMAP (McInnes et al. 2018), which is seeded and so gives the same map
each time. Tiny dictionaries and profiles that are nearly all the same, for which UMAP has no neighbourhoods, are laid
out by their principal components; concepts that nothing tells apart, in a circle.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
from scipy import sparse

from engine.atlas.schema import REAL
from engine.blindspots.rows import Rows, row_blocks
from engine.files import read_arrays, write_arrays
from precompute.recipe import LayoutConfig
from precompute.runner import Context, Progress, Stage, fingerprint_fields
from precompute.stages.dictionary import atoms_of
from precompute.stages.energies import stored_energy

COMPONENTS = 100
"""Dimensions of a profile, at most."""
WHOLE, FEW = 10_000, 2
"""Images up to which, or live concepts up to which, the profiles are reduced in memory."""
BLOCK = 2048
"""Images read at once."""
OVERSAMPLES, ITERATIONS = 10, 5
"""Of the reduction by blocks, as scikit-learn has them."""
SMALL = 15
"""Fewer live concepts, or fewer different profiles, than this are laid out by principal components."""
SAME = 1e-6
"""Distance up to which profiles, or places, are the same."""
MAP = "map.npz"


class ConceptMap(NamedTuple):
    """Where each concept is."""

    xy: np.ndarray
    """float32 `[concepts, 2]`, centred, within about -10..10."""
    cluster: np.ndarray
    """int32 `[concepts]`, 0 for the largest cluster."""


class LayoutStage(Stage):
    """`layout`: the concept map."""

    unit = "maps"

    def __init__(self, context: Context) -> None:
        params = fingerprint_fields(context.recipe.layout)
        super().__init__(context, "layout", params, ("dictionary", f"energies/{REAL}"))

    def run(self, folder: Path, progress: Progress) -> dict[str, int]:
        """Write `map.npz`."""
        context = self.context
        found = concept_layout(stored_energy(context, REAL), atoms_of(context), context.recipe.layout)
        write_arrays(folder / MAP, **found._asdict())
        return {"clusters": int(found.cluster.max()) + 1}


def concept_map(context: Context) -> ConceptMap:
    """The finished map."""
    return ConceptMap(**read_arrays(context.folder("layout") / MAP))


def concept_layout(energy: Rows, atoms: np.ndarray, config: LayoutConfig) -> ConceptMap:
    """Place the concepts of a dictionary.

    Parameters
    ----------
    energy : energies of the real images, `[images, concepts]`, in memory or on disk.
    atoms : `[concepts, dim]`; a concept that fires in no real image is placed on the one with the most similar atom.
    config : seed, neighbours, spacing and number of clusters.
    """
    norms = _profile_norms(energy)
    live = np.flatnonzero(norms)
    xy, cluster = np.zeros((energy.shape[1], 2), np.float32), np.zeros(energy.shape[1], np.int32)
    if len(live) == 0:
        return ConceptMap(xy, cluster)
    if energy.shape[0] <= WHOLE or len(live) <= FEW:
        whole = sparse.vstack([block[:, live] for _, block in row_blocks(energy, BLOCK)], format="csr")
        profiles = concept_profiles(whole, config.seed)
    else:
        profiles = profiles_by_blocks(energy, live, norms, config.seed)
    xy[live] = framed(_plane(profiles, config))
    cluster[live] = clusters(xy[live], config)
    silent = np.setdiff1d(np.arange(energy.shape[1]), live)
    if len(silent):
        nearest = live[(unit(atoms[silent]) @ unit(atoms[live]).T).argmax(axis=1)]
        xy[silent], cluster[silent] = xy[nearest], cluster[nearest]
    return ConceptMap(xy, cluster)


def _plane(profiles: np.ndarray, config: LayoutConfig) -> np.ndarray:
    """Places of concepts, finite and not all the same, `[concepts, 2]`."""
    if len(np.unique(np.round(profiles / SAME), axis=0)) >= SMALL:
        places = umap_plane(profiles, config)
        if np.isfinite(places).all():
            return places
    places = principal_plane(profiles)
    if np.isfinite(places).all() and np.ptp(places, axis=0).max() > SAME:
        return places
    angles = np.linspace(0, 2 * np.pi, len(profiles), endpoint=False)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def concept_profiles(energy: sparse.csr_matrix, seed: int) -> np.ndarray:
    """Unit vectors `[concepts, components]` whose cosines are those of the concepts' log energies, nearly."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.preprocessing import normalize

    rows = energy.T.tocsr().astype(np.float64)
    rows.data = np.log1p(rows.data)
    rows = normalize(rows)
    components = min(COMPONENTS, min(rows.shape) - 1)
    if components < 2:
        return np.ascontiguousarray(np.pad(rows.toarray(), ((0, 0), (0, 2))), dtype=np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):  # of the share of variance, where there is none
        reduced = TruncatedSVD(components, random_state=seed).fit_transform(rows)
    return unit(reduced)


def _profile_norms(energy: Rows) -> np.ndarray:
    """Norm of every concept's log energies, float64 `[concepts]`; 0 of those that fire nowhere."""
    total = np.zeros(energy.shape[1])
    for _, block in row_blocks(energy, BLOCK):
        squares = np.log1p(block.data.astype(np.float64)) ** 2
        total += np.bincount(block.indices, squares, minlength=len(total))
    return np.sqrt(total)


def profiles_by_blocks(energy: Rows, live: np.ndarray, norms: np.ndarray, seed: int) -> np.ndarray:
    """`concept_profiles` of the live concepts of many images, which are read some at a time, once for every product.

    With R the concepts' unit profiles over the images, subspace iteration on R R^T (Halko, Martinsson and Tropp 2011,
    "Finding structure with randomness", algorithms 4.4 and 5.1) needs products R (R^T Y) only.
    """

    def blocks() -> Iterator[sparse.csr_matrix]:
        for _, block in row_blocks(energy, BLOCK):
            block = block[:, live].astype(np.float64)
            block.data = np.log1p(block.data) / norms[live][block.indices]
            yield block

    random = np.random.default_rng(seed)
    components = min(COMPONENTS, min(energy.shape[0], len(live)) - 1)
    width = min(components + OVERSAMPLES, len(live))
    sketch = np.zeros((len(live), width))
    for block in blocks():
        sketch += block.T @ random.standard_normal((block.shape[0], width))
    for _ in range(ITERATIONS):
        basis = np.linalg.qr(sketch)[0]
        sketch = np.zeros_like(basis)
        for block in blocks():
            sketch += block.T @ (block @ basis)
    basis, small = np.linalg.qr(sketch)[0], np.zeros((width, width))
    for block in blocks():
        seen = block @ basis
        small += seen.T @ seen
    variances, turn = np.linalg.eigh(small)
    best = np.argsort(-variances)[:components]
    return unit(basis @ turn[:, best] * np.sqrt(np.maximum(variances[best], 0)))


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows divided by their norms, float32; zero rows stay zero."""
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def principal_plane(profiles: np.ndarray) -> np.ndarray:
    """The two principal components of the profiles, `[concepts, 2]`, with signs fixed."""
    centred = profiles - profiles.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = np.vstack([axes, np.zeros((2, centred.shape[1]))])[:2]
    axes *= np.where(np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1) < 0, -1, 1)
    return centred @ axes.T


def umap_plane(profiles: np.ndarray, config: LayoutConfig) -> np.ndarray:
    """UMAP of the profiles in two dimensions, `[concepts, 2]`."""
    import umap

    count = min(config.neighbours, len(profiles) - 1)
    similarity, indices = exact_neighbours(profiles, count)
    distances = np.clip(1 - similarity, 0, None)
    reducer = umap.UMAP(
        n_neighbors=count,
        min_dist=config.min_dist,
        metric="cosine",
        random_state=config.seed,
        n_jobs=1,
        precomputed_knn=(indices.astype(np.int64), distances.astype(np.float32)),
        init="spectral" if len(profiles) > 4 * count else "pca",
    )
    # In a thread of its own: numba's OpenMP pool raises the number of threads of whoever starts it, for torch as well.
    with warnings.catch_warnings(), ThreadPoolExecutor(1) as aside:
        warnings.filterwarnings("ignore", message="precomputed_knn", category=UserWarning)
        return aside.submit(reducer.fit_transform, profiles).result()


def exact_neighbours(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and indices `[rows, count]` of the nearest unit rows, each row itself first."""
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    similarity, indices = index.search(rows, count + 1)
    for row in range(len(rows)):
        order = np.argsort(indices[row] != row, kind="stable")
        similarity[row], indices[row] = similarity[row][order], indices[row][order]
    return similarity[:, :count], indices[:, :count]


def framed(points: np.ndarray) -> np.ndarray:
    """Points moved and scaled alike in x and y to lie in -10..10."""
    points = np.asarray(points, np.float64)
    points = points - (points.max(axis=0) + points.min(axis=0)) / 2
    return (points * (10 / max(np.abs(points).max(), 1e-12))).astype(np.float32)


def clusters(points: np.ndarray, config: LayoutConfig) -> np.ndarray:
    """k-means clusters of the map `[concepts]`, numbered from the largest."""
    from sklearn.cluster import KMeans

    count = min(config.clusters, len(np.unique(points, axis=0)))
    found = KMeans(count, n_init=4, random_state=config.seed).fit_predict(points)
    rank = np.argsort(np.argsort(-np.bincount(found, minlength=count), kind="stable"), kind="stable")
    return rank[found].astype(np.int32)
