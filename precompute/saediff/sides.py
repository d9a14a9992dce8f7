"""Whose energies a published file holds: worked out from its numbers, and refused where they contradict each other.

Write e for the real mean energy of a concept and m for the model's. The authors define (Conceptual Blindspots in
Generative Image Models, section 3 and figure 4; the notes beside their viewer)

    d = energy_diff = m - e        relative_energy_diff = d / (m + e) = r,

so two arrays give both energies,

    e = d (1 - r) / (2 r),         m = e + d,                                                  (1)

known as precisely as the file is rounded. That is what tells the sign and the meaning of `energy`:

* r has the sign of d and lies in [-1, 1], else one of the two is something else.
* All models were compared with the same real images, so e of (1) agrees between files. Were d real minus model, (1)
  would give the model's energy in e and it is m that agrees.
* `energy` is the real side where it agrees with e. It may as well come from other images: the map, `energy` and
  `nb_fire` were first published for ImageNet. Then it says nothing here, and is kept as a number of unnamed images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from engine.errors import BlindspotError
from precompute.saediff.enriched import Enriched

MOSTLY = 0.95
"""Share of the concepts that must agree: a wrong reading is wrong for nearly all of them."""
TOLERANCE = 0.02
"""Relative difference of two energies that are called the same: a few images more or less move them."""
FLOAT = float(np.finfo(np.float32).eps)
DIGITS = 6
"""Most decimals that a file is taken to be rounded to."""


class Known(NamedTuple):
    """Numbers and how far off rounding may put them."""

    value: np.ndarray
    """[K], NaN where unknown."""
    error: np.ndarray
    """[K], at least 0."""


class Sides(NamedTuple):
    """The mean energies of the real images and of every model's."""

    real: np.ndarray
    """[K], NaN where the files do not determine it."""
    models: list[np.ndarray]
    """Per file [K], real + energy_diff."""
    energy: str
    """What the array `energy` is: `real`, `model`, `other` (of other images) or `absent`."""
    checked: bool
    """Whether the sign of energy_diff was confirmed by the numbers, not only taken from the authors' definition."""


def find_sides(files: Sequence[Enriched]) -> Sides:
    """Mean energies from the files of one dictionary.

    Raises
    ------
    BlindspotError
        If numbers contradict each other: the sign, the range of the relative difference, or the real images.
    """
    for file in files:
        _check_relative(file)
    implied = [implied_real(file.gap, file.relative) if file.relative is not None else None for file in files]
    between = _check_real(files, implied)
    energy = _energy_side(files, implied, between)
    if energy == "real":
        real = _first_known([file.energy for file in files if file.energy is not None] + [weighted(implied)])
    else:
        real = weighted(implied)
    models = [_not_below_zero(file, real) for file in files]
    return Sides(np.maximum(real, 0.0), models, energy, between or energy == "real")


def implied_real(gap: np.ndarray, relative: np.ndarray) -> Known:
    """The real mean energy [K] of equation (1); its error propagates the rounding of both arrays to first order.

    A relative difference of 0 determines nothing, except that 0 / 0 (null) means that both energies are 0.
    """
    steps = rounding(gap), rounding(relative)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = gap * (1 - relative) / (2 * relative)
        error = np.abs((1 - relative) / (2 * relative)) * steps[0] + np.abs(gap / (2 * relative**2)) * steps[1]
    value, error = np.where(relative == 0, np.nan, value), np.where(relative == 0, np.inf, error)
    silent = (gap == 0) & np.isnan(relative)
    return Known(np.where(silent, 0.0, value), np.where(silent, steps[0], error))


def rounding(values: np.ndarray) -> np.ndarray:
    """[K] how far each value may be from the truth: half the last decimal of a rounded array, else float32's step."""
    known = values[np.isfinite(values)]
    for digits in range(DIGITS + 1):
        scaled = known * 10**digits
        if known.any() and np.allclose(scaled, np.round(scaled), rtol=FLOAT, atol=1e-4):
            return np.full(len(values), 0.5 * 10.0**-digits)
    return np.abs(values) * FLOAT


def weighted(known: Iterable[Known | None]) -> np.ndarray:
    """[K] mean of several determinations of one quantity, weighted by 1 / error^2; NaN where there is none."""
    total, weights = np.zeros(()), np.zeros(())
    for value, error in (one for one in known if one is not None):
        weight = np.where(np.isnan(value), 0.0, 1 / np.square(np.maximum(error, 1e-9)))
        total, weights = total + weight * np.nan_to_num(value), weights + weight
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.divide(total, weights)


def agreement(a: Known, b: Known) -> float:
    """Share of concepts for which two determinations agree within their errors; NaN when none can be compared."""
    with np.errstate(invalid="ignore"):
        size, error = (np.abs(a.value) + np.abs(b.value)) / 2, a.error + b.error
        comparable = (size > 0) & (error < size / 4)
        agree = np.abs(a.value - b.value) <= 3 * error + TOLERANCE * size
    return float(agree[comparable].mean()) if comparable.any() else float("nan")


def _check_relative(file: Enriched) -> None:
    if file.relative is None:
        return
    step = rounding(file.relative)
    with np.errstate(invalid="ignore"):
        outside = np.abs(file.relative) > 1 + np.maximum(step, 1e-5)
        opposite = (file.gap * file.relative < 0) & (np.abs(file.relative) > step)
    if outside.any():
        concept = int(np.flatnonzero(outside)[0])
        raise BlindspotError(
            f"{file.path} has a relative_energy_diff of {file.relative[concept]:g} for concept {concept}: a difference "
            "over a sum lies between -1 and 1, so this array means something else and is not imported."
        )
    if opposite.any():
        concept = int(np.flatnonzero(opposite)[0])
        raise BlindspotError(
            f"{file.path} contradicts itself: energy_diff and relative_energy_diff have opposite signs for "
            f"{int(opposite.sum())} concepts, first for concept {concept}; get the file again."
        )


def _check_real(files: Sequence[Enriched], implied: Sequence[Known | None]) -> bool:
    """Whether at least two files agree on the real energies; raises when two files contradict each other."""
    confirmed = False
    pairs = [(file, known) for file, known in zip(files, implied, strict=True) if known is not None]
    for (a, real_a), (b, real_b) in combinations(pairs, 2):
        share = agreement(real_a, real_b)
        if np.isnan(share):
            continue
        if share < MOSTLY:
            if agreement(_plus(real_a, a.gap), _plus(real_b, b.gap)) >= MOSTLY:
                raise _reversed(f"{a.path} and {b.path}")
            raise BlindspotError(
                f"{a.path} and {b.path} imply different real energies for {1 - share:.0%} of the concepts: they were "
                "not compared with the same real images; import them one by one."
            )
        confirmed = True
    return confirmed


def _energy_side(files: Sequence[Enriched], implied: Sequence[Known | None], between: bool) -> str:
    """What `energy` is (see `Sides.energy`); raises when it contradicts energy_diff."""
    sides = set()
    for file, known in zip(files, implied, strict=True):
        if file.energy is None:
            continue
        energy = Known(file.energy, rounding(file.energy))
        if known is None:
            sides.add(_assumed_real(file))
        elif agreement(energy, known) >= MOSTLY:
            sides.add("real")
        elif agreement(energy, _plus(known, file.gap)) < MOSTLY:
            sides.add("other")
        elif between:
            sides.add("model")
        else:
            raise _reversed(str(file.path))
    if len(sides) > 1:
        named = ", ".join(str(file.path) for file in files)
        raise BlindspotError(f"The array energy means different things in {named}: import them one by one.")
    return sides.pop() if sides else "absent"


def _assumed_real(file: Enriched) -> str:
    """Without a relative difference, `energy` has to be the real side; then no model energy is below zero."""
    assert file.energy is not None
    slack = rounding(file.energy) + rounding(file.gap)
    with np.errstate(invalid="ignore"):
        below = np.nanmean(np.where(np.isnan(file.gap), np.nan, file.energy + file.gap < -slack))
    if below > 1 - MOSTLY:
        raise BlindspotError(
            f"{file.path} contradicts the definition energy_diff = model - real: with energy as the real side, the "
            f"model's is below zero for {below:.0%} of the concepts; its sign may be reversed."
        )
    return "real"


def _not_below_zero(file: Enriched, real: np.ndarray) -> np.ndarray:
    """The model's mean energies; rounding may put one a little below zero, not more."""
    model = real + file.gap
    with np.errstate(invalid="ignore"):
        below = model < -(1e-2 * np.abs(file.gap) + 2 * rounding(file.gap))
    if below.mean() > 1 - MOSTLY:
        raise BlindspotError(
            f"{file.path} contradicts the real energies: the model's would be below zero for {int(below.sum())} "
            "concepts; get the file again."
        )
    return np.maximum(model, 0.0)


def _reversed(where: str) -> BlindspotError:
    return BlindspotError(
        f"energy_diff in {where} looks like real minus model, against the authors' definition (model minus real): "
        "change its sign and that of relative_energy_diff first."
    )


def _plus(known: Known, gap: np.ndarray) -> Known:
    return Known(known.value + gap, known.error + rounding(gap))


def _first_known(arrays: Sequence[np.ndarray]) -> np.ndarray:
    found = arrays[0]
    for other in arrays[1:]:
        found = np.where(np.isnan(found), other, found)
    return found
