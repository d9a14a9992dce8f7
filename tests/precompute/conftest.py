"""Models that the tests of precompute share: made once per session, random, tiny."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from tests.precompute.materials import save_encoder, save_pipeline


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random DINOv2-with-registers on disk."""
    return save_encoder(tmp_path_factory.mktemp("models") / "encoder")


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random StableDiffusionPipeline on disk."""
    return save_pipeline(tmp_path_factory.mktemp("models") / "pipeline")
