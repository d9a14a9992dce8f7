"""The encoder's description survives JSON."""

import json

import pytest

from engine.errors import BlindspotError
from engine.vision.spec import IMAGENET_MEAN, IMAGENET_STD, EncoderSpec

SPEC = EncoderSpec(
    "facebook/dinov2-with-registers-base", "abc", None, 224, 14, (16, 16), 5, 768, "crop", "bicubic", IMAGENET_MEAN,
    IMAGENET_STD,
)  # fmt: skip


def test_paper_model_has_261_tokens() -> None:
    assert SPEC.tokens == 261


def test_round_trip_through_json() -> None:
    data = json.loads(json.dumps(SPEC.to_dict()))
    assert data["tokens"] == 261
    assert EncoderSpec.from_dict({**data, "added_by_a_newer_version": 1}) == SPEC


def test_missing_fields_are_named() -> None:
    data = SPEC.to_dict()
    del data["grid"], data["mean"]
    with pytest.raises(BlindspotError, match="lacks grid, mean"):
        EncoderSpec.from_dict(data)
