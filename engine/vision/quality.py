"""Judges of single images that others trained, and other networks' features: optional packages, local weights.

* NRQM (Ma et al., 2017) and QualiCLIP (Agnolucci et al., 2024) by `pyiqa`: how good an image looks, without a
  reference. Its code is under the PolyForm Noncommercial License 1.0.0, its weights under CC BY-NC-SA 4.0.
* LPIPS (Zhang et al., 2018) by `lpips`, BSD 2-clause: how different two images look.
* Features of Inception v3 as FID and KID are printed with, or of any other network, see `FeatureNetwork`.

Nothing is downloaded: weights must lie where these packages themselves keep them, below `torch.hub.get_dir()`.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from engine.errors import BlindspotError
from engine.vision.encoder import Encoder
from engine.vision.preprocess import to_tensor

BATCH, PAIR_BATCH = 16, 64
"""Images, and pairs of images, that are judged at once."""


class QualityModel(NamedTuple):
    """A judge of single images, and what it needs."""

    package: str
    weights: tuple[str, ...]
    """Below torch's hub folder."""
    license: str
    best: str
    """Which end of its scale is good."""


QUALITY_MODELS = {
    "nrqm": QualityModel(
        "pyiqa", ("pyiqa/NRQM_model.mat",),
        "pyiqa: PolyForm Noncommercial 1.0.0, weights: CC BY-NC-SA 4.0; no commercial use", "high, about 0 to 10",
    ),
    "qualiclip": QualityModel(
        "pyiqa", ("pyiqa/QualiCLIP.pth", "clip/RN50.pt"),
        "pyiqa: PolyForm Noncommercial 1.0.0, weights: CC BY-NC-SA 4.0; no commercial use", "high, 0 to 1",
    ),
    "lpips": QualityModel("lpips", ("checkpoints/alexnet-owt-7be5be79.pth",), "lpips: BSD 2-clause", "low is alike"),
}  # fmt: skip
"""By the names that `pyiqa` and `lpips` give them."""


def require_quality(name: str) -> QualityModel:
    """Return what a judge needs, which is there.

    Raises
    ------
    BlindspotError
        If there is no such judge, or its package or weights are not on this machine.
    """
    if name not in QUALITY_MODELS:
        raise BlindspotError(f"There is no quality judge {name!r}: choose among {', '.join(QUALITY_MODELS)}.")
    model = QUALITY_MODELS[name]
    if find_spec(model.package) is None:
        raise BlindspotError(
            f"The judge {name} needs the package {model.package}, which is not installed: run "
            f"`pip install 'blindspot-atlas[judges]'` if its licence suits you ({model.license})."
        )
    hub = Path(torch.hub.get_dir())
    if missing := [file for file in model.weights if not (hub / file).is_file()]:
        raise BlindspotError(
            f"The judge {name} needs the weights {' and '.join(missing)} in {hub}: put them there, or name another "
            "folder that holds them by --weights."
        )
    return model


def no_reference_judge(name: str, device: str = "cpu") -> Callable[[Tensor], Float[np.ndarray, " n"]]:
    """Return how good images [n, 3, H, W] in [0, 1] look to `nrqm` or `qualiclip`; errors as in `require_quality`."""
    require_quality(name)
    metric = _package("pyiqa", name).create_metric(name, device=torch.device(device))

    def judge(images: Tensor) -> Float[np.ndarray, " n"]:
        parts = []
        for part in images.split(BATCH):
            try:
                with torch.no_grad():
                    parts.append(metric(part.to(device)).reshape(-1).float().cpu())
            except (RuntimeError, AssertionError) as error:
                size, line = " x ".join(map(str, part.shape[-2:])), str(error).strip().partition("\n")[0]
                raise BlindspotError(f"The judge {name} cannot judge images of {size} pixels: {line}") from error
        return torch.cat(parts).double().numpy()

    return judge


def lpips_distances(
    images: Float[Tensor, "n 3 height width"], device: str = "cpu", network: str = "alex"
) -> Float[np.ndarray, "n n"]:
    """LPIPS of all pairs of images in [0, 1]; errors as in `require_quality`."""
    require_quality("lpips")
    metric = _package("lpips", "lpips").LPIPS(net=network, verbose=False).to(device)
    left, right = torch.triu_indices(len(images), len(images), offset=1)
    distances, images = np.zeros((len(images), len(images))), images.to(device)
    for rows, columns in zip(left.split(PAIR_BATCH), right.split(PAIR_BATCH), strict=True):
        with torch.no_grad():
            found = metric(images[rows], images[columns], normalize=True).reshape(-1).float().cpu().numpy()
        distances[rows, columns] = distances[columns, rows] = found
    return distances


class FeatureNetwork:
    """A network whose features sets of images are compared by.

    Parameters
    ----------
    source
        A folder of any image backbone of `transformers`, read as an atlas's encoder is; or a TorchScript file of a
        network of uint8 images [n, 3, H, W], such as `inception-2015-12-05.pt` of StyleGAN's authors, which resizes to
        299 pixels itself. Such a file is a program: take one only from whom you trust.
    device
        Where it computes.

    Raises
    ------
    BlindspotError
        If there is no such network, or it cannot be loaded.
    """

    def __init__(self, source: str | Path, device: str = "cpu") -> None:
        self.name, self.device = Path(source).stem, device
        if not Path(source).exists():
            raise BlindspotError(f"There is no feature network {source}: give a model folder or a TorchScript file.")
        self.unit = not Path(source).is_file()
        """Whether its features are compared by their cosine; those of a TorchScript file are taken as they are."""
        self.network: Any = Encoder.from_pretrained(str(source), device=device) if self.unit else self._script(source)

    def _script(self, source: str | Path) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # TorchScript is deprecated; the published file is one
                return torch.jit.load(str(source), map_location=self.device).eval()
        except (RuntimeError, ValueError) as error:
            raise BlindspotError(f"The feature network {source} is no TorchScript file that can be loaded.") from error

    @torch.no_grad()
    def features(self, images: Sequence[Image.Image]) -> Float[np.ndarray, "n dim"]:
        """Features of images."""
        if self.unit:
            return self.network(to_tensor(images, self.network.spec)).embedding().cpu().double().numpy()
        pixels = (to_tensor(images) * 255).round().to(self.device, torch.uint8)
        arguments = {argument.name for argument in self.network.forward.schema.arguments}
        options = {"return_features": True} if "return_features" in arguments else {}
        found = self.network(pixels, **options)
        return found.flatten(1).double().cpu().numpy()


def _package(package: str, name: str) -> Any:
    """Import an optional package."""
    try:
        return importlib.import_module(package)
    except Exception as error:  # a package beside libraries that it does not fit
        line = str(error).strip().partition("\n")[0]
        raise BlindspotError(f"The judge {name} cannot be used: importing {package} fails ({line}).") from error
