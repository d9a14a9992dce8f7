"""The path of a GPU as far as a machine without one can go: placement, batches, memory; kernels are the CPU's."""

import warnings
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from engine.atlas import Atlas
from engine.samplers.batches import draw_into
from engine.samplers.energy_dps import EnergyDPS
from engine.samplers.execution import MicroBatches, samples_together
from engine.samplers.generation import GenerationRequest, generate_images
from engine.samplers.models import ModelBundle
from engine.samplers.registry import SAMPLERS
from tests.engine.priors.tiny import GaussianPrior
from tests.engine.samplers.pretend import GPU, OnGPU, pretended_gpu

CONCEPT = 2


@pytest.fixture
def gpu(monkeypatch, atlas):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that autocast has no CUDA
        with pretended_gpu(monkeypatch, atlas):
            yield


def request_of(method, **more):
    return GenerationRequest(CONCEPT, method, count=3, steps=4, particles=2, candidates=2, **more)


def test_the_pretence_refuses_what_a_gpu_refuses(gpu):
    there, here = torch.ones(2, device="cuda"), torch.ones(2)
    assert isinstance(there, OnGPU) and there.device == GPU and (there + there).is_cuda and here.device.type == "cpu"
    assert isinstance(here.to("cuda"), OnGPU) and there.cpu().device.type == "cpu" and not there.cpu().is_cuda
    with pytest.raises(RuntimeError, match="on the same device"):
        there + here
    with pytest.raises(TypeError, match="to numpy"):
        there.numpy()
    torch.testing.assert_close(torch.autograd.grad((there.requires_grad_() ** 2).sum(), there)[0].cpu(), 2 * here)


def test_how_many_share_a_kernel_is_the_device_s_matter():
    assert samples_together("auto", "cpu") == 1 and samples_together("auto", "cuda:1") is None
    assert samples_together(3, "cuda") == 3 and samples_together(None, "cpu") is None


SLOW = {"soft-prompt": [pytest.mark.slow]}
"""It learns a prompt first."""


@pytest.mark.parametrize("method", [pytest.param(name, marks=SLOW.get(name, [])) for name in SAMPLERS])
def test_every_method_draws_on_a_gpu_what_it_draws_on_a_cpu(atlas, monkeypatch, method):
    """Up to rounding: the same noise, in batches of three."""
    request = request_of(method)
    if method == "soft-prompt":
        request = request_of(method, strength=0.0)
        # Torch recomputes activations outside of the pretence.
        monkeypatch.setattr("engine.samplers.soft_prompt.checkpointed", lambda *_: nullcontext())
    here = generate_images(atlas, request, "cpu")
    with warnings.catch_warnings(), pretended_gpu(monkeypatch, atlas):
        warnings.simplefilter("ignore")
        there = generate_images(atlas, request)
    assert there.device == "cuda" and isinstance(there.samples.images, OnGPU)
    np.testing.assert_allclose(there.samples.images.cpu(), here.samples.images, atol=2e-3)
    np.testing.assert_allclose(there.samples.scores.cpu(), here.samples.scores, atol=1e-3)


def test_samples_share_a_kernel_there_and_have_their_own_here(atlas, gpu):
    sizes = []

    def score(images):
        sizes.append(len(images))
        return images.mean(dim=(1, 2, 3))

    EnergyDPS(ModelBundle(atlas).prior, 2).sample(score, 5)
    assert set(sizes) == {5}
    sizes.clear()
    EnergyDPS(GaussianPrior(), 2).sample(score, 5)
    assert set(sizes) == {1}


def test_a_batch_that_does_not_fit_is_halved_and_its_memory_handed_back(gpu, monkeypatch):
    freed, sizes = [], []
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: freed.append(True))

    def work(rows):
        sizes.append(len(rows))
        if len(rows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return rows * 2

    found = MicroBatches().map(work, torch.arange(8, device="cuda"))
    assert sizes == [8, 4, 2, 2, 2, 2] and len(freed) == 2 and all(part.is_cuda for part in found)


def test_files_of_a_gpu_s_drawing_say_where_they_were_drawn(atlas, gpu, tmp_path):
    record = draw_into(tmp_path, atlas, request_of("energydps", like="0", like_by="pixels"))
    assert (record["device"], record["dtype"], len(record["images"])) == ("cuda", "float32", 3)
    assert len(record["task_scores"]) == 3 and max(record["task_scores"]) < 0
    matched = draw_into(tmp_path / "other", Atlas.open(atlas.path), request_of("energy-guidance", match=True))
    assert matched["matched"]["samples"] == 4 and len(matched["images"]) == 3
