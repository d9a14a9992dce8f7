"""Targets behind a prior are constraints on its noise that projection solves."""

import pytest
import torch

from engine.invariance.filters import LowPass, spectral_residual
from engine.invariance.generator import DeterministicGenerator, response
from engine.invariance.levelset import LevelSet, project
from engine.invariance.parsing import parse_target


@pytest.fixture(scope="module")
def generator(models):
    return DeterministicGenerator(models.prior, 3)


@pytest.mark.parametrize("text", ["concept:4,9", "logits:{resnet}", "neuron:encoder.layer.0.mlp:7"])
def test_noise_is_led_to_the_responses_of_another_image(text, generator, models, resnet):
    """A query that the prior can draw, from starts nearby."""
    target = parse_target(text.format(resnet=resnet)).build(models)
    latent = generator.noise(0, 1)
    with torch.no_grad():
        query = generator(latent)
    goal = target.target_of(query)
    starts = latent + 0.1 * generator.noise(1, 3)
    level = LevelSet(response(generator, target), goal)
    with torch.no_grad():
        before = (target(generator(starts)) - goal).norm(dim=1)
    found = project(level, starts, tolerance=0.02 * float(before.min()))
    assert found.converged.all()
    with torch.no_grad():
        after = (target(generator(found.latents)) - goal).norm(dim=1)
    torch.testing.assert_close(after, found.residuals, rtol=1e-2, atol=1e-5)
    assert (found.latents - found.latents[:1])[1:].flatten(1).norm(dim=1).min() > 0.5


def test_filtered_images_are_led_there_too(generator, models):
    target = parse_target("concept:4").build(models)
    latent = generator.noise(0, 1)
    with torch.no_grad():
        goal = target(generator(latent))[0]

    def residual(images):
        return spectral_residual(images, target, goal, [LowPass("gaussian", 0.5)], [1.0])

    with torch.no_grad():
        there = residual(generator(latent))[0]
    starts = latent + 0.1 * generator.noise(2, 2)
    with torch.no_grad():
        before = (residual(generator(starts)) - there).norm(dim=1)
    found = project(LevelSet(response(generator, residual), there), starts, tolerance=0.02 * float(before.min()))
    assert found.converged.all()
