import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

from engine.blindspots.composition import change_evidence, changed_pairs
from engine.blindspots.cooccurrence import cooccurrence_matrix

TOKENS = 4
NONE = np.zeros(0, int)


def random_codes(seed: int, images: int = 12, concepts: int = 7) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = (images * TOKENS, concepts)
    return np.float32(rng.integers(1, 5, shape) * (rng.random(shape) < 0.35))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_the_list_agrees_with_a_loop_over_all_pairs_of_concepts(seed, least):
    dense = random_codes(seed).astype(float), random_codes(seed + 1).astype(float)
    found = changed_pairs(*(cooccurrence_matrix(sparse.csr_matrix(codes)) for codes in dense), 100, least=least)
    expected = {}
    for j in range(7):
        for k in range(j + 1, 7):
            counts = [int(np.count_nonzero(codes[:, j] * codes[:, k])) for codes in dense]
            if max(counts) >= least:
                cosines = []
                for codes in dense:
                    norms = np.linalg.norm(codes[:, j]) * np.linalg.norm(codes[:, k])
                    cosines.append(codes[:, j] @ codes[:, k] / norms if norms else 0.0)
                expected[j, k] = (*cosines, *counts)
    assert found.candidates == len(found.first) == len(expected)
    for j, k, *rest in zip(*found[:6], strict=True):
        assert rest == pytest.approx(expected[j, k])
    size = np.abs(found.change)
    assert (np.diff(size) <= 1e-12).all()


def test_evidence_is_the_paired_t_statistic_of_the_images_products():
    dense = random_codes(1).astype(float), random_codes(2).astype(float)
    sides = [sparse.csr_matrix(codes) for codes in dense]
    changes = changed_pairs(*(cooccurrence_matrix(side) for side in sides), 5, least=1)
    rows = np.arange(12)
    found = change_evidence(changes, *sides, TOKENS, rows, rows)
    for number, (j, k) in enumerate(zip(changes.first, changes.second, strict=True)):
        real, model = ((codes[:, j] * codes[:, k]).reshape(12, TOKENS).sum(1) for codes in dense)
        test = stats.ttest_rel(model, real)
        assert found.gap[number] / found.se[number] == pytest.approx(test.statistic)
        assert [found.real_images[number], found.model_images[number]] == [np.sum(real > 0), np.sum(model > 0)]
        assert found.corrected[number] == min(1, found.p[number] * changes.candidates)


def test_a_pair_that_a_model_no_longer_draws_together_comes_first_and_weaker_codes_alone_do_not_count():
    rng = np.random.default_rng(0)
    real = np.float32(rng.gamma(2, 1, (400 * TOKENS, 6)) * (rng.random((400 * TOKENS, 6)) < 0.2))
    real[:, 1] = real[:, 0] * (rng.random(len(real)) < 0.8)
    model = real * np.float32([1, 1, 0.2, 0.2, 1, 1])
    model[:, 1] = rng.permutation(model[:, 1])
    sides = [sparse.csr_matrix(codes) for codes in (real, model)]
    changes = changed_pairs(*(cooccurrence_matrix(side) for side in sides), 3)
    assert (changes.first[0], changes.second[0]) == (0, 1) and changes.change[0] < -0.3
    assert changes.real_tokens[0] > 2 * changes.model_tokens[0]
    evidence = change_evidence(changes, *sides, TOKENS, NONE, NONE)
    assert evidence.corrected[0] < 1e-6
    everything = changed_pairs(*(cooccurrence_matrix(side) for side in sides), 20, least=20)
    unchanged = everything.change[(everything.first == 2) & (everything.second == 3)]
    assert abs(unchanged[0]) < 1e-6


def test_equal_sources_have_no_change():
    side = cooccurrence_matrix(sparse.csr_matrix(random_codes(4)))
    assert not changed_pairs(side, side, 50, least=1).change.any()
