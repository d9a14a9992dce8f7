"""Where images are drawn: a CUDA GPU if there is one, and one sentence for what this machine or a CPU cannot."""

import pytest
import torch

from engine.devices import Placement, drawing_placement, pick_device
from engine.errors import BlindspotError


@pytest.fixture
def two_gpus(monkeypatch):
    """A machine that says it has two CUDA GPUs."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)


def test_without_a_gpu_it_is_the_cpu_in_float32():
    assert drawing_placement() == drawing_placement("auto") == Placement("cpu", "float32")


def test_a_gpu_comes_first_and_one_can_be_chosen(two_gpus):
    assert drawing_placement() == Placement("cuda", "float32")
    assert drawing_placement("cuda:1", "bfloat16") == Placement("cuda:1", "bfloat16")
    assert drawing_placement("cpu") == Placement("cpu", "float32")


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "gpu", "cpu:x", "cuda:-1", "cuda:", ""])
def test_a_device_that_is_not_there_is_one_sentence(device):
    with pytest.raises(BlindspotError, match=f"The device {device} is asked for, which this machine lacks"):
        pick_device(device)
    with pytest.raises(BlindspotError, match="which this machine lacks"):
        drawing_placement(device)


@pytest.mark.parametrize(
    ("device", "dtype", "sentence"),
    [
        ("cpu", "bfloat16", "drawn in float32 on a CPU, not in bfloat16"),
        ("cuda", "float16", "not in float16, where the small gradients of a score would vanish"),
        ("cuda:1", "double", "in float32 or bfloat16, not in double"),
        ("mps", None, "on a CPU or a CUDA GPU, not on mps"),
    ],
)
def test_a_precision_or_device_that_cannot_draw_is_one_sentence(two_gpus, monkeypatch, device, dtype, sentence):
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    with pytest.raises(BlindspotError, match=sentence):
        drawing_placement(device, dtype)


def test_models_are_asked_for_in_the_device_and_dtype(two_gpus, monkeypatch):
    """On a machine with a GPU, the models of an atlas go there."""
    from types import SimpleNamespace

    from engine.samplers import models
    from engine.vision.spec import EncoderSpec

    asked = []
    monkeypatch.setattr(models, "load_prior", lambda spec, **where: asked.append(where))
    monkeypatch.setattr(
        models.Encoder, "from_pretrained", lambda config, **where: asked.append((config.dtype, where)) or loaded
    )
    monkeypatch.setattr(models, "agreed_model", lambda found, *_: found)
    spec = {
        "id": "e",
        "revision": None,
        "layer": None,
        "image_size": 32,
        "patch": 8,
        "grid": [4, 4],
        "dim": 16,
        "prefix_tokens": 1,
        "resize": "square",
        "interpolation": "bicubic",
        "mean": [0, 0, 0],
        "std": [1, 1, 1],
    }
    loaded = SimpleNamespace(spec=EncoderSpec.from_dict(spec))
    info = SimpleNamespace(name="a", prior={"id": "p", "kind": "pixel"}, priors={}, encoder=spec)
    atlas = SimpleNamespace(path="nowhere", info=info, resolve=lambda ref: ref)
    bundle = models.ModelBundle(atlas, *drawing_placement("cuda:1", "bfloat16"))
    assert bundle.prior is None and bundle.encoder is loaded
    assert asked == [{"device": "cuda:1", "dtype": torch.bfloat16}, ("bfloat16", {"device": "cuda:1"})]
