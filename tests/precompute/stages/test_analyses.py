"""The stages of divergence, composition and metrics where sources are small, unpaired or full of copies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from engine.blindspots.cooccurrence import cooccurrence_blocks, cooccurrence_matrix
from engine.blindspots.metrics import frechet_distance
from precompute.stages.composition import compose_model, compose_real, halves_unique, thresholds
from precompute.stages.divergence import measure_pairs, nearest_other
from precompute.stages.metrics import chosen, compare_halves, compare_model, instead_of, real_halves

TOKENS, CONCEPTS = 6, 20


def silent(done: int, total: int) -> None:
    """Nobody watches."""


def codes_of(images: int, seed: int) -> sparse.csr_matrix:
    rng = np.random.default_rng(seed)
    return sparse.random(images * TOKENS, CONCEPTS, 0.3, "csr", np.float32, rng, lambda size: 0.1 + rng.random(size))


def energy_of(codes: sparse.csr_matrix) -> sparse.csr_matrix:
    images = codes.shape[0] // TOKENS
    summing = sparse.csr_matrix(
        (np.ones(codes.shape[0], np.float32), np.arange(codes.shape[0]), TOKENS * np.arange(images + 1))
    )
    return sparse.csr_matrix(summing @ codes)


def unit(images: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(images, 8)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_a_copy_of_another_real_image_is_named_and_judged():
    energies = energy_of(codes_of(40, 0)), energy_of(codes_of(3, 1))
    real = unit(40, 2)
    drawn = np.stack([real[17], *unit(2, 3)])
    live = np.ones(CONCEPTS, bool)
    found = measure_pairs(energies, (real, drawn), np.array([4, -1, 9]), live, 0.8)
    assert found.rows.tolist() == [0, 2] and found.nearest[0] == 17
    assert (
        found.similarity[0] == pytest.approx(1, abs=1e-6) and found.p[0] == pytest.approx(1 / 41) and found.p[1] > 0.1
    )
    difference = energies[1].toarray()[[0, 2]] - energies[0].toarray()[[4, 9]]
    np.testing.assert_allclose(found.l2, np.linalg.norm(difference, axis=1), rtol=1e-5)


def test_a_model_without_pairs_and_a_single_real_image_are_no_error():
    energy, live = energy_of(codes_of(1, 0)), np.ones(CONCEPTS, bool)
    assert len(measure_pairs((energy, energy), (unit(1, 0),) * 2, np.array([-1]), live, 0.8).rows) == 0
    found = measure_pairs((energy, energy), (unit(1, 0),) * 2, np.array([0]), live, 0.8)
    assert found.l2.tolist() == [0] and found.p.tolist() == [1]


def test_a_duplicate_is_the_nearest_other_image():
    vectors = unit(12, 5)
    vectors[3] = vectors[8] = vectors[0]
    cosine = vectors @ vectors.T
    np.fill_diagonal(cosine, -1)
    np.testing.assert_allclose(nearest_other(vectors), cosine.max(axis=1), atol=1e-6)


def test_thresholds_rise_from_the_weak_entries_beyond_the_strongest():
    eps = thresholds(codes_of(10, 0), TOKENS)
    entries = cooccurrence_matrix(codes_of(10, 0)).sums / 10
    np.testing.assert_array_equal(eps[[0, -1]], [np.quantile(entries, 0.01), 2 * entries.max()])
    assert (np.diff(eps) > 0).all() and entries.min() <= eps[0] < np.median(entries) < entries.max() < eps[-1]
    assert (np.diff(thresholds(sparse.csr_matrix((4, CONCEPTS)), 1)) > 0).all()


def test_halves_that_share_no_pair_of_concepts_are_wholly_unique():
    """Image i shows concepts 2i and 2i + 1 together: no two images have an entry in common."""
    images = 8
    rows, columns = np.repeat(TOKENS * np.arange(images), 2), np.arange(2 * images)
    codes = sparse.csr_matrix((np.ones(2 * images, np.float32), (rows, columns)), (images * TOKENS, CONCEPTS))
    eps = np.array([1e-4, 1e-2, 2.0])
    np.testing.assert_array_equal(halves_unique(codes, TOKENS, eps), [1, 1, np.nan])
    assert np.isnan(halves_unique(codes[: 3 * TOKENS], TOKENS, eps)).all()


def test_a_model_equal_to_reality_changed_nothing():
    codes = codes_of(400, 0)
    real = compose_real(codes, TOKENS, silent)
    twin, changes = compose_model("twin", (codes, codes), TOKENS, np.arange(400), real, silent)
    assert (twin.unique[~np.isnan(twin.unique)] == 0).all()
    np.testing.assert_array_equal(real.l0, twin.l0)
    np.testing.assert_array_equal(real.eps, twin.eps)
    assert len(changes) and (changes["real_cosine"] == changes["model_cosine"]).all() and (changes["p"] == 1).all()


def test_metrics_of_a_model_equal_to_reality():
    features = {"encoder": unit(24, 1), "concepts": energy_of(codes_of(24, 1))}
    for row in compare_model("twin", features, features, np.arange(24), silent):
        assert row["fid"] == pytest.approx(0, abs=1e-4) and row["precision"] == row["recall"] == row["coverage"] == 1
        assert row["fid_half"] > 0.1 and row["images"] == 24


def test_a_model_that_repeats_reality_has_the_fid_of_the_real_halves_at_their_size():
    """In place of the second half its own images are drawn, so the two agree to rounding."""
    features = {"concepts": energy_of(codes_of(24, 1))}
    (halves,) = compare_halves(features, silent)
    (twin,) = compare_model("twin", features, features, np.arange(24), silent)
    assert halves["fid"] == halves["fid_half"] == pytest.approx(twin["fid_half"])
    first, second = real_halves(24)
    assert twin["fid_half"] == pytest.approx(
        frechet_distance(features["concepts"][first], features["concepts"][second]).distance
    )


def test_too_few_images_have_no_metrics_instead_of_an_error():
    features = {"encoder": unit(3, 1), "concepts": energy_of(codes_of(3, 1))}
    one = {"encoder": unit(1, 2), "concepts": energy_of(codes_of(1, 2))}
    rows = compare_halves(features, silent) + compare_model("one", features, one, np.array([-1]), silent)
    assert len(rows) == 4 and all(np.isnan(row[name]) for row in rows for name in ("fid", "fid_half", "precision"))


def test_large_sources_are_compared_on_a_sample_of_the_same_captions():
    partner = np.random.default_rng(0).permutation(50)
    real, drawn = chosen(50, partner, 20)
    assert len(set(drawn)) == 20 and (partner[drawn] == real).all()
    assert [len(rows) for rows in chosen(50, np.full(30, -1), 20)] == [20, 20]
    assert [len(rows) for rows in chosen(50, partner, None)] == [50, 50]
    first, second = real_halves(50, 10)
    assert len(first) == len(second) == 10 and not set(first) & set(second)


def test_a_half_is_replaced_by_its_own_captions_or_by_as_many_random_images():
    half = np.array([1, 4, 5])
    assert instead_of(half, np.array([5, 0, 1, 4])).tolist() == [0, 2, 3]
    drawn = instead_of(half, np.full(9, -1))
    assert len(drawn) == len(set(drawn)) == 3 and drawn.max() < 9
    assert len(instead_of(half, np.array([-1, 4]))) == 0


def test_a_composition_per_image_is_that_of_numpy(monkeypatch):
    """Z has one row per image; the matrix is summed in blocks of three of its rows."""
    monkeypatch.setattr(cooccurrence_blocks, "__defaults__", (64, 3 * CONCEPTS))
    energies = [sparse.csr_matrix(energy_of(codes_of(60, seed))) for seed in (0, 1)]
    real = compose_real(energies[0], 1, silent)
    model, changes = compose_model("m", tuple(energies), 1, np.arange(60), real, silent)
    z, other = (matrix.toarray().astype(np.float64) for matrix in energies)
    gram, drawn = z.T @ z, other.T @ other
    entries = gram[np.triu_indices(CONCEPTS)]
    entries = entries[entries > 0] / 60
    np.testing.assert_allclose(real.eps[[0, -1]], [np.quantile(entries, 0.01), 2 * entries.max()])
    np.testing.assert_array_equal(real.l0, [(gram / 60 > eps).sum() for eps in real.eps])
    for number, eps in enumerate(real.eps):
        above = drawn / 60 > eps
        expected = np.mean(gram[above] / 60 <= eps) if above.any() else np.nan
        np.testing.assert_allclose(model.unique[number], expected)
    assert (real.tokens, real.images, real.entries) == (60, 60, np.count_nonzero(gram))
    np.testing.assert_allclose(real.eigenvalues, np.linalg.eigvalsh(gram)[::-1], rtol=1e-6)
    first, second = changes["first"].to_numpy(), changes["second"].to_numpy()
    for name, matrix in (("real_cosine", gram), ("model_cosine", drawn)):
        norms = np.sqrt(np.diag(matrix))
        np.testing.assert_allclose(changes[name], matrix[first, second] / norms[first] / norms[second], rtol=1e-6)
    np.testing.assert_array_equal(changes["real_tokens"], ((z > 0).T.astype(int) @ (z > 0))[first, second])
    np.testing.assert_array_equal(changes["real_tokens"], changes["real_images"])
    products = other[:, first] * other[:, second] - z[:, first] * z[:, second]
    np.testing.assert_allclose(changes["gap"], products.mean(axis=0), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(changes["se"], products.std(axis=0, ddof=1) / np.sqrt(60), rtol=1e-6)
