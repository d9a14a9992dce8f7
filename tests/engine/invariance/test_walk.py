"""The walk's law: the prior's own given f = y, by closed forms and by integration along the curve."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import directed_hausdorff

from engine.errors import BlindspotError
from engine.invariance import planar
from engine.invariance.levelset import LevelSet, project
from engine.invariance.walk import walk

DOUBLE = torch.float64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def start(level, n, d, seed=0):
    found = project(level, torch.randn(n, d, generator=generator(seed), dtype=DOUBLE), 1e-8)
    return found.latents[found.converged]


@pytest.mark.parametrize("seed", range(4))
def test_a_linear_response_keeps_the_conditional_law(seed):
    m = 1 + seed % 2
    weights = torch.randn(m, 4, generator=generator(seed), dtype=DOUBLE)
    level = LevelSet(lambda z: z @ weights.T, torch.full((m,), 0.7, dtype=DOUBLE))
    one = start(level, 1, 4, seed).expand(6000, 4).clone()  # all from one place: only the walk can spread them
    found = walk(level, one, 30, generator(seed), angle=0.8)
    inverse = torch.linalg.inv(weights @ weights.T)
    assert found.acceptance > 0.99 and found.residuals.max() < 1e-4
    torch.testing.assert_close(found.latents.mean(dim=0), weights.T @ inverse @ level.target, atol=0.06, rtol=0)
    expected = torch.eye(4, dtype=DOUBLE) - weights.T @ inverse @ weights
    torch.testing.assert_close(found.latents.T.cov(), expected, atol=0.08, rtol=0)


def test_on_a_sphere_the_law_is_uniform():
    level = LevelSet(lambda z: z.square().sum(dim=1, keepdim=True), torch.tensor([3.0], dtype=DOUBLE))
    found = walk(level, start(level, 3000, 3), 25, generator(1)).latents
    torch.testing.assert_close(found.mean(dim=0), torch.zeros(3, dtype=DOUBLE), atol=0.08, rtol=0)
    torch.testing.assert_close(found.T.cov(), torch.eye(3, dtype=DOUBLE), atol=0.08, rtol=0)


def test_two_responses_meet_in_a_circle():
    """|z|^2 = 4 and z3 = 1: a circle of radius sqrt 3 on which the law is uniform."""
    target = torch.tensor([4.0, 1.0], dtype=DOUBLE)
    level = LevelSet(lambda z: torch.stack([z.square().sum(dim=1), z[:, 2]], dim=1), target)
    found = walk(level, start(level, 4000, 3), 25, generator(2)).latents
    turns = torch.atan2(found[:, 1], found[:, 0])
    assert found[:, :2].norm(dim=1).sub(3**0.5).abs().max() < 1e-3
    assert abs(turns.cos().mean()) < 0.05 and abs((2 * turns).cos().mean()) < 0.05


@pytest.mark.slow
def test_on_the_ellipse_the_walk_has_the_exact_law_and_the_others_do_not():
    """24 arcs, 20,000 members, against phi / |grad f| along the curve; chi-square over its degrees of freedom."""
    found = planar.compare_ellipse(2.0, 0.7, 20_000)
    assert found["walk"].chi_square < 1.8 and found["walk"].tv < 0.025
    assert found["gradient"].tv > 0.07 and found["projection"].tv > 0.045
    assert all(row.residual <= 1e-3 for row in found.values()) and found["walk"].converged == 1


def test_the_ellipse_s_law_agrees_with_integration_along_rays():
    ellipse = planar.Ellipse(1.5, 0.8)
    by_ray = planar.ray_law(ellipse, 1.0, count=1200, rays=1)
    angles = (np.arange(1200) + 0.5) * (2 * np.pi / 1200)
    arcs = ellipse.arcs(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    np.testing.assert_allclose(np.bincount(arcs, weights=by_ray, minlength=24), ellipse.law(24), atol=2e-3)


def curve(network, target, cells=600):
    """Points of the level curve by sign changes along the lines of a grid: no gradient, no ray."""
    axis = np.linspace(-5, 5, cells + 1)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    with torch.no_grad():
        values = network(torch.from_numpy(grid.reshape(-1, 2))).numpy().reshape(cells + 1, cells + 1) - target
    points = []
    for turned, swap in ((values, False), (values.T, True)):
        rows, columns = np.nonzero(turned[:-1] * turned[1:] < 0)
        share = turned[rows, columns] / (turned[rows, columns] - turned[rows + 1, columns])
        place = np.stack([axis[rows] + share * (axis[1] - axis[0]), axis[columns]], axis=1)
        points.append(place[:, ::-1] if swap else place)
    return np.concatenate(points)


@pytest.mark.slow
@pytest.mark.parametrize("query", [(0.9, 0.0), (0.0, -1.05), (-0.8, 0.8)])
def test_members_of_the_circles_cover_their_level_curve_by_its_law(query):
    network = planar.circle_classifier()
    target = float(network(torch.tensor([query], dtype=DOUBLE)))
    members, largest, converged, _ = planar.sample_curve(network, target, "walk", 3_000, tolerance=1e-4)
    assert largest <= 1e-3 and converged > 0.99
    known = curve(network, target)
    known = known[np.linalg.norm(known, axis=1) < 3]
    assert max(directed_hausdorff(known, members)[0], directed_hausdorff(members, known)[0]) <= 0.05
    turns = np.arctan2(members[:, 1], members[:, 0]) / (2 * np.pi) % 1
    shares = np.bincount((turns * 24).astype(int), minlength=24)
    expected = planar.ray_law(network, target, rays=20, cells=2000) * len(members)
    big = expected > 5
    assert ((shares - expected)[big] ** 2 / expected[big]).sum() / (big.sum() - 1) < 2


def test_the_classifier_tells_inside_from_outside():
    places, outside = planar.circles(seed=1)
    said = planar.circle_classifier()(torch.from_numpy(places))[:, 0].numpy() > 0
    assert (said == outside).mean() > 0.97


def test_odd_wishes_are_one_sentence():
    for axes in ((0.0, 1.0), (8.0, 9.0), (float("nan"), 1.0), (1.0, -1.0)):
        with pytest.raises(BlindspotError, match="make no ellipse"):
            planar.Ellipse(*axes)
    with pytest.raises(BlindspotError, match="0 members"):
        planar.compare_ellipse(2.0, 0.7, 0)
    many = LevelSet(lambda z: z, torch.zeros(20, dtype=DOUBLE))
    with pytest.raises(BlindspotError, match="choose at most 16"):
        walk(many, torch.zeros(2, 20, dtype=DOUBLE), 1, generator())
    flat = LevelSet(lambda z: z.square().sum(dim=1, keepdim=True), torch.zeros(1, dtype=DOUBLE))
    with pytest.raises(BlindspotError, match="no slope at a start"):
        walk(flat, torch.zeros(2, 3, dtype=DOUBLE), 1, generator())
