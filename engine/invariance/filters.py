"""Realism in the frequency domain: low-pass filters, losses that see through them, response curves and spectra.

Frequencies are radii in units of Nyquist, half a cycle per pixel: 1 is the finest horizontal stripe, sqrt(2) the finest
diagonal one. A filter works on the periodic image, as a product with the discrete Fourier transform does ("EquiDiff",
eq. 3.4), and its output is not clipped: it may leave [0, 1] at edges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from engine.errors import BlindspotError
from engine.samplers.metrics import LUMA, spectral_slope

Images = Float[Tensor, "n 3 height width"]
Responses = Callable[[Tensor], Tensor]
"""Images [n, 3, height, width] to responses [n, m]; a `Target`."""
Kind = Literal["ideal", "gaussian", "butterworth"]
Weighting = Literal["low", "printed"]
CUTOFFS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""C of eq. 3.6."""
CURVE = tuple(tenth / 10 for tenth in range(1, 10))
"""Cut-offs of the spectral coherence analysis (appendix A.4.2)."""
USUAL = "ideal:0.5"
"""The filter of `auto`, in the words of `parse_low_pass`."""


@dataclass(frozen=True)
class LowPass:
    """A low-pass filter; "EquiDiff", eq. 3.4, with the kinds of table A.1.

    With r the frequency, its transfer function is

        ideal        1 if r <= cutoff, else 0
        gaussian     exp(-r^2 / (2 cutoff^2)), so that `cutoff` is sigma
        butterworth  1 / (1 + (r / cutoff)^(2 order)), one half at the cut-off

    The default is the thesis's best: Gaussian with sigma 0.1 (appendix A.5.4).

    Raises
    ------
    BlindspotError
        For settings that make no filter.
    """

    kind: Kind = "gaussian"
    cutoff: float = 0.1
    """In units of Nyquist."""
    order: int = 2
    """Of `butterworth`: 2 to 8 in the thesis; higher is steeper."""

    def __post_init__(self) -> None:
        if self.kind not in ("ideal", "gaussian", "butterworth"):
            raise BlindspotError(f"There is no filter {self.kind!r}: choose ideal, gaussian or butterworth.")
        if not (math.isfinite(self.cutoff) and self.cutoff > 0) or self.order < 1:
            raise BlindspotError(
                f"A filter needs a cut-off above 0 and an order of at least 1, not {self.cutoff} and {self.order}."
            )

    def transfer(self, height: int, width: int) -> Float[Tensor, "height half"]:
        """H at the coefficients of `rfft2`; half = width // 2 + 1."""
        radius = 2 * torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])
        if self.kind == "ideal":
            return (radius <= self.cutoff * (1 + 1e-6)).float()
        if self.kind == "gaussian":
            return torch.exp(-0.5 * (radius / self.cutoff) ** 2)
        return 1 / (1 + (radius / self.cutoff) ** (2 * self.order))

    def __call__(self, images: Images) -> Images:
        """Filtered images; linear, so differentiable. The mean colour stays."""
        height, width = images.shape[-2:]
        coefficients = torch.fft.rfft2(images.float()) * self.transfer(height, width).to(images.device)
        return torch.fft.irfft2(coefficients, s=(height, width)).to(images.dtype)


def cutoff_weights(cutoffs: Sequence[float] = CUTOFFS, weighting: Weighting = "low") -> tuple[float, ...]:
    """Weights w of eq. 3.6 for cut-offs f_c between 0 and 1.

    `low` is w = 1 - f_c. `printed` is the thesis's w = f_c, which it says "emphasises lower frequency components" but
    which weighs the high cut-offs more, those whose images are hardly filtered. For the thesis's cut-offs both have the
    same sum.

    Raises
    ------
    BlindspotError
        If a cut-off is not between 0 and 1, or there is no such weighting.
    """
    if not cutoffs or not all(0 < cutoff < 1 for cutoff in cutoffs):
        raise BlindspotError(f"Cut-offs lie between 0 and 1, in units of Nyquist, not {list(cutoffs)}.")
    if weighting not in ("low", "printed"):
        raise BlindspotError(f"There is no weighting {weighting!r}: choose low or printed.")
    return tuple(cutoff if weighting == "printed" else 1 - cutoff for cutoff in cutoffs)


def parse_low_pass(words: str) -> tuple[tuple[LowPass, ...], tuple[float, ...]]:
    """Filters and their weights from words: `none`, `ideal:0.5`, `gaussian:0.1,butterworth:0.3:4`, `multi`.

    `auto` is `USUAL`, the filter that members are held to where that can be done.

    `multi` and `multi-printed` are the cut-offs and weights of eq. 3.6, see `cutoff_weights`; others weigh 1.

    Raises
    ------
    BlindspotError
        If the words name no filter.
    """
    if words == "none":
        return (), ()
    if words == "auto":
        words = USUAL
    if words in ("multi", "multi-printed"):
        weighting: Weighting = "printed" if words == "multi-printed" else "low"
        return tuple(LowPass("ideal", cutoff) for cutoff in CUTOFFS), cutoff_weights(CUTOFFS, weighting)
    filters = []
    for word in words.split(","):
        kind, *numbers = word.strip().split(":")
        try:
            cutoff, order = float(numbers[0]), int(numbers[1]) if len(numbers) > 1 else 2
            if len(numbers) > 2 or (len(numbers) == 2 and kind != "butterworth"):
                raise ValueError
        except (ValueError, IndexError):
            raise BlindspotError(
                f"{word!r} is no low-pass filter: say auto, none, multi, multi-printed, ideal:0.5, gaussian:0.1 or "
                "butterworth:0.3:4, several with commas; cut-offs in units of Nyquist."
            ) from None
        filters.append(LowPass(kind, cutoff, order))  # type: ignore[arg-type]
    return tuple(filters), (1.0,) * len(filters)


class Filtered:
    """f of an image and of its low-pass versions: sqrt(w) f(F(x)) beside f(x), as `spectral_residual` weighs them.

    Parameters
    ----------
    respond
        f: images [n, 3, height, width] to responses [n, m].
    filters, weights
        F and w of eq. 3.6; eq. 3.3 is one filter of weight 1. Without filters this is f.
    """

    def __init__(self, respond: Responses, filters: Sequence[LowPass] = (), weights: Sequence[float] = ()):
        self.respond, self.filters, self.weights = respond, tuple(filters), (1.0, *weights)

    def target(self, wanted: Float[Tensor, " m"]) -> Float[Tensor, " outputs"]:
        """y* of all of them, outputs = m (1 + filters)."""
        return torch.cat([weight**0.5 * wanted for weight in self.weights])

    def __call__(self, images: Images) -> Float[Tensor, "n outputs"]:
        if not self.filters:
            return self.respond(images)
        views = torch.cat([images, *(low_pass(images) for low_pass in self.filters)])
        responses = self.respond(views).unflatten(0, (len(self.weights), len(images)))
        scale = responses.new_tensor(self.weights).sqrt()
        return (responses * scale[:, None, None]).transpose(0, 1).flatten(1)


def spectral_residual(
    images: Images,
    respond: Responses,
    target: Float[Tensor, " m"],
    filters: Sequence[LowPass],
    weights: Sequence[float],
) -> Float[Tensor, "n outputs"]:
    """Weighted deviations sqrt(w) (f(F(x)) - y*) of the image itself (w = 1) and of each filtered one.

    The squared length of a row is eq. 3.6 with lambda = 1 (eq. 3.3 for one filter of weight 1), so that Gauss-Newton
    can solve for all of them at once; outputs = m (1 + filters). All images are in one call of `respond`.
    """
    stacked = Filtered(respond, filters, weights)
    return stacked(images) - stacked.target(target.to(images.device))


def dual_loss(
    images: Images, respond: Responses, target: Float[Tensor, " m"], low_pass: LowPass | None = None, scale: float = 1.0
) -> Float[Tensor, " n"]:
    """scale (|f(x) - y*|^2 + |f(F(x)) - y*|^2) of each image ("EquiDiff", eq. 3.3); F is `LowPass()` if not given."""
    return scale * spectral_residual(images, respond, target, [low_pass or LowPass()], [1.0]).square().sum(dim=1)


def multi_cutoff_loss(
    images: Images,
    respond: Responses,
    target: Float[Tensor, " m"],
    cutoffs: Sequence[float] = CUTOFFS,
    weighting: Weighting = "low",
    kind: Kind = "ideal",
    scale: float = 1.0,
) -> Float[Tensor, " n"]:
    """scale (|f(x) - y*|^2 + sum_c w_c |f(F_c(x)) - y*|^2) of each image, "EquiDiff", eq. 3.5 and 3.6.

    Parameters
    ----------
    weighting
        See `cutoff_weights`; "printed" is Algorithm 1's, line 18.
    scale
        lambda.
    """
    weights = cutoff_weights(cutoffs, weighting)
    filters = [LowPass(kind, cutoff) for cutoff in cutoffs]
    return scale * spectral_residual(images, respond, target, filters, weights).square().sum(dim=1)


class ResponseCurve(NamedTuple):
    """Responses to images after low-pass filters: spectral coherence (appendix A.4.2)."""

    cutoffs: tuple[float, ...]
    responses: Float[Tensor, "cutoffs n m"]
    unfiltered: Float[Tensor, "n m"]

    def deviations(self) -> Float[Tensor, "cutoffs n"]:
        """|f(F(x)) - f(x)| / |f(x)|; NaN or infinite where the response to the image is 0."""
        return (self.responses - self.unfiltered).norm(dim=2) / self.unfiltered.norm(dim=1)


@torch.no_grad()
def response_curve(
    images: Images, respond: Responses, cutoffs: Sequence[float] = CURVE, kind: Kind = "ideal"
) -> ResponseCurve:
    """Measure how responses change when fine detail is taken away, cut-off by cut-off.

    A response that only returns at high cut-offs lives on detail that people hardly see.
    """
    responses = torch.stack([respond(LowPass(kind, cutoff)(images)) for cutoff in cutoffs])
    return ResponseCurve(tuple(cutoffs), responses, respond(images))


class RadialSpectrum(NamedTuple):
    """Power of the brightness of images by frequency, averaged over directions."""

    frequencies: np.ndarray
    """[bins], in units of Nyquist, up to 1."""
    power: np.ndarray
    """[n, bins], in units of the pixels squared."""
    slope: np.ndarray
    """[n], the exponent a of power ~ frequency^-a, see `spectral_slope`: about 2 for photographs."""


def power_spectrum(images: Images, window: bool = False) -> Float[Tensor, "n height width"]:
    """|F(x)(u, v)|^2 of the brightness, frequency 0 in the centre ("EquiDiff", figure 4.1).

    Parameters
    ----------
    window
        Take the mean away and fade the edges out by a Hann window, so that the jump from one edge to the opposite one
        leaves no cross.
    """
    luma = torch.einsum("c,nchw->nhw", images.new_tensor(LUMA), images)
    if window:
        rows, columns = (torch.hann_window(size, periodic=False, device=images.device) for size in images.shape[-2:])
        luma = (luma - luma.mean(dim=(1, 2), keepdim=True)) * rows[:, None] * columns
    return torch.fft.fftshift(torch.fft.fft2(luma, norm="ortho").abs().square(), dim=(1, 2))


def radial_spectrum(images: Float[Tensor, "n 3 size size"]) -> RadialSpectrum:
    """Average the windowed `power_spectrum` of square images over rings one cycle per image wide.

    Raises
    ------
    BlindspotError
        If the images are not square, or smaller than 8 pixels.
    """
    size = images.shape[-1]
    if images.shape[-2] != size or size < 8:
        raise BlindspotError(f"A spectrum needs square images of at least 8 pixels, not {list(images.shape[-2:])}.")
    power = power_spectrum(images, window=True).detach().cpu().double().numpy().reshape(len(images), -1)
    frequency = np.fft.fftshift(np.fft.fftfreq(size))
    ring = np.rint(size * np.hypot(frequency[:, None], frequency)).astype(int).ravel()
    bins = np.arange(1, size // 2 + 1)
    mean = np.stack([power[:, ring == number].mean(axis=1) for number in bins], axis=1)
    return RadialSpectrum(2 * bins / size, mean, spectral_slope(images.detach()))
