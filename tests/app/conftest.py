import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.app.analyses import add_analyses
from tests.app.serving import ARTIFACTS, ROOT, chromium, serving
from tests.drawable import build_drawable_atlas
from tests.synthetic import build_synthetic_atlas

CONCEPTS = 48
DEMO = ROOT / "data" / "demo" / "atlas"
WATCH = """
import os, sys
def watch(event, found, log=open(os.environ["WATCHED"], "a")):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        where = found[1] if event in ("socket.connect", "socket.sendto") else found[0]
        print(where[0] if isinstance(where, tuple) else where, file=log, flush=True)
sys.addaudithook(watch)
"""
THIS_MACHINE = {"127.0.0.1", "localhost", "::1", "None", "b'127.0.0.1'"}


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


@contextmanager
def watching(atlas: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """The app as the command `app` starts it, and a file with every host that one of its processes looks for."""
    (folder / "sitecustomize.py").write_text(WATCH)
    environment = {"PYTHONPATH": str(folder), "WATCHED": str(folder / "hosts")}
    with serving(atlas, folder, environment, by_command=True) as address:
        yield address, folder / "hosts"


def looked_for(hosts: Path) -> set[str]:
    """What such a file names."""
    return set(hosts.read_text().split()) if hosts.exists() else set()


@pytest.fixture(scope="session")
def watched(drawable_atlas, tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """The app on the drawable atlas, and the file of the hosts it looks for."""
    with watching(drawable_atlas, tmp_path_factory.mktemp("watched")) as found:
        yield found


@pytest.fixture(scope="session")
def server(watched) -> str:
    """The address of the real app on the drawable atlas."""
    return watched[0]


@pytest.fixture(scope="session")
def analysed_server(analysed_atlas, tmp_path_factory) -> Iterator[str]:
    """The address of the real app on the analysed atlas."""
    with serving(analysed_atlas, tmp_path_factory.mktemp("results")) as address:
        yield address


@pytest.fixture(scope="session")
def demo_server(tmp_path_factory) -> Iterator[str]:
    """The address of the real app on the demo."""
    with serving(DEMO, tmp_path_factory.mktemp("results")) as address:
        yield address


@pytest.fixture(scope="session")
def browser():
    """A headless chromium."""
    ARTIFACTS.mkdir(exist_ok=True)
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="session")
def desktop(browser):
    """A window of 1440 x 1000 whose tabs share the files of the app, patient enough for a busy machine."""
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    context.set_default_timeout(120_000)
    yield context
    context.close()


@pytest.fixture
def page(desktop):
    """A fresh tab without cookies."""
    opened = desktop.new_page()
    yield opened
    opened.close()
    desktop.clear_cookies()


@pytest.fixture(scope="session")
def open_tab(desktop):
    opened = desktop.new_page()
    yield opened
    opened.close()


@pytest.fixture
def tab(open_tab, desktop):
    """One tab in which the app stays open, for tests that go to a page by `visit`: loading the app takes seconds."""
    open_tab.set_viewport_size({"width": 1440, "height": 1000})
    yield open_tab
    desktop.clear_cookies()
