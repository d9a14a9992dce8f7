"""Ways onto a level set: against closed forms, for one response and for many, and what they say when there is none."""

import math

import numpy as np
import pytest
import torch

from engine.errors import BlindspotError
from engine.invariance.levelset import LevelSet, anneal, descend, gram, project

DOUBLE = torch.float64


def draws(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def ellipse(z):
    return (z / z.new_tensor([2.0, 0.7])).square().sum(dim=1, keepdim=True)


def level_of(response, *target, **options):
    return LevelSet(response, torch.tensor(target, dtype=DOUBLE), **options)


@pytest.mark.parametrize("seed", range(6))
def test_projection_onto_a_linear_response_has_the_conditional_law(seed):
    """Of z ~ N(0, I) given W z = y: mean W^T (W W^T)^-1 y, covariance I - W^T (W W^T)^-1 W; one step gets there."""
    generator = torch.Generator().manual_seed(seed)
    m = 1 + seed % 3
    weights, target = (torch.randn(m, size, generator=generator, dtype=DOUBLE) for size in (5, 1))
    level = LevelSet(lambda z: z @ weights.T, target.flatten())
    found = project(level, draws(20_000, 5, seed), 1e-9, reach=math.inf)
    inverse = torch.linalg.inv(weights @ weights.T)
    assert found.converged.all() and found.iterations == 1
    torch.testing.assert_close(found.latents.mean(dim=0), weights.T @ inverse @ target.flatten(), atol=0.04, rtol=0)
    expected = torch.eye(5, dtype=DOUBLE) - weights.T @ inverse @ weights
    torch.testing.assert_close(found.latents.T.cov(), expected, atol=0.05, rtol=0)


def test_projection_converges_quadratically_and_where_descent_as_printed_takes_a_hundred_steps():
    near = project(level_of(ellipse, 1.0), draws(500, 2), 1e-10)
    assert near.converged.all() and near.iterations <= 14 and near.residuals.max() <= 1e-10
    printed, quick = level_of(ellipse, 1.0), level_of(ellipse, 1.0)
    slow = descend(printed, draws(500, 2), learning_rate=0.01, threshold=1e-6, steps=1024)
    assert slow.converged.double().mean() > 0.98
    project(quick, draws(500, 2), 1e-3)
    assert quick.evaluations + quick.gradients < (printed.evaluations + printed.gradients) / 10


def test_each_latent_is_a_problem_of_its_own():
    starts = draws(8, 2)
    together = project(level_of(ellipse, 1.0), starts, 1e-6)
    alone = [project(level_of(ellipse, 1.0), start[None], 1e-6).latents[0] for start in starts]
    torch.testing.assert_close(together.latents, torch.stack(alone))
    torch.testing.assert_close(together.latents, project(level_of(ellipse, 1.0, batch=3), starts, 1e-6).latents)


def test_many_responses_are_solved_without_their_jacobian():
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(40, 64, generator=generator, dtype=DOUBLE) / 24

    def response(z):
        return (z @ weights.T).tanh()

    level, start = LevelSet(response, response(draws(1, 64, 5))[0]), draws(3, 64, 6)
    residual, step = level._newton_by_products(start, iterations=40)
    expected, jacobian = level.linearise(start)
    least = -torch.einsum("nmd,nm->nd", jacobian, torch.linalg.solve(gram(jacobian), expected))
    torch.testing.assert_close(residual, expected)
    torch.testing.assert_close(step, least, atol=1e-4, rtol=1e-3)
    assert project(level, start, 1e-5).converged.all()


def test_the_latent_keeps_its_norm_if_asked_and_every_optimiser_gets_nearer():
    starts = draws(50, 2, 1)
    for optimiser, rate in (("sgd", 0.01), ("adam", 0.05), ("adagrad", 0.1)):
        found = descend(level_of(ellipse, 1.0), starts, optimiser=optimiser, learning_rate=rate, steps=300)
        assert found.converged.double().mean() > 0.8
    kept = descend(level_of(ellipse, 1.0), starts, learning_rate=0.01, steps=20, keep_norm=True)
    torch.testing.assert_close(kept.latents.norm(dim=1), starts.norm(dim=1))
    with pytest.raises(BlindspotError, match="no optimiser 'newton': choose one of sgd"):
        descend(level_of(ellipse, 1.0), starts, optimiser="newton")


def test_a_rate_that_diverges_is_said_and_loses_nothing():
    found = descend(level_of(ellipse, 1.0), draws(20, 2), learning_rate=10.0, steps=60)
    assert found.latents.shape == (20, 2) and not found.converged.all()


def test_annealed_particles_cover_all_parts_of_a_set_in_the_prior_s_proportion():
    """f = z1^3 - 3 z1 has the value 1 at three places; the law near it weighs them by phi / |f'|."""

    def cubic(z):
        return z[:, :1] ** 3 - 3 * z[:, :1] + 0 * z[:, 1:]

    roots = torch.from_numpy(np.sort(np.roots([1, 0, -3, -1]).real))
    expected = (-(roots**2) / 2).exp() / (3 * roots**2 - 3).abs()
    found = anneal(level_of(cubic, 1.0), (2,), 4000, 0.05, torch.Generator().manual_seed(0), dtype=DOUBLE)
    shares = torch.bincount((found[:, :1] - roots).abs().argmin(dim=1), minlength=3) / 4000
    torch.testing.assert_close(shares.double(), expected / expected.sum(), atol=0.05, rtol=0)
    assert (cubic(found) - 1).abs().median() < 0.1


def test_what_cannot_be_reached_is_said():
    with pytest.raises(BlindspotError, match="not a finite number"):
        level_of(ellipse, math.nan)
    below = project(level_of(ellipse, -1.0), draws(4, 2), 1e-3)
    assert not below.converged.any() and below.latents.isfinite().all()
    flat = project(level_of(lambda z: 0 * z.sum(dim=1, keepdim=True), 1.0), draws(4, 2), 1e-3)
    assert not flat.converged.any() and torch.equal(flat.latents, draws(4, 2))
    with pytest.raises(BlindspotError, match="no gradient"):
        project(level_of(lambda z: torch.ones(len(z), 1, dtype=DOUBLE), 1.0), draws(4, 2))
    with pytest.raises(BlindspotError, match="has shape"):
        project(level_of(lambda z: z, 1.0), draws(4, 2))


def test_a_search_can_be_ended():
    seen = []

    def watch(done, total, residuals):
        seen.append(done)
        return len(seen) < 3

    found = project(level_of(ellipse, 1.0), draws(4, 2), 1e-12, on_iteration=watch)
    assert seen == [0, 1, 2] and found.latents.shape == (4, 2)


def test_shampoo_moves_each_latent_as_if_it_were_alone():
    pytest.importorskip("pytorch_optimizer")
    starts = draws(6, 4, 1)
    level = level_of(lambda z: z.square().sum(dim=1, keepdim=True), 1.0)
    together = descend(level, starts, optimiser="shampoo", learning_rate=0.05, steps=200)
    alone = descend(level, starts[:1], optimiser="shampoo", learning_rate=0.05, steps=200)
    assert together.converged.double().mean() >= 0.5  # its steps do not shrink: some circle the set
    torch.testing.assert_close(together.latents[:1], alone.latents)
