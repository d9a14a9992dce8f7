"""Candidate selection against exact laws: a Gaussian's tilt, the planar mixture's, and the prior itself."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.mixture import GRID
from benchmarks.oracle import CONCEPT, MIXTURE, OraclePrior, concept_score
from engine.errors import BlindspotError
from engine.jobs import Cancelled
from engine.samplers.base import sample_generators
from engine.samplers.candidates import CandidateSelection, CandidateStates
from engine.samplers.energy_dps import EnergyDPS
from tests.engine.priors.tiny import GaussianPrior


def brightness(images):
    """The mean of the first channel: linear, so that the tilted Gaussian is known exactly."""
    return images[:, 0].mean(dim=(1, 2))


@given(st.integers(1, 200), st.integers(1, 60), st.floats(0.01, 0.98), st.floats(0, 0.98))
def test_the_states_are_halved_down_to_one_before_the_last_step(states, steps, first, more):
    span = (first, first + more * (0.99 - first))
    halvings = CandidateSelection(1.0, states, span).halvings(steps)
    left = [states, *halvings.values()]
    assert left[-1] == 1 and all(after < before for before, after in itertools.pairwise(left))
    assert list(halvings) == sorted(halvings) and all(0 <= place < steps for place in halvings)
    assert steps < 3 or all(1 <= place <= steps - 2 for place in halvings)


@pytest.mark.parametrize("beta", [-4.0, 0.0, 4.0])
def test_what_is_left_of_many_lies_between_a_gaussian_and_its_tilt(beta):
    """p exp(beta s) of N(m, v) with s = <a, x> is N(m + beta v a, v), so there a red pixel has moved by beta v / 4."""
    selection = CandidateSelection(beta, 32, (0.5, 0.95), tempering=0.0)
    sampler = EnergyDPS(GaussianPrior(0.2, 0.5), steps=30, strength=0.0, selection=selection, together=None)
    images = sampler.sample(brightness, 200, seed=1).images
    whole, moved = beta * 0.5 / 4, images[:, 0].mean().item() - 0.2
    assert min(0.3 * whole, whole) - 0.07 < moved < max(0.3 * whole, whole) + 0.07
    assert abs(moved) > 0.3 * abs(whole) - 1e-9 or beta == 0
    assert images[:, 1:].mean().item() == pytest.approx(0.2, abs=0.05)


def test_more_states_come_nearer_to_the_tilt_of_the_mixture():
    exact = GRID.log_masses(lambda x: MIXTURE.log_density(x) + 0.5259 * CONCEPT(x))
    divergence, means = {}, {}
    for states in (1, 4, 16):
        selection = CandidateSelection(0.5259, states, (0.3, 0.95), tempering=0.0)
        sampler = EnergyDPS(OraclePrior(), steps=50, strength=0.0, selection=selection, together=None)
        points = sampler.sample(concept_score, 1500).images.flatten(1).double().numpy()
        divergence[states], means[states] = GRID.kl(points, exact), CONCEPT(points).mean()
    assert divergence[16] < divergence[4] < divergence[1] / 2
    assert means[1] < means[4] < means[16] < 7.0 + 0.1


def test_the_weights_of_one_halving_are_the_tilt_s_own():
    """Unit-weight counterpart: the score of those that are left is the self-normalised tilted mean of all."""
    prior, beta = GaussianPrior(0.0, 1.0), 3.0
    generators, levels = sample_generators(0, 400), [*prior.timesteps(10).tolist(), -1]
    selection = CandidateSelection(beta, 2, (0.8, 0.8), tempering=0.0)
    seen = []

    def score(images):
        seen.append(brightness(images))
        return seen[-1]

    candidates = CandidateStates(prior, score, selection, generators)
    assert candidates.run(levels, lambda *_: None) == 8
    pairs = torch.cat(seen).view(400, 2)
    expected = (pairs.mul(beta).softmax(dim=1) * pairs).sum(dim=1).mean()
    with torch.no_grad():
        left = brightness(prior.decode(prior.denoise(candidates.state, levels[8]).x0)).mean()
    assert left.item() == pytest.approx(expected.item(), abs=0.05)
    assert left > pairs.mean() + 0.1


def test_a_single_state_is_the_prior_s_own_and_needs_no_score():
    prior = GaussianPrior(0.2, 0.5)
    plain = EnergyDPS(prior, 10, strength=0.3).sample(brightness, 3, seed=2)
    alone = EnergyDPS(prior, 10, strength=0.3, selection=CandidateSelection(5.0, candidates=1)).sample(
        brightness, 3, seed=2
    )
    torch.testing.assert_close(alone.images, plain.images)


def test_a_sample_is_the_same_in_any_batch_and_the_trace_is_whole():
    sampler = EnergyDPS(GaussianPrior(0.2, 0.5), 12, strength=0.2, selection=CandidateSelection(5.0, 8))
    many, one = sampler.sample(brightness, 5, seed=3), sampler.sample(brightness, 1, seed=3)
    torch.testing.assert_close(many.images[:1], one.images)
    assert many.trace.shape == (12, 5) and bool(many.trace.isfinite().all())


def test_every_step_is_heard_of_and_any_may_cancel():
    sampler = EnergyDPS(GaussianPrior(0.2, 0.5), 12, strength=0.2, selection=CandidateSelection(5.0, 8))
    heard = []
    sampler.sample(brightness, 2, on_step=lambda event: heard.append((event.step, len(event.images))))
    assert heard == [(step, 2) for step in range(1, 13)]
    for last in (1, 4, 11):
        with pytest.raises(Cancelled):
            sampler.sample(brightness, 2, on_step=lambda event, last=last: event.step < last)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_few_steps_leave_room_for_the_choice(steps):
    sampler = EnergyDPS(GaussianPrior(0.2, 0.5), steps, strength=0.2, selection=CandidateSelection(20.0, 16))
    assert sampler.sample(brightness, 3).images.shape == (3, 3, 2, 2)


def test_nonsense_is_refused():
    for settings in ({"candidates": 0}, {"beta": np.nan}, {"tempering": -1.0}, {"batch": 0}):
        with pytest.raises(BlindspotError, match="makes no sense"):
            CandidateSelection(**{"beta": 1.0, **settings})
    for span in ((0.0, 0.5), (0.5, 0.4), (0.5, 1.0)):
        with pytest.raises(BlindspotError, match="between 0 and 1 of the way"):
            CandidateSelection(1.0, window=span)


def test_candidates_go_fewer_steps_if_told_so():
    selection = CandidateSelection(5.0, 8, (0.5, 0.9), approach=2)
    assert selection.places(20) == [0, 5, 10, 14, 18] and replace(selection, approach=None).places(20) == [*range(19)]
    asked = []

    class Watched(GaussianPrior):
        def denoise(self, x_t, t):
            asked.append(t)
            return super().denoise(x_t, t)

    prior, steps = Watched(0.2, 0.5), 20
    levels = [*prior.timesteps(steps).tolist(), -1]
    events = []
    sampler = EnergyDPS(prior, steps, strength=0.2, selection=selection)
    samples = sampler.sample(brightness, 1, on_step=lambda event: events.append(event.step))
    assert samples.trace.shape == (steps, 1) and events == [*range(1, steps + 1)]
    early = sorted({t for t in asked if t > levels[18]}, reverse=True)
    assert early == [levels[0], levels[5], levels[10], levels[14]]


def test_a_score_that_is_no_number_is_one_sentence():
    sampler = EnergyDPS(GaussianPrior(0.2, 0.5), 12, strength=0.2, selection=CandidateSelection(5.0, 8))
    with pytest.raises(BlindspotError, match="score of sample 1 is no finite number at noise level"):
        sampler.sample(lambda images: brightness(images) / 0, 2)


def test_states_are_denoised_in_bfloat16_where_that_is_asked_for_and_in_pieces_that_fit():
    precisions, sizes = set(), []

    class Watched(GaussianPrior):
        def denoise(self, x_t, t):
            precisions.add(torch.is_autocast_enabled("cpu"))
            sizes.append(len(x_t))
            return super().denoise(x_t, t)

    sampler = EnergyDPS(Watched(0.2, 0.5), 12, strength=0.2, selection=CandidateSelection(5.0, 8, batch=4), bf16=True)
    sampler.sample(brightness, 3)
    assert precisions == {True} and set(sizes) == {1, 2, 4}
    sizes.clear()
    replace(sampler, together=None).sample(brightness, 3)
    assert set(sizes) == {3, 6, 12}
