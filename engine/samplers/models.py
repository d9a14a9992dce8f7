"""The models and images of an atlas that drawing needs; models are loaded on first use and kept."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from engine.atlas.schema import prior_of
from engine.devices import Dtype, drawing_placement
from engine.dictionary.base import CONFIG, WEIGHTS, Dictionary
from engine.errors import BlindspotError
from engine.files import regular_file
from engine.hub import agreed_model
from engine.priors.base import DiffusionPrior
from engine.priors.loading import load_prior, open_pipeline
from engine.priors.spec import PriorSpec
from engine.vision.encoder import Encoder
from engine.vision.judge import Judge
from engine.vision.preprocess import to_tensor
from engine.vision.spec import EncoderConfig, EncoderSpec, JudgeSpec
from engine.vision.text_image import TextImageEncoder

if TYPE_CHECKING:
    from engine.atlas.reader import Atlas

_LOADING = threading.Lock()


class ModelBundle:
    """The models that belong to an atlas, on one device; two bundles of the same atlas share them.

    Parameters
    ----------
    atlas
        An open atlas.
    device
        Where the models run, see `engine.devices.drawing_placement`: None or "auto" takes the GPU if there is one.
    dtype
        Precision of the encoder's and the prior's weights; the dictionary's are always float32.
    prior
        Name of the prior, where the atlas names several; None for its first.

    Raises
    ------
    BlindspotError
        If this machine has no such device, or the atlas no such prior.
    """

    def __init__(self, atlas: Atlas, device: str | None = None, dtype: Dtype = "float32", prior: str | None = None):
        self.atlas, self.dtype = atlas, dtype
        self.device = drawing_placement(device).device
        self.prior_spec = prior_of(atlas.info, prior)
        """What the header says of the prior; None where it names none."""

    @property
    def encoder(self) -> Encoder:
        """The atlas's image encoder."""
        spec = self.atlas.info.encoder
        return _shared(_encoder, str(self._model(spec)), _frozen(spec), self.device, self.dtype)

    @property
    def dictionary(self) -> Dictionary:
        """The atlas's dictionary of concepts."""
        folder = Path(self.atlas.path) / "dictionary"
        for name in (CONFIG, WEIGHTS):
            if (folder / name).exists():
                regular_file(self.atlas.path, f"dictionary/{name}")
        return _shared(_dictionary, str(folder), _version(folder), self.device)

    @property
    def prior(self) -> DiffusionPrior:
        """The atlas's diffusion prior.

        Raises
        ------
        BlindspotError
            If the atlas names none.
        """
        prior = self.prior_spec
        if not prior:
            raise BlindspotError(
                f"Atlas {self.atlas.info.name!r} names no diffusion prior to draw with: set `prior` in its recipe."
            )
        path = self._model(prior)
        return _shared(_prior, str(path), _version(Path(path)), _frozen(prior), self.device, self.dtype)

    @property
    def judge(self) -> Judge:
        """The atlas's judge, in float32 on the device of the others.

        Raises
        ------
        BlindspotError
            If the atlas names none, or it may not be loaded (`engine.hub.agreed_model`) or is broken.
        """
        judge = self.atlas.info.judge
        if not judge or "id" not in judge:
            raise BlindspotError(f"Atlas {self.atlas.info.name!r} names no judge: set `judge` in its recipe.")
        path = self._model(judge)
        return _shared(_judge, str(path), _version(Path(path)), _frozen(judge), self.device)

    @property
    def pipeline(self) -> Any:
        """The diffusers pipeline of the atlas's prior, for methods that write prompts.

        Raises
        ------
        BlindspotError
            If the atlas names no prior, or one without prompts.
        """
        prior = self.prior_spec
        if not prior or prior.get("kind", "latent") != "latent":
            raise BlindspotError(
                f"Atlas {self.atlas.info.name!r} names no text-to-image prior to write prompts for: choose a method "
                "without prompts."
            )
        path = self._model(prior)
        return _shared(_pipeline, str(path), _version(Path(path)), self.device, self.dtype)

    def _model(self, described: Mapping[str, Any]) -> str | Path:
        """Where a model of the header is, once it may be loaded."""
        found = self.atlas.resolve(described["id"])
        return agreed_model(found, described["id"], self.atlas.path, described.get("revision"))

    def text_encoder(self, source: str | None = None) -> TextImageEncoder:
        """A model of texts and images by its folder or hub id, which is loaded from there; None: the atlas's encoder.

        Raises
        ------
        BlindspotError
            If there is none, or it does not embed texts.
        """
        found, revision = source, None
        if found is None:
            found, revision = str(self._model(self.atlas.info.encoder)), self.atlas.info.encoder.get("revision")
        try:
            return _shared(_text_encoder, found, revision, _version(Path(found)), self.device, self.dtype)
        except BlindspotError as error:
            if source is not None:
                raise
            raise BlindspotError(
                f"The encoder of atlas {self.atlas.info.called} cannot say how well an image fits a text: give a CLIP "
                "or SigLIP by --text-encoder, for example openai/clip-vit-base-patch32."
            ) from error

    def with_prior(self, name: str) -> ModelBundle:
        """Return the same models with another of the atlas's priors."""
        return ModelBundle(self.atlas, self.device, self.dtype, name)

    def load(self) -> None:
        """Load everything now, so that the first drawing need not wait for it."""
        for part in (self.encoder, self.dictionary, self.prior):
            del part


def real_images(atlas: Atlas, at_most: int | None = None) -> np.ndarray:
    """Ids [n] of an atlas's real images, or of at most this many, evenly spread over them.

    Raises
    ------
    BlindspotError
        If it has none.
    """
    sources = atlas.images["source"]
    images = sources.index[sources == "real"].to_numpy()
    if not len(images):
        raise BlindspotError(f"Atlas {atlas.info.name!r} holds no real images: choose a method that draws.")
    if at_most is None:
        return images
    return images[np.linspace(0, len(images) - 1, min(len(images), at_most)).round().astype(int)]


def thumbnails(atlas: Atlas, images: Iterable[int], spec: EncoderSpec) -> Float[Tensor, "n 3 size size"]:
    """The thumbnails of images in [0, 1], as the encoder sees them: size is its `image_size`."""
    return to_tensor([atlas.image(int(image)) for image in images], spec)


def _shared(loader: Any, *key: Any) -> Any:
    """Call a cached loader; one at a time, so that two threads never load the same model twice."""
    with _LOADING:
        return loader(*key)


def _frozen(description: Mapping[str, Any]) -> str:
    return json.dumps(dict(description), sort_keys=True, default=str)


def _version(folder: Path) -> int:
    """Newest change below a local folder, so that retrained weights are read anew; 0 for a hub id."""
    return max((file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()), default=0)


_for_gradients = torch.inference_mode(False)
"""Models that are loaded while someone only infers serve drawings, too: inference tensors never have a gradient."""


@lru_cache(maxsize=2)
@_for_gradients
def _encoder(path: str, description: str, device: str, dtype: Dtype) -> Encoder:
    spec = EncoderSpec.from_dict(json.loads(description))
    config = EncoderConfig(path, spec.revision, spec.layer, spec.hook, spec.image_size, spec.resize, dtype=dtype)
    encoder = Encoder.from_pretrained(config, device=device)
    encoder.spec = replace(encoder.spec, eight_bits=spec.eight_bits)
    return encoder


@lru_cache(maxsize=4)
@_for_gradients
def _dictionary(folder: str, version: int, device: str) -> Dictionary:
    return Dictionary.from_pretrained(folder, device)


@lru_cache(maxsize=2)
@_for_gradients
def _judge(path: str, version: int, description: str, device: str) -> Judge:
    return Judge.from_pretrained(replace(JudgeSpec.from_dict(json.loads(description)), id=path), device)


@lru_cache(maxsize=1)
@_for_gradients
def _text_encoder(path: str, revision: str | None, version: int, device: str, dtype: Dtype) -> TextImageEncoder:
    return TextImageEncoder.from_pretrained(path, revision, device, getattr(torch, dtype))


@lru_cache(maxsize=1)
@_for_gradients
def _pipeline(path: str, version: int, device: str, dtype: Dtype) -> Any:
    return open_pipeline(path, device, getattr(torch, dtype))


@lru_cache(maxsize=2)
@_for_gradients
def _prior(path: str, version: int, description: str, device: str, dtype: Dtype) -> DiffusionPrior:
    spec = replace(PriorSpec.from_dict(json.loads(description)), id=path)
    return load_prior(spec, device=device, dtype=getattr(torch, dtype))
