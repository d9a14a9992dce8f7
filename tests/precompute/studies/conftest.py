import pytest

from engine.atlas import Atlas
from tests.drawable import build_drawable_atlas

CONCEPTS = 24


@pytest.fixture(scope="package")
def drawable(tmp_path_factory):
    """An atlas whose encoder, dictionary and prior are real models, tiny and random; open it anew to change it."""
    return build_drawable_atlas(tmp_path_factory.mktemp("drawable"), CONCEPTS, pairs=6, models=("alpha",))


@pytest.fixture
def atlas(drawable):
    return Atlas.open(drawable)
