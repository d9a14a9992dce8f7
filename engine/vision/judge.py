"""A judge: an image classifier that says what a picture shows, independently of the concepts that it is drawn for.

Any classifier of `transformers` will do, from a folder or the hub. One whose config says
`problem_type: multi_label_classification` may see several labels in an image, each from its own probability on (the
config's `thresholds`, else 0.5); any other sees the most likely label alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from engine.errors import BlindspotError
from engine.hub import find_model, loading_options
from engine.vision.preprocess import prepare
from engine.vision.pretrained import image_settings
from engine.vision.spec import EncoderSpec, JudgeSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DEFAULT_SIZE = 224
"""Side in pixels of what a judge sees whose settings do not say."""
DEFAULT_THRESHOLD = 0.5
BATCH = 64


class Judge:
    """An image classifier with its labels.

    Parameters
    ----------
    model
        A `transformers` image classifier in evaluation mode.
    preparation
        How images become its input; of the fields only size, resize, interpolation, mean, std and crop matter.
    """

    def __init__(self, model: PreTrainedModel, preparation: EncoderSpec) -> None:
        config: Any = model.config
        self.model, self.preparation = model, preparation
        self.labels = tuple(str(config.id2label[index]) for index in range(config.num_labels))
        """What it can see, in the order of its logits."""
        self.multi_label = config.problem_type == "multi_label_classification"
        """Whether an image may show several of them."""
        self.thresholds = _thresholds(config, self.labels) if self.multi_label else None
        """Per label, the probability from which an image shows it [labels]; None where only the most likely counts."""

    @classmethod
    def from_pretrained(cls, spec: JudgeSpec | str | Path, device: str | torch.device = "cpu") -> Judge:
        """Load a judge from a folder or a hub id; safetensors only, and no code of its own is run.

        Raises
        ------
        BlindspotError
            If there is no such classifier, or its weights or labels are not whole.
        """
        if not isinstance(spec, JudgeSpec):
            spec = JudgeSpec(id=str(spec))
        model = _load_classifier(spec).eval().requires_grad_(False).to(device)
        settings = image_settings(spec.id, spec.revision)
        size = settings.image_size or getattr(model.config, "image_size", None) or DEFAULT_SIZE
        return cls(
            model,
            EncoderSpec(
                id=spec.id, revision=spec.revision, layer=None, image_size=int(size), patch=int(size), grid=(1, 1),
                prefix_tokens=0, dim=int(model.config.num_labels), resize=settings.resize,
                interpolation=settings.interpolation, mean=settings.mean, std=settings.std,
                crop_fraction=settings.crop_fraction,
            ),
        )  # fmt: skip

    @torch.no_grad()
    def probabilities(self, images: Float[Tensor, "n 3 height width"]) -> Float[np.ndarray, "n labels"]:
        """How likely each image, in [0, 1], shows each label; over the labels they add up to 1 unless `multi_label`."""
        parts = []
        for part in images.split(BATCH):
            logits = self.model(prepare(part.to(self.model.device), self.preparation)).logits.float()
            parts.append(logits.sigmoid() if self.multi_label else logits.softmax(dim=-1))
        return torch.cat(parts).cpu().numpy() if parts else np.zeros((0, len(self.labels)), np.float32)

    def decide(self, probabilities: Float[np.ndarray, "n labels"]) -> Bool[np.ndarray, "n labels"]:
        """Which labels each image shows."""
        if self.thresholds is not None:
            return probabilities >= self.thresholds
        return probabilities.argmax(axis=1)[:, None] == np.arange(len(self.labels))

    def sees(
        self, images: Float[Tensor, "n 3 height width"], label: str, threshold: float | None = None
    ) -> Bool[np.ndarray, " n"]:
        """Whether each image shows a label.

        Parameters
        ----------
        images
            In [0, 1].
        label
            One of `labels`.
        threshold
            Replaces the judge's own, if it has one.

        Raises
        ------
        BlindspotError
            If it does not know the label.
        """
        if label not in self.labels:
            raise BlindspotError(f"The judge {self.preparation.id} does not know the label {label!r}: run `run` again.")
        column, found = self.labels.index(label), self.probabilities(images)
        if self.thresholds is not None and threshold is not None:
            return found[:, column] >= threshold
        return self.decide(found)[:, column]


def _thresholds(config: Any, labels: tuple[str, ...]) -> np.ndarray:
    """The probability from which each label counts as seen, float32 [labels]."""
    own = getattr(config, "thresholds", None) or {}
    values = [own.get(label, DEFAULT_THRESHOLD) if isinstance(own, Mapping) else None for label in labels]
    if not all(isinstance(value, int | float) and 0 < value < 1 for value in values):
        raise BlindspotError(
            f"The thresholds in the config.json of the judge {config.name_or_path} are no probabilities by label: "
            "repair or remove them."
        )
    return np.array(values, np.float32)


def _load_classifier(spec: JudgeSpec) -> PreTrainedModel:
    """The weights and config; of a hub id, what an earlier download left on this machine is tried first."""
    from transformers import AutoModelForImageClassification  # takes seconds to load

    found = find_model(spec.id, f"There is no judge folder {spec.id}; check the path.")
    options: dict[str, Any] = {"revision": spec.revision or "main", **loading_options(found, spec.revision)}
    for local in (True, False):
        try:
            model, loading = AutoModelForImageClassification.from_pretrained(
                str(found), output_loading_info=True, use_safetensors=True, dtype=torch.float32,
                local_files_only=local, **options,
            )  # fmt: skip
            break
        except Exception as error:  # whatever a config of another kind makes transformers say
            first_line = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:") + "."
            if isinstance(found, Path) or not local:
                raise BlindspotError(f"The judge {spec.id} cannot be loaded: {first_line}") from error
    if loading["missing_keys"] or loading.get("mismatched_keys"):
        raise BlindspotError(
            f"The weights of the judge {spec.id} do not fit its config.json, or it is no classifier; get both from "
            "the same checkpoint."
        )
    return model
