"""Fidelity is that of eq. 4.1; the split Frechet distance never compares a member with its own query."""

import numpy as np
import pytest
import torch

from engine.blindspots.metrics import frechet_distance
from engine.errors import BlindspotError
from engine.invariance.metrics import fidelity, measure, split_frechet
from engine.samplers.metrics import diversity, embed, spectral_slope


def test_fidelity_is_the_distance_to_the_target():
    found = fidelity(torch.tensor([[3.0, 4.0], [3.0, 4.4], [0.0, 0.0]]), torch.tensor([3.0, 4.0]))
    torch.testing.assert_close(found.distance, torch.tensor([0.0, 0.4, 5.0]))
    torch.testing.assert_close(found.relative, torch.tensor([0.0, 0.08, 1.0]))
    assert found.within(0.1) == pytest.approx(2 / 3)
    at_zero = fidelity(torch.tensor([[0.0], [0.1]]), torch.zeros(1)).relative
    assert at_zero.tolist() == [0.0, float("inf")]


def test_copies_of_queries_are_near_only_without_the_split():
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(40, 8))
    owners = np.repeat(np.arange(40), 3)
    members = queries[owners] + 0.01 * rng.normal(size=(120, 8))
    assert frechet_distance(queries, members).distance < 0.05
    halves = split_frechet(queries, members, owners)
    assert halves > 0.5
    assert halves == split_frechet(queries, members, owners) != split_frechet(queries, members, owners, seed=1)
    assert split_frechet(queries, members + 2, owners, folds=4) > split_frechet(queries, members, owners, folds=4)


def test_two_folds_are_compared_crosswise():
    queries, members = np.random.default_rng(0).normal(size=(2, 6, 2))
    fold = np.empty(6, int)
    fold[np.random.default_rng(5).permutation(6)] = np.arange(6) % 2
    crosswise = [frechet_distance(queries[fold == a], members[fold == 1 - a]).distance for a in (0, 1)]
    assert split_frechet(queries, members, range(6), seed=5) == pytest.approx(np.mean(crosswise))


def test_a_set_is_measured_in_a_stated_space(models):
    pictures = torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    members, queries, owners = pictures[:8], pictures[8:], [0, 0, 1, 1, 2, 2, 3, 3]
    quality = measure(members, torch.full((8,), 0.25), queries, owners, models.encoder)
    made, real = embed(models.encoder, members), embed(models.encoder, queries)
    assert quality.space == models.encoder.spec.id and quality.fidelity == 0.25
    assert quality.frechet == pytest.approx(frechet_distance(real, made).distance)
    assert quality.split_frechet == pytest.approx(split_frechet(real, made, owners))
    assert quality.diversity == pytest.approx(np.mean([diversity(made[i : i + 2]) for i in range(0, 8, 2)]))
    assert quality.slope == pytest.approx(spectral_slope(members).mean())


def test_what_too_few_images_cannot_say_is_none(models):
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    alone = measure(images[:1], torch.zeros(1), images[1:], [0], models.encoder)
    assert alone.frechet is alone.split_frechet is alone.diversity is None
    for folds, owners in ((1, [0, 1]), (2, [0, 2]), (2, [0])):
        with pytest.raises(BlindspotError, match="two or more folds and a query for each member"):
            split_frechet(np.eye(2), np.eye(2), owners, folds)
    with pytest.raises(BlindspotError, match="two or more images"):
        split_frechet(np.eye(2), np.eye(2), [0, 1])
