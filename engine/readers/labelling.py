"""What readers are asked about a concept: a label for it, and whether held-out images show what the label says.

Detection shows whole images, fuzzing masked crops ("Automatically Interpreting Millions of Features in Large Language
Models", arXiv:2410.13928, section 3.2, on images). No caption is part of a question: text can only come from an image,
and changes no label but that of the concept that the image belongs to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from engine.readers.base import Question, clean_text

LABEL, DETECTION, FUZZING = "label/1", "detection/1", "fuzzing/1"
"""Names and versions of the prompts: a changed prompt is a new version."""
LABEL_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "label": {"type": "string", "description": "two to five words, lower case"},
        "description": {"type": "string", "description": "one sentence"},
        "confidence": {"type": "number", "description": "from 0 to 1"},
    },
    "required": ["label", "description", "confidence"],
    "additionalProperties": False,
}


class GivenLabel(NamedTuple):
    """What a reader calls a concept."""

    label: str
    description: str
    confidence: float
    """In [0, 1]."""


def label_question(crops: Sequence[bytes], negatives: Sequence[bytes]) -> Question:
    """Ask for a label.

    Parameters
    ----------
    crops
        Masked crops of images that show the concept best (`engine.readers.crops.masked_crop`).
    negatives
        Whole images much like them that do not show it.
    """
    text = (
        f"The first {len(crops)} images show one visual concept: only areas that contain it are preserved, all else "
        "was removed and is grey. "
    )
    if negatives:
        text += f"The other {len(negatives)} are whole images that do not contain it. "
    text += (
        "What is the concept: an object, a part, a texture, a colour, a place in the image, a style? Give a short "
        "label of two to five words that holds for the preserved areas of all, and for none of the other images; one "
        "sentence of description; and how confident you are, from 0 to 1."
    )
    return Question(LABEL, text, (*crops, *negatives), LABEL_SCHEMA)


def given_label(value: Mapping[str, Any], most: int, longest: int) -> GivenLabel | None:
    """A label from an answer, its texts cut to so many characters; None if it says nothing."""
    label = clean_text(value["label"], most).strip(" .\"'")
    confidence = float(value["confidence"])
    if not label:
        return None
    return GivenLabel(label, clean_text(value["description"], longest), min(max(confidence, 0.0), 1.0))


def shown_question(given: GivenLabel, images: Sequence[bytes], *, masked: bool) -> Question:
    """Ask which images, whole or masked crops, show what a label says."""
    text = (
        f"Which of these {len(images)} images show this visual concept? {_quoted(given)} "
        + ("Only an area of each image is preserved, all else is grey; judge that area alone. " if masked else "")
        + 'Answer in "shown" with true or false for each image, in their order.'
    )
    many = {"type": "array", "items": {"type": "boolean"}, "minItems": len(images), "maxItems": len(images)}
    schema = {
        "type": "object", "properties": {"shown": many}, "required": ["shown"], "additionalProperties": False,
    }  # fmt: skip
    return Question(FUZZING if masked else DETECTION, text, tuple(images), schema)


def _quoted(given: GivenLabel) -> str:
    """A label and its description as JSON, so that they read as material."""
    return json.dumps({"label": given.label, "description": given.description}, ensure_ascii=False)
