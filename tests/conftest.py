"""What every test runs under: no model hub is asked, where an unknown id would be waited for; what runs together."""

import gc
import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
gc.disable()  # while libraries are loaded, which makes many objects and no garbage
ROOT = Path(__file__).parent
BROWSER = {
    f"tests/app/{path.name}"
    for path in (ROOT / "app").glob("test_*.py")
    if "pytestmark = pytest.mark.browser" in path.read_text(encoding="utf-8")
}
LONGEST = (
    "browser",
    "tests/precompute/test_resume.py",
    "tests/engine/atlas/test_hostile.py",
    "tests/engine/samplers/test_any_batch.py",
    "tests/engine/invariance/test_walk.py",
    "tests/precompute/test_robustness.py",
    "tests/test_notebooks.py",
    "tests/precompute/studies/test_study.py",
    "tests/precompute/studies/test_injection.py",
    "tests/app/test_pages.py",
    "tests/precompute/test_paper_recipes.py",
    "tests/precompute/stages/test_presets.py",
    "tests/app/test_attacks.py",
    "tests/app/test_published_atlas.py",
    "tests/precompute/test_build.py",
    "tests/test_docs.py",
    "tests/precompute/test_ray.py",
    "tests/precompute/test_sample.py",
    "tests/precompute/test_ratings.py",
    "tests/precompute/demo_world/test_generators.py",
    "tests/precompute/test_label.py",
)
"""What takes twenty seconds or more, the longest first: at the end both processes have short files left to share."""


def unit(nodeid: str) -> str:
    """What one process runs as a whole: a file, or all files that share a browser and the servers of the app."""
    path = nodeid.split("::")[0]
    return "browser" if path in BROWSER else path


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """`-n 2`: what the tests of a file share is built by one of the processes and not by each.

    The groups of xdist 3.8 say nothing under pytest 9.2, which keeps the ids of tests elsewhere.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Units(LoadScopeScheduling):
        _split_scope = staticmethod(unit)

    config.option.loadscopereorder = False
    return Units(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(unit(item.nodeid), len(places)))


def pytest_collection_finish():
    """The libraries that all tests have loaded stay: no collection of garbage looks through them again."""
    gc.collect()
    gc.freeze()
    gc.enable()
