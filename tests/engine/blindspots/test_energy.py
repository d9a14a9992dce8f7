import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from engine.blindspots.energy import EnergyPass
from engine.errors import BlindspotError

CONCEPTS, TOKENS, PREFIX = 7, 6, 2


def random_codes(seed: int, images: int, density: float = 0.3) -> np.ndarray:
    """[images, TOKENS, CONCEPTS] sparse float32 codes on a coarse grid, so that sums are exact and ties happen."""
    rng = np.random.default_rng(seed)
    return (rng.integers(1, 9, (images, TOKENS, CONCEPTS)) * (rng.random((images, TOKENS, CONCEPTS)) < density)).astype(
        np.float32
    )


def measure(codes: np.ndarray, cuts: list[int], exemplars: int = 3):
    """Run the pass over chunks of images that end at `cuts`."""
    matrix = sparse.csr_matrix(codes.reshape(-1, CONCEPTS))
    running = EnergyPass(CONCEPTS, TOKENS, PREFIX, exemplars=exemplars, first_image=100)
    parts, start = [], 0
    for stop in [*sorted(cuts), len(codes)]:
        chunk = matrix.indptr[start * TOKENS : stop * TOKENS + 1]
        parts.append(running.add(chunk, matrix.indices.astype(np.uint16), matrix.data))
        start = stop
    return sparse.vstack(parts).toarray(), running.finish()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8))
def test_the_pass_equals_brute_force(seed, images):
    codes = random_codes(seed, images)
    energies, found = measure(codes, [])
    exact = codes.astype(np.float64).sum(1)
    np.testing.assert_array_equal(energies, exact)
    np.testing.assert_array_equal(found.moments.sum, exact.sum(0))
    np.testing.assert_array_equal(found.moments.sum_sq, (exact**2).sum(0))
    np.testing.assert_array_equal(found.max, exact.max(0))
    np.testing.assert_array_equal(found.fires, (codes > 0).sum((0, 1)))
    np.testing.assert_array_equal(found.images_active, (exact > 0).sum(0))
    patch_means = codes[:, PREFIX:].mean(1)
    for concept in range(CONCEPTS):
        order = np.argsort(-patch_means[:, concept], kind="stable")[:3]
        order = order[patch_means[order, concept] > 0]
        expected = np.r_[100 + order, np.full(3 - len(order), -1)]
        np.testing.assert_array_equal(found.exemplars[concept], expected)
        np.testing.assert_array_equal(found.scores[concept, : len(order)], patch_means[order, concept])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 6), max_size=4))
def test_the_result_does_not_depend_on_the_chunks_to_the_last_bit(seed, cuts):
    codes = random_codes(seed, 6) * np.float32(0.1)
    whole, cut = measure(codes, []), measure(codes, cuts)
    np.testing.assert_array_equal(whole[0], cut[0])
    for one, other in zip([*whole[1].moments, *whole[1][1:]], [*cut[1].moments, *cut[1][1:]], strict=True):
        np.testing.assert_array_equal(one, other)


def test_prefix_tokens_count_for_the_energy_but_not_for_the_exemplars():
    codes = np.zeros((1, TOKENS, CONCEPTS), np.float32)
    codes[0, 0, 4] = 5
    energies, found = measure(codes, [])
    assert energies[0, 4] == 5
    assert found.exemplars[4].tolist() == [-1, -1, -1]


def test_stored_zeros_and_negative_codes_are_silent():
    running = EnergyPass(3, 1, 0)
    energies = running.add(np.array([0, 3]), np.array([0, 1, 2]), np.array([0.0, -1.0, 2.0]))
    assert energies.nnz == 1
    assert running.finish().fires.tolist() == [0, 0, 1]


def test_float16_codes_sum_without_overflow_or_rounding():
    running = EnergyPass(1, 4000, 0)
    energies = running.add(np.arange(4001), np.zeros(4000, np.uint32), np.full(4000, 60.0, np.float16))
    assert energies[0, 0] == 240_000


def test_half_an_image_is_refused():
    with pytest.raises(BlindspotError, match="5 rows of token codes are no whole images of 6 tokens"):
        EnergyPass(CONCEPTS, TOKENS, PREFIX).add(np.zeros(6, int), np.zeros(0, int), np.zeros(0))


def test_a_concept_outside_the_dictionary_is_refused():
    with pytest.raises(BlindspotError, match="name concepts 9 to 9, but the dictionary has 7"):
        EnergyPass(CONCEPTS, 1, 0).add(np.array([0, 1]), np.array([9]), np.array([1.0]))


def test_all_tokens_being_prefix_is_refused():
    with pytest.raises(BlindspotError, match="leave no patch"):
        EnergyPass(CONCEPTS, 5, 5)
