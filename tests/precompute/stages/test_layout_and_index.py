"""Concepts that fire together lie together, and neighbours are the nearest."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
import torch
from scipy import sparse

from precompute.recipe import LayoutConfig
from precompute.stages.layout import (
    _profile_norms,
    clusters,
    concept_layout,
    concept_profiles,
    exact_neighbours,
    framed,
    profiles_by_blocks,
    unit,
)
from precompute.stages.neighbours import find_neighbours, nearest


def grouped_energy(groups: int, concepts: int, images: int = 40) -> sparse.csr_matrix:
    """Concepts g, g + groups, ... fire in the images g, g + groups, ..., `[images, concepts]`."""
    rng = np.random.default_rng(0)
    same = (np.arange(images)[:, None] - np.arange(concepts)[None, :]) % groups == 0
    return sparse.csr_matrix(same * rng.uniform(1, 5, (images, concepts)))


def separation(xy: np.ndarray, groups: int) -> float:
    """Smallest distance between concepts of different groups, over the largest within one."""
    distance = np.linalg.norm(xy[:, None] - xy[None], axis=-1)
    group = np.arange(len(xy)) % groups
    same = group[:, None] == group[None]
    return distance[~same].min() / distance[same].max()


def test_a_tiny_dictionary_is_laid_out_by_its_principal_components():
    energy = grouped_energy(2, 8)
    found = concept_layout(energy, np.eye(8), LayoutConfig(clusters=2))
    assert separation(found.xy, 2) > 1 and np.abs(found.xy).max() == pytest.approx(10)
    assert len(set(found.cluster[::2])) == 1 and found.cluster[0] != found.cluster[1]
    assert (found.xy == concept_layout(energy, np.eye(8), LayoutConfig(clusters=2)).xy).all()


@pytest.mark.slow
def test_a_larger_dictionary_is_laid_out_by_umap_the_same_each_time():
    energy = grouped_energy(3, 60, images=90)
    part = LayoutConfig(neighbours=8, clusters=3)
    threads = torch.get_num_threads()
    found, again = (concept_layout(energy, np.eye(60), part) for _ in range(2))
    assert torch.get_num_threads() == threads
    assert separation(found.xy, 3) > 0.5 and (found.xy == again.xy).all()
    assert (found.cluster[:3] == found.cluster[3:6]).all() and len(set(found.cluster)) == 3


def test_a_silent_concept_lies_on_the_one_with_the_most_similar_atom():
    energy = grouped_energy(2, 6).tolil()
    energy[:, 5] = 0
    atoms = np.eye(6)
    atoms[5] = atoms[2] + 0.1 * atoms[3]
    found = concept_layout(energy.tocsr(), atoms, LayoutConfig(clusters=2))
    assert (found.xy[5] == found.xy[2]).all() and found.cluster[5] == found.cluster[2]


@pytest.mark.parametrize("live", [0, 1, 2])
def test_next_to_no_live_concepts_are_laid_out_too(live: int):
    energy = np.zeros((5, 4))
    energy[1, :live] = 1
    found = concept_layout(sparse.csr_matrix(energy), np.eye(4), LayoutConfig())
    assert np.isfinite(found.xy).all() and found.xy.shape == (4, 2)


def test_a_row_is_its_own_first_neighbour_even_among_copies():
    rows = unit(np.array([[1, 0], [1, 0], [0, 1.0]]))
    similarity, indices = exact_neighbours(rows, 2)
    assert indices[:, 0].tolist() == [0, 1, 2] and similarity[:2, 1].tolist() == [1, 1]


def test_the_frame_keeps_proportions():
    np.testing.assert_allclose(framed(np.array([[0, 0], [4, 2.0]])), [[-10, -5], [10, 5]])


def test_clusters_are_numbered_from_the_largest():
    points = np.array([[0, 0.0]] * 2 + [[9, 9.0]] * 5)
    assert clusters(points, LayoutConfig(clusters=2)).tolist() == [1, 1, 0, 0, 0, 0, 0]


def test_neighbours_are_the_nearest_live_ones():
    codes = sparse.csr_matrix(np.array([[1, 2, 0, 0], [2, 4, 0, 0], [0, 0, 0, 1.0]]))
    atoms = np.array([[1, 0], [0, 1], [1, 0.1], [0.9, 0.1]])
    xy = np.array([[0, 0], [3, 4], [0, 0], [0, 1.0]])
    found = find_neighbours(codes, atoms, xy)
    assert found["cooccurrence"].others[0, 0] == 1 and found["cooccurrence"].values[0, 0] == pytest.approx(1)
    assert found["atom"].others[0, :3].tolist() == [3, 1, -1]
    assert found["map"].others[0, :3].tolist() == [3, 1, -1] and found["map"].values[0, 1] == pytest.approx(-5)
    assert (found["atom"].others[2] == -1).all()


def test_one_live_concept_has_no_neighbours():
    assert (nearest(np.eye(3), np.array([1]), faiss.IndexFlatIP).others == -1).all()


@pytest.mark.parametrize("images", [1, 2, 8])
@pytest.mark.parametrize("concepts", [1, 2, 3, 16, 40])
@pytest.mark.parametrize("kind", ["same", "random", "one", "huge"])
def test_the_map_is_finite_however_little_there_is_to_lay_out(images: int, concepts: int, kind: str):
    random = np.random.default_rng(0)
    energy = np.abs(random.normal(size=(images, concepts))).astype(np.float32)
    energy = {"same": np.tile(energy[:, :1], concepts), "huge": energy * 1e30}.get(kind, energy)
    energy[:, 1 if kind == "one" else concepts :] = 0
    found = concept_layout(sparse.csr_matrix(energy), random.normal(size=(concepts, 5)), LayoutConfig())
    assert np.isfinite(found.xy).all() and np.abs(found.xy).max() <= 10 + 1e-4
    if kind == "same":
        assert len(np.unique(found.xy, axis=0)) == concepts


def test_the_profiles_of_many_images_read_by_blocks_have_the_same_cosines():
    random = np.random.default_rng(0)
    kinds = random.integers(0, 6, 30)
    energy = sparse.csr_matrix(random.gamma(1, 1, (5000, 30)) * (random.integers(0, 6, (5000, 1)) == kinds))
    whole = concept_profiles(energy, 0)
    blocks = profiles_by_blocks(energy, np.arange(30), _profile_norms(energy), 0)
    np.testing.assert_allclose(blocks @ blocks.T, whole @ whole.T, atol=1e-5)
