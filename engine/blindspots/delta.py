"""Delta: how much a model under-produces (below 1/2) or over-produces (above) a concept, with its interval.

Every estimator is an effect with a standard error, mapped into (0, 1) by the monotone sigmoid: delta =
sigmoid(effect / T), and the ends of the effect's interval are mapped with it.

| estimator      | effect                                   | T    | unit-free |
| -------------- | ---------------------------------------- | ---- | --------- |
| `gap`          | E_model - E_real                         | 0.8  | no        |
| `standardised` | gap / pooled standard deviation          | 0.8  | yes       |
| `relative`     | gap / (E_model + E_real), in [-1, 1]     | 0.4  | yes       |
| `share`        | log E_model - log E_real                 | 1    | yes       |

`share` at T = 1 is E_model / (E_model + E_real) = (1 + relative) / 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from pydantic import ConfigDict, Field
from scipy import special

from engine.blindspots.significance import (
    Interval,
    Moments,
    benjamini_hochberg,
    gap_p,
    interval_degrees,
    mean_covariance,
    null_error,
    student_quantile,
)
from engine.errors import BlindspotError

SUPPRESSED, NEUTRAL, EXAGGERATED = "suppressed", "neutral", "exaggerated"


@dataclass(frozen=True)
class DeltaSettings:
    """How delta is computed and read unless the reader asks for something else: a recipe's `delta`, an atlas's header.

    A recipe validates the constraints; a header is read as it is, and `verify` says what is wrong with it.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    estimator: Literal["gap", "relative", "share", "standardised"] = "gap"
    temperature: Annotated[float, Field(gt=0)] = 0.8
    """In units of energy for `gap`: the paper's 0.8 suits energies of a few units, smaller energies a smaller one."""
    suppressed: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """A concept with a delta below this is called suppressed."""
    exaggerated: Annotated[float, Field(gt=0.5, lt=1)] = 0.9
    """A concept with a delta above this is called exaggerated."""


class Effect(NamedTuple):
    """What an estimator measures, per concept, before it is mapped to delta."""

    value: np.ndarray
    """[K] the effect; 0 means that model and real agree; may be infinite for `share`."""
    se: np.ndarray
    """[K] its standard error."""


class Delta(NamedTuple):
    """Delta of every concept for one model."""

    effect: np.ndarray
    """[K] the estimator's effect."""
    delta: np.ndarray
    """[K] sigmoid(effect / T), in [0, 1]."""
    interval: Interval
    """Ends of the interval of delta."""


def gap_effect(real: Moments, model: Moments, se: np.ndarray) -> Effect:
    """E_model - E_real, in units of energy."""
    return Effect(model.mean - real.mean, se)


def standardised_effect(real: Moments, model: Moments, se: np.ndarray) -> Effect:
    """The gap over the pooled standard deviation of both sources (Cohen's d).

    The standard error treats the pooled deviation as known: its own error needs fourth moments, which an atlas does
    not store, and is of order effect^2 / images beside the gap's. A concept without any spread has effect 0 when the
    means agree and an infinite one otherwise.
    """
    weights = np.maximum(np.array([real.images - 1, model.images - 1], np.float64), 0.0)
    if weights.min() == 0:
        return Effect(np.zeros_like(se), np.full_like(se, np.inf))
    pooled = np.sqrt((weights[0] * real.variance + weights[1] * model.variance) / weights.sum())
    gap = model.mean - real.mean
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.where(gap == 0, 0.0, gap / pooled)
        return Effect(value, np.where(pooled > 0, se / pooled, np.where(np.isinf(se), np.inf, 0.0)))


def relative_gap(real: Moments, model: Moments) -> np.ndarray:
    """[K] gap / (E_model + E_real), in [-1, 1]; 0 for a concept that is silent in both."""
    total = model.mean + real.mean
    return np.divide(model.mean - real.mean, total, out=np.zeros_like(total), where=total > 0)


def relative_effect(real: Moments, model: Moments, se: np.ndarray) -> Effect:
    """The relative gap r = (m - e) / (m + e) of the means m (model) and e (real).

    By the delta method with dr/dm = 2e / (m + e)^2 and dr/de = -2m / (m + e)^2,

        Var r = 4 (e^2 V_m + m^2 V_e - 2 m e C) / (m + e)^4.

    A concept that one source never shows has r = -1 or 1 and, there being no spread to see, standard error 0.
    """
    total = model.mean + real.mean
    return Effect(relative_gap(real, model), _scaled(_ratio_error(real, model, se), 2.0, total**2))


def share_effect(real: Moments, model: Moments, se: np.ndarray) -> Effect:
    """The log ratio of mean energies, log m - log e; infinite when one source never shows the concept.

    By the delta method, Var = V_m / m^2 + V_e / e^2 - 2 C / (m e). The logarithm keeps the interval of a rare concept
    inside (0, 1) and as lopsided as it should be.
    """
    m, e = model.mean, real.mean
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.where(m == e, 0.0, np.log(m) - np.log(e))
    return Effect(value, _scaled(_ratio_error(real, model, se), 1.0, m * e))


def _scaled(error: np.ndarray, factor: float, divisor: np.ndarray) -> np.ndarray:
    """error * factor / divisor; where the divisor is 0 there is no spread: 0, unless nothing is known of the error."""
    return np.divide(factor * error, divisor, out=np.where(np.isinf(error), np.inf, 0.0), where=divisor > 0)


def _ratio_error(real: Moments, model: Moments, se: np.ndarray) -> np.ndarray:
    """sqrt(e^2 V_m + m^2 V_e - 2 m e C): what every smooth function of m / e multiplies by its own slope."""
    if real.images < 2 or model.images < 2:
        return np.full_like(se, np.inf)
    m, e = model.mean, real.mean
    known = np.isfinite(se)
    covariance = mean_covariance(real, model, np.where(known, se, 0.0))
    variance = e**2 * model.variance / model.images + m**2 * real.variance / real.images - 2 * m * e * covariance
    return np.where(known, np.sqrt(np.maximum(variance, 0.0)), np.inf)


def _add(value: np.ndarray, step: np.ndarray) -> np.ndarray:
    return value + step


def _add_to_log_ratio(value: np.ndarray, step: np.ndarray) -> np.ndarray:
    """r = tanh(l / 2), moved on the scale of the log ratio l, where its law is more symmetric (as in Fisher's z).

    dl = 2 dr / (1 - r^2); an r of -1 or 1 stays.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.abs(value) < 1, np.tanh(np.arctanh(value) + step / (1 - value**2)), value)


class Estimator(NamedTuple):
    """An effect and the temperature that it is read at by default."""

    effect: Callable[[Moments, Moments, np.ndarray], Effect]
    """(real, model, standard error of the gap) -> effect."""
    temperature: float
    """Default T."""
    bounds: tuple[float, float]
    """The range of the effect."""
    move: Callable[[np.ndarray, np.ndarray], np.ndarray] = _add
    """(effect, multiple of its standard error) -> an end of its interval."""


ESTIMATORS: dict[str, Estimator] = {
    "gap": Estimator(gap_effect, 0.8, (-np.inf, np.inf)),
    "relative": Estimator(relative_effect, 0.4, (-1.0, 1.0), _add_to_log_ratio),
    "share": Estimator(share_effect, 1.0, (-np.inf, np.inf)),
    "standardised": Estimator(standardised_effect, 0.8, (-np.inf, np.inf)),
}


def estimate_delta(
    real: Moments,
    model: Moments,
    se: np.ndarray,
    *,
    estimator: str = "gap",
    temperature: float | None = None,
    level: float = 0.95,
    degrees: np.ndarray | float = np.inf,
) -> Delta:
    """Delta of every concept and its interval.

    Parameters
    ----------
    real, model : moments of the image energies of both sources.
    se : [K] standard error of the gap (`significance.measure_gap`).
    estimator : a key of `ESTIMATORS`.
    temperature : T of the sigmoid; default is the estimator's own.
    level : coverage of the interval.
    degrees : [K] degrees of freedom of `se` (`significance.interval_degrees`); infinite ones give the normal interval.

    Raises
    ------
    BlindspotError
        If the estimator is unknown or the temperature is not above zero.
    """
    if estimator not in ESTIMATORS:
        raise BlindspotError(f"There is no delta estimator {estimator!r}: choose one of {', '.join(ESTIMATORS)}.")
    measure = ESTIMATORS[estimator]
    temperature = measure.temperature if temperature is None else temperature
    if not 0 < temperature < np.inf:
        raise BlindspotError(f"The temperature of delta is {temperature}: it must be a number above zero.")
    value, error = measure.effect(real, model, se)
    reach = student_quantile(degrees, level) * error
    with np.errstate(invalid="ignore"):
        ends = [
            np.where(
                np.isinf(reach), sign * np.inf, np.where(np.isinf(value), value, measure.move(value, sign * reach))
            )
            for sign in (-1, 1)
        ]
    low, high = (special.expit(np.clip(end, *measure.bounds) / temperature) for end in ends)
    return Delta(value, special.expit(value / temperature), Interval(low, high))


def delta_columns(
    real: Moments,
    model: Moments,
    se: Float[np.ndarray, " concepts"],
    *,
    live: np.ndarray,
    active: tuple[np.ndarray, np.ndarray],
    paired: bool,
    estimator: str,
    temperature: float | None,
) -> dict[str, Float[np.ndarray, " concepts"]]:
    """What is said of every concept of one model: gap, relative, delta, ci_low, ci_high, p and q.

    Parameters
    ----------
    real, model : moments of the image energies.
    se : standard error of the gap.
    live : [K] the concepts that are tested; the others get q = 1.
    active : [K] real images and [K] images of the model in which the concept fires; what the intervals' degrees of
        freedom are limited by.
    paired : whether images share pairs.
    estimator, temperature : of `delta` and its interval; the estimator's own temperature when None.
    """
    degrees = interval_degrees(real, model, paired, *active)
    found = estimate_delta(real, model, se, estimator=estimator, temperature=temperature, degrees=degrees)
    gap = model.mean - real.mean
    p = gap_p(gap, null_error(real, model, se), min(real.images, model.images), degrees)
    return {
        "gap": gap,
        "relative": relative_gap(real, model),
        "delta": found.delta,
        "ci_low": found.interval.low,
        "ci_high": found.interval.high,
        "p": p,
        "q": benjamini_hochberg(p, live),
    }


def delta_of_gap(gap: np.ndarray, temperature: float = 0.8) -> np.ndarray:
    """sigmoid(gap / T): monotone, so it maps the ends of an interval for the gap to one for delta."""
    return special.expit(np.asarray(gap) / temperature)


def classify(delta: np.ndarray, suppressed: float = 0.1, exaggerated: float = 0.9) -> np.ndarray:
    """`suppressed` where delta < `suppressed`, `exaggerated` where delta > `exaggerated`, else `neutral`.

    Section D.3 prints "< 0.9" for exaggerated; the sense is "> 0.9".
    """
    return np.where(delta < suppressed, SUPPRESSED, np.where(delta > exaggerated, EXAGGERATED, NEUTRAL))
