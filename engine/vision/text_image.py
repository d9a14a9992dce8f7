"""Texts and images in one space: CLIP, SigLIP and every other model of `transformers` that embeds both."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from engine.errors import BlindspotError
from engine.vision.encoder import DEFAULT_IMAGE_SIZE
from engine.vision.preprocess import prepare
from engine.vision.pretrained import ImageSettings, image_settings, load_text_and_images
from engine.vision.spec import EncoderSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TextImageEncoder(nn.Module):
    """A frozen model of texts and images. Load one with `TextImageEncoder.from_pretrained`.

    Raises
    ------
    BlindspotError
        If the model does not embed an image and a text in as many numbers.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: Any, settings: ImageSettings, source: str = "") -> None:
        super().__init__()
        self.model, self.tokenizer = model.requires_grad_(False).eval(), tokenizer
        towers: list[Any] = [getattr(model.config, name, model.config) for name in ("vision_config", "text_config")]
        side = settings.image_size or getattr(towers[0], "image_size", None) or DEFAULT_IMAGE_SIZE
        self.length = min(tokenizer.model_max_length, getattr(towers[1], "max_position_embeddings", 512))
        self.spec = EncoderSpec(
            source, None, None, int(side), 0, (0, 0), 0, 0, settings.resize, settings.interpolation, settings.mean,
            settings.std, settings.crop_fraction,
        )  # fmt: skip
        try:
            with torch.no_grad():
                sizes = {self.texts(["a"]).shape[1], self.images(torch.zeros(1, 3, int(side), int(side))).shape[1]}
        except Exception as error:  # whatever a model of another kind says of an image or a text
            reason = " ".join(str(error).split())[:200]
            raise BlindspotError(
                f"The model {source} does not embed images of {side} pixels and texts as CLIP does ({reason}): choose "
                "CLIP, SigLIP or their like."
            ) from error
        if len(sizes) > 1:
            raise BlindspotError(
                f"The model {source} embeds images and texts in different spaces: choose CLIP or SigLIP."
            )

    @classmethod
    def from_pretrained(
        cls,
        source: str,
        revision: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> TextImageEncoder:
        """Load a model (safetensors), its tokenizer and its image settings from a folder or hub id.

        Raises
        ------
        BlindspotError
            If there is none, or it does not embed texts and images in one space.
        """
        model, tokenizer = load_text_and_images(source, revision, dtype)
        model.to(torch.device(device))  # type: ignore[arg-type]
        return cls(model, tokenizer, image_settings(source, revision), source)

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.model.device

    def texts(self, texts: list[str]) -> Float[Tensor, "n dim"]:
        """Unit embeddings of texts, which are cut where the model's context ends.

        They are padded to the whole context, as SigLIP was trained; CLIP does not look at the padding.
        """
        words = self.tokenizer(
            texts, padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
        )
        known = inspect.signature(self.model.get_text_features).parameters
        given = {name: value.to(self.device) for name, value in words.items() if name in known}
        return _unit(self.model.get_text_features(**given))

    def images(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n dim"]:
        """Unit embeddings of images in [0, 1] of any size; resizes and normalises inside, differentiable."""
        pixels = prepare(images.to(self.device).float(), self.spec)
        return _unit(self.model.get_image_features(pixel_values=pixels.to(self.model.dtype)))


def _unit(found: Any) -> Tensor:
    """A model's features [n, dim] at length 1."""
    return F.normalize((found if isinstance(found, Tensor) else found.pooler_output).float(), dim=-1)
