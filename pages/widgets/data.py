"""The opened atlas and the tables that pages draw, cached for the whole process and never changed."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st

from engine.atlas import Atlas
from engine.blindspots.delta import ESTIMATORS
from engine.figures.style import Basis
from engine.files import DATA
from pages.widgets.state import COLOURS, Known, View

ENVIRONMENT = "BLINDSPOT_ATLAS"
DEFAULT = DATA / "demo" / "atlas"


def atlas_path() -> Path:
    """Return the atlas to show: ``streamlit run app.py -- ATLAS``, else BLINDSPOT_ATLAS, else the demo."""
    is_app = Path(sys.argv[0]).name == "app.py"
    named = [argument for argument in sys.argv[1:] if not argument.startswith("-")] if is_app else []
    return Path(named[0] if named else os.environ.get(ENVIRONMENT) or DEFAULT).expanduser().resolve()


@st.cache_resource(show_spinner=False)
def open_atlas(path: Path) -> Atlas:
    """Open an atlas once per process.

    Raises
    ------
    BlindspotError
        When it cannot be opened.
    """
    return Atlas.open(path)


def current() -> Atlas:
    """Return the atlas of this process."""
    return open_atlas(atlas_path())


@lru_cache(maxsize=8)
def version(path: Path) -> str:
    """Return a short hash of the atlas's header: the part of every data URL that lets browsers cache for ever."""
    return hashlib.sha256((path / "atlas.json").read_bytes()).hexdigest()[:10]


@lru_cache(maxsize=8)
def known(path: Path) -> Known:
    """Return what a URL may name in this atlas."""
    atlas = open_atlas(path)
    delta = atlas.info.delta
    return Known(
        models=tuple(atlas.models),
        concepts=atlas.count,
        images=atlas.info.images,
        estimator=delta.estimator,
        temperatures={
            name: delta.temperature if name == delta.estimator else ESTIMATORS[name].temperature
            for name in atlas.estimators
        },
        low=delta.suppressed,
        high=delta.exaggerated,
        colours=COLOURS[:2] if atlas.info.published else COLOURS,
    )


@lru_cache(maxsize=32)
def concept_table(path: Path, model: str, estimator: str, temperature: float) -> pd.DataFrame:
    """Return the concept table of one model: layout, words, delta with its interval, frequency; indexed by concept."""
    atlas = open_atlas(path)
    delta = atlas.delta(model, estimator=estimator, temperature=temperature)
    return atlas.concepts.join(delta).assign(frequency=np.asarray(atlas.frequency(), np.float32))


def table(view: View, model: str | None = None) -> pd.DataFrame:
    """Return the concept table for a view's estimator and temperature; for its model unless another is named."""
    return concept_table(atlas_path(), model or view.model, view.estimator, view.temperature)


def encoder_name() -> str:
    """Return what a person calls the atlas's encoder: its hub id, or its architecture and where its folder lies."""
    name = str(current().info.encoder["id"])
    folder = Path(os.path.abspath(atlas_path() / name))
    if not folder.is_dir() and not name.startswith((".", "/")):
        return name
    try:
        architecture = json.loads((folder / "config.json").read_text())["architectures"][0].removesuffix("Model")
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        architecture = "encoder"
    return f"the {architecture} in {'/'.join(folder.parts[-2:])}"


@lru_cache(maxsize=8)
def image_table(path: Path) -> pd.DataFrame:
    """Return source, pair, caption, file, width and height of every image, indexed by image."""
    return open_atlas(path).images


def basis(view: View, model: str | None = None) -> Basis:
    """Return what a view's delta is computed with."""
    source = current().info.source(model or view.model)
    return Basis(
        estimator=view.estimator,
        temperature=view.temperature,
        low=view.low,
        high=view.high,
        images=source.images,
        paired=source.paired,
    )
