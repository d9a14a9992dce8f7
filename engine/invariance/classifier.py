"""Image classifiers of `transformers`, with the image settings of their authors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedModel

from engine.errors import BlindspotError
from engine.hub import find_model, loading_options
from engine.vision.preprocess import prepare
from engine.vision.pretrained import ImageSettings, image_settings
from engine.vision.spec import EncoderSpec

DEFAULT_IMAGE_SIZE = 224


class Classifier(nn.Module):
    """A frozen classifier: images in [0, 1] of any size to logits.

    Parameters
    ----------
    model
        Its forward pass takes normalised pixels and returns an object with `logits` [n, classes].
    settings
        How its authors prepared images.
    name
        What error messages call it.
    """

    def __init__(self, model: PreTrainedModel, settings: ImageSettings, name: str):
        super().__init__()
        self.model, self.name = model.requires_grad_(False).eval(), name
        size = settings.image_size or getattr(model.config, "image_size", None) or DEFAULT_IMAGE_SIZE
        self.spec = EncoderSpec(
            id=name, revision=None, layer=None, image_size=int(size), patch=0, grid=(0, 0), prefix_tokens=0, dim=0,
            resize=settings.resize, interpolation=settings.interpolation, mean=settings.mean, std=settings.std,
            crop_fraction=settings.crop_fraction,
        )  # fmt: skip

    @classmethod
    def from_pretrained(
        cls, source: str, device: str | torch.device = "cpu", revision: str | None = None, download: bool = False
    ) -> Classifier:
        """Open a folder or hub id that `AutoModelForImageClassification` knows: safetensors, no code of the model's.

        Parameters
        ----------
        download
            Whether a model of the hub that is not on this machine is fetched.

        Raises
        ------
        BlindspotError
            If there is no such model, it does not classify images, or its weights do not fit.
        """
        found = find_model(source, f"There is no classifier {source}: give a folder or a Hugging Face id.")
        if isinstance(found, Path) and not (found / "config.json").is_file():
            raise BlindspotError(f"The classifier folder {source} has no config.json: give a saved transformers model.")
        options: dict[str, Any] = {"revision": revision or "main", **loading_options(found, revision)}
        options["local_files_only"] = isinstance(found, Path) or not download
        try:
            config = AutoConfig.from_pretrained(str(found), **options)
            options |= {"config": config, "use_safetensors": True, "dtype": torch.float32}
            model, loading = AutoModelForImageClassification.from_pretrained(
                str(found), output_loading_info=True, **options
            )
        except Exception as error:  # whatever transformers says of a model of another kind
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")
            hint = "" if isinstance(found, Path) or download else "; if it is on the hub, use --allow-download"
            raise BlindspotError(f"The classifier {source} cannot be loaded: {reason}{hint}.") from error
        if loading["missing_keys"]:
            raise BlindspotError(
                f"The model {source} has no trained {sorted(loading['missing_keys'])[0]}: choose one that was trained "
                "to classify images."
            )
        settings = image_settings(str(found), revision) if isinstance(found, Path) or download else _cached(found)
        return cls(model.to(device), settings, source)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""
        names = self.model.config.id2label
        return tuple(str(names.get(number, number)) for number in range(self.model.config.num_labels))

    def class_number(self, label: str | int) -> int:
        """Number of a class, given its number, its name, or one of the names between commas.

        Raises
        ------
        BlindspotError
            If there is no such class.
        """
        wanted, labels = str(label).strip().lower(), self.labels
        if wanted.isdecimal() and int(wanted) < len(labels):
            return int(wanted)
        for number, name in enumerate(labels):
            if wanted in (name.lower(), *(part.strip() for part in name.lower().split(","))):
                return number
        raise BlindspotError(
            f"The classifier {self.name} has no class {label}: choose 0 to {len(labels) - 1} or a name such as "
            f"{labels[0]!r}."
        )

    def forward(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n classes"]:
        """Logits of images; resizes and normalises inside, differentiable."""
        pixels = prepare(images.to(self.model.device).float(), self.spec)
        return self.model(pixel_values=pixels).logits.float()


def _cached(source: str) -> ImageSettings:
    """Image settings of a model of the hub that an earlier download left on this machine."""
    from huggingface_hub import snapshot_download

    return image_settings(snapshot_download(source, local_files_only=True), None)
