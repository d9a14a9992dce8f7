"""Dialects of preprocessor_config.json."""

import json
from pathlib import Path

import pytest

from engine.errors import BlindspotError
from engine.vision.pretrained import ImageSettings, image_settings, parse_settings


def test_dinov2_resizes_256_and_crops_224() -> None:
    crop = {"do_center_crop": True, "crop_size": {"height": 224, "width": 224}}
    settings = parse_settings({"size": {"shortest_edge": 256}, **crop, "resample": 3})
    assert (settings.image_size, settings.resize, settings.crop_fraction) == (224, "crop", 0.875)


def test_dinov3_squares_256() -> None:
    settings = parse_settings({"size": {"height": 256, "width": 256}, "resample": 2, "image_mean": [0.5] * 3})
    assert (settings.image_size, settings.resize, settings.interpolation) == (256, "square", "bilinear")
    assert settings.mean == (0.5, 0.5, 0.5)


def test_convnext_states_its_crop_as_a_share() -> None:
    settings = parse_settings({"size": {"shortest_edge": 224}, "crop_pct": 0.875})
    assert (settings.image_size, settings.resize, settings.crop_fraction) == (224, "crop", 0.875)
    assert parse_settings({"size": {"shortest_edge": 384}, "crop_pct": 0.875}).resize == "square"


def test_plain_number_and_no_normalisation() -> None:
    settings = parse_settings({"size": 64, "do_normalize": False, "image_mean": [0.5] * 3})
    assert (settings.image_size, settings.mean, settings.std) == (64, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def test_without_a_file_imagenet(tmp_path: Path) -> None:
    assert image_settings(str(tmp_path), None) == ImageSettings()


def test_damaged_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(BlindspotError, match="cannot be read; repair or remove"):
        image_settings(str(tmp_path), None)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": 3}))
    with pytest.raises(BlindspotError, match="cannot be read; repair or remove"):
        image_settings(str(tmp_path), None)
