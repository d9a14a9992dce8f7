"""Distances to convex hulls: where they are known, against non-negative least squares, and how RA-SAE bounds them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from engine.dictionary.archetypal import RelaxedArchetypal
from engine.dictionary.geometry import atoms_and_hull, hull_distance
from engine.dictionary.tokens import MemoryTokens
from engine.dictionary.topk import TopK


def by_nnls(targets: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Distances in the points' radius: weights that sum to 1 by a heavy extra row."""
    heavy, radius = 1e4, float(points.square().sum(dim=1).mean().sqrt())
    system = np.vstack([points.T.double().numpy(), np.full(len(points), heavy)])
    distances = []
    for target in targets.double().numpy():
        weights, _ = nnls(system, np.append(target, heavy), maxiter=10_000)
        distances.append(np.linalg.norm(points.T.double().numpy() @ weights - target) / radius)
    return torch.tensor(distances, dtype=torch.float32)


def test_a_square_and_points_around_it() -> None:
    square = torch.tensor([[1.0, 1], [-1, 1], [-1, -1], [1, -1]])
    targets = torch.tensor([[0.0, 0], [0.9, -0.9], [3, 0], [0, -1], [4, 5]])
    expected = torch.tensor([0.0, 0, 2, 0, 5]) / 2**0.5
    found = hull_distance(targets, square, tolerance=1e-4)
    assert torch.allclose(found.value, expected, atol=1e-3) and (found.lower <= expected + 1e-6).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 8), st.floats(0.1, 5))
def test_both_bounds_hold_the_distance_by_nnls(seed: int, count: int, dim: int, size: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(count, dim, generator=generator) + torch.randn(dim, generator=generator)
    targets = size * torch.randn(5, dim, generator=generator)
    exact, found = by_nnls(targets, points), hull_distance(targets, points, rounds=16, tolerance=1e-4)
    assert (found.lower <= exact + 1e-3).all() and (found.value >= exact - 1e-3).all()
    assert torch.allclose(found.value, exact, atol=5e-3)


def test_few_rounds_still_bound_from_both_sides() -> None:
    generator = torch.Generator().manual_seed(0)
    points, targets = torch.randn(200, 40, generator=generator), torch.randn(600, 40, generator=generator)
    exact = by_nnls(targets[:30], points)
    last = torch.full((600,), torch.inf)
    for rounds in (0, 1, 3):
        found = hull_distance(targets, points, rounds=rounds)
        assert (found.lower[:30] <= exact + 1e-5).all() and (found.value[:30] >= exact - 1e-5).all()
        assert (found.value <= last).all()
        last = found.value


def archetypal(delta: float) -> RelaxedArchetypal:
    generator = torch.Generator().manual_seed(0)
    dictionary = RelaxedArchetypal(12, 30, 3, candidates=20, delta=delta).requires_grad_(False)
    dictionary.points.copy_(torch.randn(20, 12, generator=generator))
    dictionary.weights.copy_(torch.rand(30, 20, generator=generator) ** 8)
    dictionary.slack.copy_(torch.randn(30, 12, generator=generator))
    dictionary.log_multiplier.fill_(1.3)
    dictionary.constrain()
    return dictionary


@pytest.mark.parametrize("delta", [0.0, 0.5])
def test_an_archetypal_atom_leaves_the_hull_of_its_candidates_by_at_most_delta(delta: float) -> None:
    dictionary = archetypal(delta)
    found = atoms_and_hull(dictionary, MemoryTokens(torch.randn(9, 12)), 4, 0)
    assert found.own and len(found.points) == 20
    measured = hull_distance(found.atoms, found.points, found.start)
    radius = found.points.square().sum(dim=1).mean().sqrt()
    assert (measured.value * radius <= delta + 1e-5).all()
    exact = by_nnls(found.atoms, found.points)
    assert (measured.lower <= exact + 1e-4).all() and torch.allclose(measured.value, exact, atol=0.011)


def test_free_atoms_are_measured_at_the_radius_of_centroids_of_the_tokens() -> None:
    """Tokens on three rays: atoms along them are in the data, the opposite direction is a diameter away from a point,
    and the same atoms at another length give the same distances."""
    rays = torch.eye(3)
    tokens = rays.repeat(50, 1) * 4 + 1
    dictionary = TopK(3, 4, 1).requires_grad_(False)
    dictionary.mean.fill_(1)
    dictionary.decoder.copy_(torch.cat([rays, -rays[:1]]))
    found = atoms_and_hull(dictionary, MemoryTokens(tokens), 3, 0)
    assert not found.own and len(found.points) == 3
    value = hull_distance(found.atoms, found.points, tolerance=1e-4).value
    # From (-1, 0, 0) to the nearest point of the triangle, (0, 1/2, 1/2).
    assert torch.allclose(value, torch.tensor([0, 0, 0, 1.5**0.5]), atol=1e-3)
    dictionary.decoder.mul_(7)
    again = atoms_and_hull(dictionary, MemoryTokens(tokens), 3, 0)
    assert torch.allclose(again.atoms, found.atoms, atol=1e-5)
