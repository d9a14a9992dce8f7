import pytest

from engine.atlas import Atlas
from tests.synthetic import build_synthetic_atlas


@pytest.fixture(scope="session")
def atlas(tmp_path_factory) -> Atlas:
    """Two models, small, without analyses."""
    return Atlas.open(build_synthetic_atlas(tmp_path_factory.mktemp("reports") / "atlas", concepts=48, pairs=8))
