"""Judges of other packages: what is missing is one sentence, and they are called as their documentation says."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.errors import BlindspotError
from engine.vision import quality
from engine.vision.quality import FeatureNetwork, lpips_distances, no_reference_judge, require_quality

PYIQA = """
import torch

class Metric(torch.nn.Module):  # as pyiqa 0.1.16's InferenceModel checks its input and as its networks answer
    def __init__(self, name):
        super().__init__()
        self.name = name

    def forward(self, target, ref=None, **kwargs):
        assert target.dim() == 4 and target.shape[1] == 3 and target.min() >= 0 and target.max() <= 1
        assert target.shape[-1] >= 32, 'too small'
        mean = target.mean(dim=(1, 2, 3))
        return mean.squeeze() if self.name == 'nrqm' else mean[:, None]

def create_metric(metric_name, as_loss=False, device=None, **kwargs):
    assert isinstance(device, torch.device) and not kwargs
    return Metric(metric_name)
"""
LPIPS = """
import torch

class LPIPS(torch.nn.Module):
    def __init__(self, pretrained=True, net='alex', version='0.1', lpips=True, spatial=False, pnet_rand=False,
                 pnet_tune=False, use_dropout=True, model_path=None, eval_mode=True, verbose=True):
        super().__init__()
        assert net == 'alex' and not verbose

    def forward(self, in0, in1, retPerLayer=False, normalize=False):
        if normalize:
            in0, in1 = 2 * in0 - 1, 2 * in1 - 1
        return (in0 - in1).abs().mean(dim=(1, 2, 3), keepdim=True)
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Stand-ins of the packages and of their weights, where torch's hub keeps them."""
    (tmp_path / "pyiqa.py").write_text(PYIQA)
    (tmp_path / "lpips.py").write_text(LPIPS)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("pyiqa", "lpips"):
        sys.modules.pop(name, None)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    for model in quality.QUALITY_MODELS.values():
        for file in model.weights:
            (tmp_path / "hub" / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "hub" / file).touch()
    yield tmp_path
    for name in ("pyiqa", "lpips"):
        sys.modules.pop(name, None)


def test_what_is_missing_is_said_with_the_remedy_and_the_licence(installed: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(BlindspotError, match="no quality judge 'fid': choose among nrqm, qualiclip, lpips"):
        require_quality("fid")
    (installed / "hub/clip/RN50.pt").unlink()
    with pytest.raises(BlindspotError, match=r"qualiclip needs the weights clip/RN50.pt in .*hub: .*--weights"):
        no_reference_judge("qualiclip")
    monkeypatch.setattr(quality, "find_spec", lambda name: None)
    with pytest.raises(BlindspotError, match=r"nrqm needs the package pyiqa, .*'blindspot-atlas\[judges\]'"):
        no_reference_judge("nrqm")
    with pytest.raises(BlindspotError, match=r"PolyForm Noncommercial.*CC BY-NC-SA 4.0"):
        require_quality("nrqm")


def test_they_judge_each_image_and_each_pair(installed: Path):
    images = torch.rand(17, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for name in ("nrqm", "qualiclip"):  # the last of 17 images is a batch of its own
        assert no_reference_judge(name)(images) == pytest.approx(images.mean(dim=(1, 2, 3)).numpy())
    with pytest.raises(BlindspotError, match="nrqm cannot judge images of 8 x 8 pixels: too small"):
        no_reference_judge("nrqm")(images[..., :8, :8])
    found = lpips_distances(images)
    assert found[3, 11] == found[11, 3] == pytest.approx(2 * float((images[3] - images[11]).abs().mean()), rel=1e-5)
    assert not np.diagonal(found).any() and (found + np.eye(17) > 0).all()


class Colours(torch.nn.Module):
    """As Inception's published TorchScript file: bytes in, features only on demand."""

    def forward(self, img: torch.Tensor, use_fp16: bool = False, return_features: bool = False):
        assert img.dtype == torch.uint8
        features = img.float().mean(dim=(2, 3))
        if return_features:
            return features
        return features.sum(dim=1, keepdim=True)


def test_a_torchscript_network_gives_its_features_of_bytes(tmp_path: Path):
    torch.jit.script(Colours()).save(tmp_path / "inception.pt")
    network = FeatureNetwork(tmp_path / "inception.pt")
    image = Image.new("RGB", (8, 8), (10, 20, 250))
    assert network.features([image, image]).tolist() == [[10.0, 20.0, 250.0]] * 2
    assert (network.name, network.unit) == ("inception", False)
    with pytest.raises(BlindspotError, match="no feature network"):
        FeatureNetwork(tmp_path / "nothing.pt")
    (tmp_path / "broken.pt").write_bytes(b"no zip")
    with pytest.raises(BlindspotError, match="no TorchScript file"):
        FeatureNetwork(tmp_path / "broken.pt")
