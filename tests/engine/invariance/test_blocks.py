"""Walks at a middle noise level: their law is the prior's given f = y; drawing the clean state anew moves no image."""

import numpy as np
import torch

from engine.invariance.blocks import NoiseLevelSet
from engine.invariance.generator import DeterministicGenerator
from engine.invariance.levelset import project
from engine.invariance.planar import Ellipse
from engine.invariance.walk import walk
from tests.engine.priors.tiny import GaussianPrior

ELLIPSE = Ellipse(2.0, 0.7)


def response(images):
    return ELLIPSE(images.flatten(1)[:, :2])


def level_set(members, steps=60, signal=0.4):
    """The ellipse behind a prior N(0, I) of one pixel in three colours with its exact denoiser."""
    generator = DeterministicGenerator(GaussianPrior(size=1), steps, checkpointing=False, signal=signal)
    clean = torch.randn(members, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    return NoiseLevelSet(generator, response, torch.tensor([1.0]), clean)


def members_of(level, random):
    noise = torch.randn(level.context.shape, generator=random)
    found = project(level, noise, 1e-4)
    assert found.converged.all()
    return found.latents


def test_the_walk_has_the_exact_law_and_projection_alone_has_not():
    """24 arcs of the ellipse, and the colour that f does not see stays as the prior has it."""
    level, random = level_set(2500), torch.Generator().manual_seed(1)
    starts = members_of(level, random)

    def chi_square(noise):
        images = level.generator(level.states(noise)).flatten(1).numpy()
        expected = ELLIPSE.law() * len(images)
        counts = np.bincount(ELLIPSE.arcs(images), minlength=24)
        return images, ((counts - expected) ** 2 / expected).sum() / 23

    assert chi_square(starts)[1] > 2.5
    found = walk(level, starts, 25, random, angle=0.8, refresh=level.refresh)
    images, misfit = chi_square(found.latents)
    assert misfit < 2 and found.acceptance > 0.8 and found.residuals.max() <= 1e-4
    assert abs(images[:, 2].mean()) < 0.06 and abs(images[:, 2].std() - 1) < 0.06


def test_drawing_the_clean_state_anew_moves_no_image():
    level, random = level_set(5), torch.Generator().manual_seed(1)
    noise = members_of(level, random)
    before, clean = level.states(noise), level.context
    other = level.refresh(noise, random)
    torch.testing.assert_close(level.states(other), before)
    assert (level.context - clean).abs().min() > 1e-4


def test_rows_have_contexts_of_their_own():
    level = level_set(4)
    noise = torch.zeros(2, 3, 1, 1)
    both = level.residual(torch.zeros(4, 3, 1, 1))
    torch.testing.assert_close(level.residual(noise, torch.tensor([3, 1])), both[[3, 1]])
    torch.testing.assert_close(level.linearise(noise, torch.tensor([3, 1]))[0], both[[3, 1]])
