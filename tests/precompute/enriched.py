"""Writes files in the schema of the authors' `__enriched.json` from known energies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

CONCEPTS = 60
CONNECTED = 5


class Truth(NamedTuple):
    """What the files were written from."""

    xy: np.ndarray
    real: np.ndarray
    """[K] mean energies; the last concept is silent everywhere."""
    models: dict[str, np.ndarray]
    others: np.ndarray
    """[K, CONNECTED] distinct other concepts, strongest first."""
    values: np.ndarray
    fires: np.ndarray


def make_truth(names: tuple[str, ...] = ("SD15", "pixart"), concepts: int = CONCEPTS, seed: int = 0) -> Truth:
    """Heavy-tailed energies of one dictionary and some models."""
    rng = np.random.default_rng(seed)
    real = rng.lognormal(0, 1, concepts)
    models = {name: real * rng.lognormal(-0.2, 0.8, concepts) for name in names}
    for energies in (real, *models.values()):
        energies[-1] = 0.0
    steps = np.stack([rng.permutation(concepts - 1)[:CONNECTED] + 1 for _ in range(concepts)])
    return Truth(
        xy=rng.normal(size=(concepts, 2)).round(3) * 10,
        real=real,
        models=models,
        others=(np.arange(concepts)[:, None] + steps) % concepts,
        values=np.sort(rng.gamma(1, 100, (concepts, CONNECTED)), axis=1)[:, ::-1],
        fires=rng.integers(1, 10**8, concepts),
    )


def document(
    truth: Truth, model: str, *, digits: int | None = None, energy: np.ndarray | None = None
) -> dict[str, Any]:
    """One model's file; `digits` rounds its energies, `energy` stands in for the real ones."""
    gap = truth.models[model] - truth.real
    with np.errstate(invalid="ignore"):
        relative = gap / (truth.models[model] + truth.real)
    columns = {"energy": truth.real if energy is None else energy, "energy_diff": gap, "relative_energy_diff": relative}
    if digits is not None:
        columns = {name: column.round(digits) for name, column in columns.items()}
    concepts = len(truth.real)
    grey = [[0.5, 0.5, 0.5]] * concepts
    return {
        "umap_x": truth.xy[:, 0].tolist(),
        "umap_y": truth.xy[:, 1].tolist(),
        "umap_colors": grey,
        "umap_scale": [1.0] * concepts,
        **{name: column.tolist() for name, column in columns.items()},
        "is_dead": [int(value == 0) for value in truth.real],
        "connections_idx": truth.others[:, ::-1].astype(float).tolist(),
        "connections_val": truth.values[:, ::-1].tolist(),
        "nb_fire": truth.fires.tolist(),
        "color_diff": grey,
        "color_relative_diff": grey,
        "top_ai_image": [f"sample_{concept}/ai.jpg" for concept in range(concepts)],
        "top_original_image": [f"sample_{concept + 1000}/original.jpg" for concept in range(concepts)],
    }


def write_enriched(folder: Path, model: str, content: Any) -> Path:
    """Write one file under the authors' kind of name."""
    path = folder / f"diff_data_website_sample10k_{model}__enriched.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def write_all(folder: Path, truth: Truth, **settings: Any) -> list[Path]:
    """Write the file of every model."""
    return [write_enriched(folder, name, document(truth, name, **settings)) for name in truth.models]
