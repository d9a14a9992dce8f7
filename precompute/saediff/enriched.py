"""One `__enriched.json` file: an object of arrays over concepts, read and checked.

| array                                       | read as                                                           |
| ------------------------------------------- | ----------------------------------------------------------------- |
| `umap_x`, `umap_y`                          | the map; null is allowed                                          |
| `energy_diff`, `relative_energy_diff`       | model minus real mean energy, and the same over their sum         |
| `energy`, `nb_fire`                         | mean energy and number of firings, of images that `sides` finds out |
| `is_dead`                                   | 0 or 1                                                            |
| `connections_idx`, `connections_val`        | per concept, those it fires together with and how strongly        |
| `top_original_image`, `top_ai_image`        | the best real and the best generated image, `sample_123/ai.jpg`   |

Only the first two pairs are needed (of the second, `relative_energy_diff` or `energy` is enough). Colours and dot sizes
(`umap_colors`, `umap_scale`, `color_diff`, `color_relative_diff`) follow from the rest and are not read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import BlindspotError

ENDING = "__enriched"
SAMPLED = "sample10k_"
"""The authors name a file `..._sample10k_<model>__enriched.json`."""


@dataclass(frozen=True)
class Connections:
    """A sparse table: concept `rows[i]` fires together with `others[i]`, as strongly as `values[i]`."""

    rows: np.ndarray
    others: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Enriched:
    """One model's file; arrays are [K] over concepts, NaN where the file has null.

    Attributes
    ----------
    path : the file.
    key : the model's name in the file's name.
    xy : [K, 2] position on the map.
    gap : `energy_diff`.
    relative : `relative_energy_diff`, or None.
    energy, fires : `energy` and `nb_fire`, or None.
    dead : whether the file calls the concept dead.
    connections : what it fires together with, or None.
    top_real, top_model : relative path of the best image or None, per concept; empty when the file names none.
    """

    path: Path
    key: str
    xy: np.ndarray
    gap: np.ndarray
    relative: np.ndarray | None
    energy: np.ndarray | None
    fires: np.ndarray | None
    dead: np.ndarray
    connections: Connections | None
    top_real: list[str | None]
    top_model: list[str | None]


def read_enriched(path: Path) -> Enriched:
    """Read and check one file.

    Raises
    ------
    BlindspotError
        If it cannot be read, is not such a file, or its arrays do not fit each other.
    """
    file = _Arrays(path, _document(path))
    gap = file.required("energy_diff")
    relative, energy = file.numbers("relative_energy_diff"), file.numbers("energy")
    if relative is None and energy is None:
        raise file.wrong("has neither relative_energy_diff nor energy, so nothing says how large the real energies are")
    dead = file.numbers("is_dead")
    return Enriched(
        path=path,
        key=model_key(path),
        xy=np.stack([file.required("umap_x"), file.required("umap_y")], axis=1),
        gap=gap,
        relative=relative,
        energy=energy,
        fires=file.numbers("nb_fire"),
        dead=np.zeros(len(gap), bool) if dead is None else np.nan_to_num(dead) != 0,
        connections=file.connections(),
        top_real=file.names("top_original_image"),
        top_model=file.names("top_ai_image"),
    )


def model_key(path: Path) -> str:
    """The model's name in a file's name: `SD15` for `diff_data_website_sample10k_SD15__enriched.json`."""
    return path.stem.removesuffix(ENDING).rpartition(SAMPLED)[2]


def _document(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise BlindspotError(f"There is no file {path}: give the authors' `__enriched.json` files.")
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise BlindspotError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise BlindspotError(f"{path} is not JSON ({error}): give the authors' `__enriched.json` files.") from error
    if not isinstance(document, Mapping) or "energy_diff" not in document:
        raise BlindspotError(f"{path} has no array energy_diff: give the authors' `__enriched.json` files.")
    return document


class _Arrays:
    """The arrays of one file, all as long as `energy_diff`."""

    def __init__(self, path: Path, document: Mapping[str, Any]) -> None:
        self._path, self._document = path, document
        self._length = len(self._list("energy_diff") or ())
        if not self._length:
            raise self.wrong("has no concepts: energy_diff is empty")

    def wrong(self, what: str) -> BlindspotError:
        """The error that says what is wrong with this file."""
        return BlindspotError(f"{self._path} {what}: get the file again, or leave it out.")

    def required(self, name: str) -> np.ndarray:
        """[K] float64; raises when the array is absent."""
        found = self.numbers(name)
        if found is None:
            raise self.wrong(f"has no array {name}")
        return found

    def numbers(self, name: str) -> np.ndarray | None:
        """[K] float64, NaN for null and what is not finite; None when the array is absent."""
        values = self._list(name)
        return None if values is None else self._finite(name, values)

    def names(self, name: str) -> list[str | None]:
        """[K] strings or None; empty when the array is absent."""
        values = self._list(name) or []
        if not all(value is None or isinstance(value, str) for value in values):
            raise self.wrong(f"names something other than a file in {name}")
        return [value or None for value in values]

    def connections(self) -> Connections | None:
        """What each concept fires together with, itself and null left out; None when the file has no connections."""
        others, values = self._list("connections_idx"), self._list("connections_val")
        if others is None or values is None:
            return None
        lists = [[row if isinstance(row, list) else [] for row in column] for column in (others, values)]
        lengths = [np.array([len(row) for row in column]) for column in lists]
        if not np.array_equal(lengths[0], lengths[1]):
            raise self.wrong("has a concept with more connections_idx than connections_val, or fewer")
        rows = np.repeat(np.arange(self._length), lengths[0])
        other, value = (
            self._finite(name, list(chain.from_iterable(column)))
            for name, column in zip(("connections_idx", "connections_val"), lists, strict=True)
        )
        kept = np.isfinite(other) & np.isfinite(value) & (other >= 0)
        rows, other, value = rows[kept], other[kept].astype(np.int64), value[kept]
        if (other >= self._length).any():
            raise self.wrong(f"connects concept {int(other.max())}, but has {self._length} concepts")
        apart = rows != other
        return Connections(rows[apart], other[apart], value[apart])

    def _list(self, name: str) -> list | None:
        values = self._document.get(name)
        if values is not None and not isinstance(values, list):
            raise self.wrong(f"has something other than an array in {name}")
        if values is not None and name != "energy_diff" and len(values) != self._length:
            raise self.wrong(f"has {len(values)} entries in {name}, but {self._length} in energy_diff")
        return values

    def _finite(self, name: str, values: list) -> np.ndarray:
        try:
            found = np.array(values, np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise self.wrong(f"has something other than numbers in {name}") from error
        if found.ndim != 1:
            raise self.wrong(f"has lists in {name}, not numbers")
        return np.where(np.isfinite(found), found, np.nan)
