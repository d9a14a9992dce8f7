"""The dictionary's report of a synthetic atlas: the tokens are, by definition, exactly what the codes rebuild."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scipy import sparse

from engine.dictionary.geometry import coherence
from engine.files import write_arrays, write_json
from precompute.stages.report import SUMMARY, TABLE


def write_report(codes: sparse.csr_matrix, atoms: np.ndarray, folder: Path) -> dict[str, float]:
    """Write what `precompute.stages.report.read_report` reads.

    Usage and coherence are measured. R2 is 1 since no token exists beside its codes, every atom is its own nearest
    point of the data, and no other dictionary was trained to compare with.

    Parameters
    ----------
    codes : of the real images, [tokens, concepts].
    atoms : [concepts, dim].
    folder : the stage's folder.
    """
    concepts = codes.shape[1]
    fires = np.bincount(codes.indices, minlength=concepts)
    alike = coherence(torch.from_numpy(atoms))
    columns = {
        "fires": fires,
        "coherence": alike.value.numpy(),
        "nearest": alike.nearest.numpy(),
        "hull_distance": np.zeros(concepts, np.float32),
        "stability": np.full(concepts, np.nan, np.float32),
    }
    summary = {
        "tokens": codes.shape[0],
        "r2": 1.0,
        "fvu": 0.0,
        "l0": round(codes.nnz / codes.shape[0], 6),
        "l0_counts": np.bincount(np.diff(codes.indptr)).tolist(),
        "dead_share": round(float((fires == 0).mean()), 6),
        "coherence": round(float(alike.value.mean()), 6),
        "hull": {"distance": 0.0, "uncertainty": 0.0, "points": concepts, "own_points": True},
        "stability": None,
    }
    write_arrays(folder / TABLE, **columns)
    write_json(folder / SUMMARY, summary)
    return {name: summary[name] for name in ("r2", "l0", "dead_share")}
