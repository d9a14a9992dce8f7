"""What drawing a concept of an atlas needs: its encoder, dictionary and prior, loaded when asked for and kept."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch

from engine.dictionary.checkpoints import load_dictionary
from engine.errors import BlindspotError
from engine.priors.base import DiffusionPrior
from engine.priors.loading import load_prior, open_pipeline
from engine.vision.encoder import Encoder
from engine.vision.spec import EncoderConfig, EncoderSpec

_LOADING = threading.Lock()


class AtlasLike(Protocol):
    """The part of `engine.atlas.Atlas` that drawing needs."""

    path: Path
    info: Any
    """With mappings `encoder` and `dictionary`, a mapping or None `prior`, and a `name`."""
    images: Any
    """All images, a DataFrame indexed by image with a column `source`."""
    concepts: Any
    """A DataFrame over concepts with a column `dead`."""

    def resolve(self, ref: str) -> str | Path:
        """A model's reference to something `from_pretrained` accepts."""

    def exemplars(self, source: str, concept: int, count: int = 9) -> Any:
        """Best images of a concept, a DataFrame with a column `image`."""

    def image(self, image: int) -> Any:
        """An image's thumbnail."""


class Instruments:
    """The models that belong to an atlas, on one device; two instances of the same atlas share them.

    Parameters
    ----------
    atlas
        An open atlas.
    device
        Where the models run: "cpu", "cuda" ...; None takes the GPU if there is one.
    """

    def __init__(self, atlas: AtlasLike, device: str | None = None):
        self.atlas = atlas
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def encoder(self) -> Encoder:
        """The atlas's image encoder."""
        spec = self.atlas.info.encoder
        return _shared(_encoder, str(self.atlas.resolve(spec["id"])), _frozen(spec), self.device)

    @property
    def dictionary(self) -> Any:
        """The atlas's dictionary of concepts."""
        folder = Path(self.atlas.path) / "dictionary"
        return _shared(_dictionary, str(folder), _version(folder), self.device)

    @property
    def prior(self) -> DiffusionPrior:
        """The atlas's diffusion prior.

        Raises
        ------
        BlindspotError
            If the atlas names none.
        """
        prior = self.atlas.info.prior
        if not prior:
            raise BlindspotError(
                f"Atlas {self.atlas.info.name!r} names no diffusion prior to draw with: set `prior` in its recipe."
            )
        path = self.atlas.resolve(prior["id"])
        return _shared(_prior, str(path), _version(Path(path)), _frozen(prior), self.device)

    @property
    def pipeline(self) -> Any:
        """The diffusers pipeline of the atlas's prior, for methods that write prompts.

        Raises
        ------
        BlindspotError
            If the atlas names no prior, or one without prompts.
        """
        prior = self.atlas.info.prior
        if not prior or prior.get("kind", "latent") != "latent":
            raise BlindspotError(
                f"Atlas {self.atlas.info.name!r} names no text-to-image prior to write prompts for: choose a method "
                "without prompts."
            )
        path = self.atlas.resolve(prior["id"])
        return _shared(_pipeline, str(path), _version(Path(path)), self.device)

    def load(self) -> None:
        """Load everything now, so that the first drawing need not wait for it."""
        for part in (self.encoder, self.dictionary, self.prior):
            del part


def _shared(loader: Any, *key: Any) -> Any:
    """Call a cached loader; one at a time, so that two threads never load the same model twice."""
    with _LOADING:
        return loader(*key)


def _frozen(description: Mapping[str, Any]) -> str:
    return json.dumps(dict(description), sort_keys=True, default=str)


def _version(folder: Path) -> int:
    """Newest change below a local folder, so that retrained weights are read anew; 0 for a hub id."""
    return max((file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()), default=0)


@lru_cache(maxsize=2)
def _encoder(path: str, description: str, device: str) -> Encoder:
    spec = EncoderSpec.from_dict(json.loads(description))
    config = EncoderConfig(path, spec.revision, spec.layer, spec.hook, spec.image_size, spec.resize)
    return Encoder.from_pretrained(config, device=device)


@lru_cache(maxsize=4)
def _dictionary(folder: str, version: int, device: str) -> Any:
    return load_dictionary(folder, device).requires_grad_(False).eval()


@lru_cache(maxsize=1)
def _pipeline(path: str, version: int, device: str) -> Any:
    return open_pipeline(path, device, torch.float32)


@lru_cache(maxsize=2)
def _prior(path: str, version: int, description: str, device: str) -> DiffusionPrior:
    spec = json.loads(description)
    return load_prior(
        path,
        spec.get("kind", "latent"),
        spec.get("prompt", ""),
        spec.get("guidance", 1.0),
        device,
        label=spec.get("label"),
        scheduler=spec.get("scheduler"),
    )
