"""One small synthetic atlas, built once; tests that damage an atlas get a copy."""

import shutil
from pathlib import Path

import pytest

from engine.atlas import Atlas
from tests.app.analyses import add_analyses
from tests.engine.atlas.test_verify import reseal
from tests.synthetic import build_synthetic_atlas

CONCEPTS, PAIRS = 96, 24


@pytest.fixture(scope="session")
def atlas_path(tmp_path_factory) -> Path:
    """An atlas with a paired model `alpha` and an unpaired one `beta`."""
    path = tmp_path_factory.mktemp("atlas") / "synthetic"
    return build_synthetic_atlas(path, CONCEPTS, PAIRS, ("alpha", "beta"), unpaired=("beta",))


@pytest.fixture
def atlas(atlas_path) -> Atlas:
    return Atlas.open(atlas_path)


@pytest.fixture
def copy_path(atlas_path, tmp_path) -> Path:
    return Path(shutil.copytree(atlas_path, tmp_path / "copy"))


@pytest.fixture(scope="session")
def analysed_path(atlas_path, tmp_path_factory) -> Path:
    """The same atlas with all analyses beyond delta."""
    root = tmp_path_factory.mktemp("analysed")
    path = add_analyses(Path(shutil.copytree(atlas_path, root / "atlas")))
    reseal(path)
    return path


@pytest.fixture
def analysed(analysed_path) -> Atlas:
    return Atlas.open(analysed_path)
