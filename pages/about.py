"""Method: every number of this app, with its formula and where it comes from."""

import streamlit as st

from pages.widgets import controls, html, session

TEXT_ENERGY = """
A frozen image encoder turns an image into tokens, and a sparse autoencoder writes each token as a few of its
concepts. The **energy** of concept *k* in image *x* is the sum of its codes over all tokens, and a source's energy
is the mean over its images:
"""
TEXT_STATUS = """
**δ** runs from 0 (far less than reality) over 0.5 (as much as reality) to 1 (far more). By the gap estimator a frequent
concept reaches 0 long before the model stops drawing it; `share` says which part of its energy is left. Below the
lower threshold a concept is **suppressed**, above the upper one **exaggerated**. The paper's values are 0.1 and
0.9; both are sliders here, because a threshold is a choice. Changing estimator, temperature or thresholds
recomputes from stored sums, so nothing is approximated.
"""
TEXT_SIGNIFICANCE = """
Where a model's images were drawn from the captions of the real ones, the unit is the **pair**: the interval and *p*
come from the mean and variance of the per-pair difference, which removes what captions share. Otherwise both
sources' variances add (Welch). Intervals are Student's, 95 %, mapped through the same monotone sigmoid as δ; a concept
that few images show gets few degrees of freedom, because its variance is known no better. **q** is Benjamini-Hochberg
over live concepts. A concept can differ significantly (small q) and still be nowhere near a
threshold (small effect). Rankings list concepts with q < 0.05 first: among thousands, the most extreme δ are those of
rare concepts, by chance. A blindspot is **specific** to one model if every other model is at least a margin inside the
threshold (0.15; a slider on *Blindspots*).
"""
TEXT_CARD = """
* **Frequency**: share of real images in which the concept fires at least once.
* **Exemplars**: the images with the largest mean code over *patch* tokens; CLS and registers do not count.
* **Heat map**: the concept's codes over the patch grid. One scale per concept, set by its strongest real exemplar,
  so real and generated images compare.
* **Counterpart**: the image that the other source has for the same caption.
* **Words**: caption words over-represented among images with high energy (weighted log-odds with a Dirichlet
  prior). They describe captions, not pixels: read them as a hint.
* **Neighbours**: concepts that fire on the same tokens, whose dictionary atoms point the same way, or that lie near
  each other on the map.
* **Relative gap**: difference over sum of energies, in [-1, 1]; **Pearson r** between models uses it and δ.
"""
TEXT_MAP = """
Concepts lie near each other when they fire together. Axes have no unit, distances between far groups mean little. A
dot's area grows with frequency. The colours are a blue and a yellow of equal lightness around a dark plum: the
order survives all three kinds of colour blindness, and so does the glow of the ends in grey.
"""
TEXT_ANALYSES = """
* **Divergence** of a pair: the Euclidean distance between the energies of the real and the drawn image of one caption.
  Small: a copy, or a plain picture. Large: a failure, or a poor caption.
* **p of a copy**: share of real images whose nearest other real image is at least as similar as this one's. Were
  drawings fresh draws from reality, one in a hundred would have p ≤ 0.01.
* **Composition**: ZᵀZ over tokens, that is, which concepts fire on the same token and how strongly. A pair that changed
  is tested over images, and its p is multiplied by the number of pairs that were looked at.
* **FID** is computed in the encoder's space and in concept space. Few images bias it upwards, and a model that drew the
  captions of the very images it is compared with has an easy life: so one real half is compared with the model's
  drawings for the other half, and stands beside one real half against the other.
"""
TEXT_GENERATE = r"""
*Generate* draws images that excite one concept while staying natural (EnergyDPS). At each denoising step the clean
image is predicted, decoded and scored in four views (moved a little, mirrored, blurred), and the gradient of their
mean score nudges the next step: a pattern that only fools the encoder seldom survives all four. The score is read
**before** Top-K and ReLU, so that there is a slope to climb before the concept fires:
"""
TEXT_SCORE = """
*A* is the concept's pre-activation map over the patches. Beside it stands the same reduction of the final sparse
codes: high in the first and zero in the second means "almost". The best real images are scored by the same measure;
a drawing that reaches them shows that the concept lives in the prior, even where the model on the map suppresses
it.
"""


def estimators() -> None:
    """One formula and one reason per estimator."""
    for name, temperature in session.known().temperatures.items():
        st.markdown(f"**{controls.ESTIMATORS[name]}** (default T = {temperature:g}). {controls.WHY[name]}")
        st.latex(controls.FORMULAS[name])


def published(origin: dict) -> None:
    """For an atlas of published statistics: where they are from, what was assumed and what is missing."""
    st.header("This atlas", anchor="origin")
    st.markdown(
        "Its numbers were published by others and imported; nothing was measured here. What their files do not hold is "
        "left out, never estimated. What was assumed about them:"
    )
    html.show("about.origin", key="origin", origin=origin)


session.open_view("about", session.SETTINGS)
_, middle, _ = st.columns([1, 4, 1])
with middle:
    st.title("Method", anchor=False)
    st.markdown(
        "A blindspot is a visual concept that a generative model draws far less, or far more, often than reality shows "
        "it. This app measures that per concept, without asking anyone to name the concepts first."
    )
    if (origin := session.atlas().info.origin) is not None:
        published(origin)
    st.header("Energy", anchor="energy")
    st.markdown(TEXT_ENERGY)
    st.latex(r"\xi_k(x) = \sum_t z_{tk}(x), \qquad E_k(\mathrm{source}) = \frac{1}{n}\sum_{x} \xi_k(x)")
    st.header("Delta", anchor="delta")
    estimators()
    st.markdown(TEXT_STATUS)
    st.header("Certainty", anchor="certainty")
    st.markdown(TEXT_SIGNIFICANCE)
    st.header("Images and composition", anchor="analyses")
    st.markdown(TEXT_ANALYSES)
    st.header("The card", anchor="card")
    st.markdown(TEXT_CARD)
    st.header("The map", anchor="map")
    st.markdown(TEXT_MAP)
    st.header("Generate", anchor="generate")
    st.markdown(TEXT_GENERATE)
    st.latex(r"s_k(x) = 0.3\,\max_{uv} A_{uv} + 0.7\,\operatorname{mean}_{uv}\,\mathrm{relu}(A_{uv})")
    st.markdown(TEXT_SCORE)
