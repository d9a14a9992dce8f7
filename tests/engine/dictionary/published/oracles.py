"""The libraries whose files are imported, as oracles: they write the files and compute the expected codes.

`make test` installs them without their dependencies (tests/oracles.txt); a folder of them can be named in
$DICTIONARY_ORACLES instead.

Packages whose `__init__` wants trainers, datasets or image libraries are entered past it. SAELens's autoencoders hang
on the hooks of TransformerLens, which is too large to install for them: here a hook is an identity, as it is in
TransformerLens while nobody listens.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest
from torch import nn

FOLDER = os.environ.get("DICTIONARY_ORACLES", "")
ENTERED = {
    "overcomplete": ("overcomplete",),
    "dictionary_learning": ("dictionary_learning", "dictionary_learning.trainers"),
    "sparsify": ("sparsify",),
    "saev": (),
    "sae_lens": ("sae_lens",),
}


def oracle(library: str, *modules: str) -> list[ModuleType]:
    """Modules of a library; skips the test where it is not installed."""
    if FOLDER and FOLDER not in sys.path:
        sys.path.append(FOLDER)
    try:
        for package in ENTERED[library]:
            _enter(package)
        if library == "sae_lens":
            sys.modules["sae_lens"].__dict__.setdefault("__version__", version("sae-lens"))
            sys.modules["sae_lens"].__dict__.setdefault("logger", logging.getLogger("sae_lens"))
            _stand_in_for_hooks()
        return [importlib.import_module(f"{library}.{module}") for module in modules]
    except ImportError as error:
        pytest.skip(
            f"the oracle {library} is not importable ({error}); see {Path(__file__).name} for how to install it"
        )


def _enter(package: str) -> None:
    """Make a package importable without running its `__init__`."""
    if package in sys.modules:
        return
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ImportError(f"no module named {package}")
    bare = ModuleType(package)
    bare.__path__ = list(spec.submodule_search_locations or ())
    sys.modules[package] = bare


class HookedRootModule(nn.Module):
    """What SAELens needs of TransformerLens's class of this name."""

    def setup(self) -> None: ...


def _stand_in_for_hooks() -> None:
    if "transformer_lens" in sys.modules or importlib.util.find_spec("transformer_lens") is not None:
        return
    for name, found in {
        "transformer_lens": {},
        "transformer_lens.hook_points": {"HookPoint": type("HookPoint", (nn.Identity,), {})},
        "transformer_lens.HookedTransformer": {"HookedRootModule": HookedRootModule},
    }.items():
        module = ModuleType(name)
        vars(module).update(found)
        sys.modules[name] = module
