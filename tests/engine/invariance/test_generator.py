"""The generator is the prior's own deterministic sampler, differentiable end to end, in the memory of one step."""

import math
import weakref

import pytest
import torch
from diffusers import DDIMScheduler
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine.errors import BlindspotError
from engine.invariance.generator import DeterministicGenerator, rescale
from engine.priors.loading import load_prior
from engine.priors.pixel import PixelPrior
from tests.engine.priors.test_every_prior import MAKERS
from tests.engine.priors.tiny import GaussianPrior, tiny_pipeline, tiny_unet


@pytest.fixture(scope="module")
def latent_prior(tmp_path_factory):
    return load_prior(tiny_pipeline(tmp_path_factory.mktemp("prior") / "pipeline"))


@pytest.mark.parametrize("kind", ["pixel", "latent", "dit", "lcm"])
def test_every_kind_of_prior_becomes_a_function_of_its_noise(kind, tmp_path):
    generator = DeterministicGenerator(MAKERS[kind](tmp_path / "pipeline"), 3)
    latents = generator.noise(0, 2).requires_grad_()
    images = generator(latents)
    size = generator.prior.image_size
    assert images.shape == (2, 3, size, size) and images.min() >= 0 and images.max() <= 1
    assert torch.equal(images, generator(latents))
    (gradient,) = torch.autograd.grad(images[0].sum(), latents)
    assert gradient.isfinite().all() and gradient[0].abs().sum() > 0 and gradient[1].abs().sum() == 0


def test_the_steps_are_those_of_diffusers_ddim():
    scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    prior = PixelPrior(tiny_unet(), scheduler)
    generator = DeterministicGenerator(prior, 5)
    state = latents = generator.noise(1, 1)
    scheduler.set_timesteps(5)
    with torch.no_grad():
        for t in scheduler.timesteps:
            state = scheduler.step(prior.network(state, int(t)), t, state, eta=0.0).prev_sample
    torch.testing.assert_close(generator.clean(latents), state, rtol=1e-4, atol=1e-4)


def test_a_gaussian_prior_s_generator_is_affine_with_the_prior_s_spread():
    """The ODE of a Gaussian maps z_T to mean + deviation z_T; DDIM's error falls with the steps."""
    prior = GaussianPrior(mean=0.3, variance=0.25)
    generator = DeterministicGenerator(prior, 500)
    with torch.no_grad():
        images = generator(generator.noise(0, 4))
    torch.testing.assert_close(images, 0.3 + 0.5 * generator.noise(0, 4), rtol=0, atol=0.02)


def test_checkpointing_changes_neither_images_nor_gradients(latent_prior):
    found = []
    for checkpointing in (False, True):
        generator = DeterministicGenerator(latent_prior, 4, checkpointing)
        latents = generator.noise(0, 2).requires_grad_()
        images = generator(latents)
        found.append((images.detach(), torch.autograd.grad(images.square().sum(), latents)[0]))
        assert (generator.evaluations, generator.recomputed) == (8, 8 * checkpointing)
    torch.testing.assert_close(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])


def test_the_gradient_is_that_of_finite_differences():
    generator = DeterministicGenerator(GaussianPrior(0.5, 0.1), 6)
    latents = generator.noise(2, 1).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: generator.clean(z).sin(), latents, eps=1e-4, atol=1e-4)


def test_without_gradients_nothing_is_kept(latent_prior):
    generator = DeterministicGenerator(latent_prior, 3)
    with torch.no_grad():
        generator(generator.noise(0, 3))
    assert (generator.evaluations, generator.recomputed) == (9, 0)


class PeakMemory(TorchDispatchMode):
    """The most bytes that tensors made inside held at once, in forward and backward passes."""

    def __init__(self):
        super().__init__()
        self.live, self.peak, self.known = 0, 0, weakref.WeakSet()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage not in self.known:
                    self.known.add(storage)
                    self.live += storage.nbytes()
                    weakref.finalize(storage, self._free, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return result

    def _free(self, count):
        self.live -= count


def peak_of(prior, steps, checkpointing=True):
    generator = DeterministicGenerator(prior, steps, checkpointing)
    latents = generator.noise(0, 2).requires_grad_()
    with PeakMemory() as memory:
        torch.autograd.grad(generator(latents).square().sum(), latents)
    return memory.peak, 2 * 4 * math.prod(prior.shape)


def test_peak_memory_is_flat_in_the_number_of_steps():
    """Of 30 more steps only 30 states are kept; without checkpointing, the activations of each."""
    prior = PixelPrior(tiny_unet(), DDIMScheduler(clip_sample=False))
    (few, state), (many, _) = peak_of(prior, 10), peak_of(prior, 40)
    assert many - few <= 3 * 30 * state
    assert many < 1.25 * few
    assert peak_of(prior, 10, checkpointing=False)[0] > 3 * many


def test_latents_are_scaled_back_to_their_first_norm():
    first = torch.randn(3, 4, 2, 2)
    scaled = rescale(first * torch.tensor([0.5, 1.0, 7.0]).view(3, 1, 1, 1) + 0.1, first)
    torch.testing.assert_close(scaled.flatten(1).norm(dim=1), first.flatten(1).norm(dim=1))
    torch.testing.assert_close(rescale(5 * first, first), first)
    with pytest.raises(BlindspotError, match="A latent is zero"):
        rescale(torch.zeros_like(first), first)


def test_what_does_not_fit_is_said_in_a_sentence(latent_prior):
    with pytest.raises(BlindspotError, match="choose 1 to 1000"):
        DeterministicGenerator(latent_prior, 0)
    generator = DeterministicGenerator(latent_prior, 1)
    with pytest.raises(BlindspotError, match=r"latents have shape \[4, 8, 8\], not \[3, 8, 8\]"):
        generator(torch.zeros(1, 3, 8, 8))
    with pytest.raises(BlindspotError, match="no finite image of latent 2"):
        generator(torch.stack([torch.zeros(4, 8, 8), torch.full((4, 8, 8), math.nan)]))
