"""What every test runs under: nothing is asked of a model hub, where an unknown id would be waited for."""

import gc
import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Tests of a file run in one process, which builds what they share once; those with the longest come first."""
    items.sort(key=lambda item: item.path.parent != ROOT)
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.relative_to(ROOT).as_posix()))


def pytest_collection_finish():
    """The libraries that all tests have loaded stay: no collection of garbage looks through them again."""
    gc.collect()
    gc.freeze()
