"""The app must start fast: models and their libraries load when someone presses Generate, not before."""

import subprocess
import sys

from tests.app.serving import ROOT

HEAVY = ("scipy.stats", "torch", "diffusers", "transformers", "umap", "sklearn")


def test_pages_load_without_torch_and_its_kin():
    code = "import sys, pages.routes, pages.widgets.generate, pages.widgets.card; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(HEAVY) & set(done.stdout.split()) == set()
