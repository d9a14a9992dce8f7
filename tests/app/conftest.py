import shutil
from pathlib import Path

import pytest

from tests.app.analyses import add_analyses
from tests.app.serving import ARTIFACTS, ROOT, chromium, serving
from tests.drawable import build_drawable_atlas
from tests.synthetic import build_synthetic_atlas

CONCEPTS = 48
DEMO = ROOT / "data" / "demo" / "atlas"


@pytest.fixture(autouse=True)
def no_defect(caplog):
    """A page says a defect in one sentence and logs it: a test that meets one fails, unless it clears the log."""
    yield
    assert not [entry for entry in caplog.get_records("call") if entry.name == "pages.widgets.html"]


@pytest.fixture(scope="session")
def plain_atlas(tmp_path_factory) -> Path:
    """Two models, small, no prior."""
    return build_synthetic_atlas(tmp_path_factory.mktemp("plain") / "atlas", concepts=CONCEPTS, pairs=12)


@pytest.fixture(scope="session")
def analysed_atlas(plain_atlas, tmp_path_factory) -> Path:
    """The plain atlas with its divergence, composition and metrics."""
    root = tmp_path_factory.mktemp("analysed")
    return add_analyses(shutil.copytree(plain_atlas, root / "atlas"))


@pytest.fixture(scope="session")
def drawable_atlas(tmp_path_factory) -> Path:
    """An atlas whose encoder, dictionary and prior are real models, tiny and random."""
    return build_drawable_atlas(tmp_path_factory.mktemp("drawable"), CONCEPTS, pairs=12)


@pytest.fixture
def use_atlas(monkeypatch):
    """Point the app of this process at an atlas."""

    def use(path: Path) -> None:
        monkeypatch.setenv("BLINDSPOT_ATLAS", str(path))

    return use


@pytest.fixture(scope="session")
def server(drawable_atlas, tmp_path_factory):
    """The address of the real app on the drawable atlas."""
    with serving(drawable_atlas, tmp_path_factory.mktemp("results")) as address:
        yield address


@pytest.fixture(scope="session")
def browser():
    """A headless chromium."""
    ARTIFACTS.mkdir(exist_ok=True)
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(browser):
    """A fresh 1440 x 1000 tab, patient enough for a busy machine."""
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()
