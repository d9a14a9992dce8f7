"""On the card: how a concept's energy is spread over images, and the real images under the tilt towards it."""

from __future__ import annotations

import streamlit as st

from engine.figures.activation import activation_histograms
from engine.reports.activation import image_energies, tilt_images
from pages.widgets import html, session
from pages.widgets.plot import show_figure
from pages.widgets.session import View

STEEPEST, USUAL, STEP = 12.0, 2.0, 0.25
"""Of the slider, in standard deviations of the energy."""
HELP = (
    "β of the tilt q ∝ p exp(β s), p the real images and s their energy, in units of one over its standard deviation. "
    "At 0 every image is as likely; far to the right only the strongest are left."
)


def show_activation(view: View) -> None:
    """Show histograms of a concept's energy and the tilt panel, computed once somebody opens them."""
    atlas, concept = session.atlas(), view.concept or 0
    if atlas.info.published or not atlas.has_images:
        return
    box = st.expander(
        "Activation and tilt", icon=":material/equalizer:", key=f"activation_{concept}", on_change="rerun"
    )
    if not box.open:
        return
    with box:
        energies = {model: image_energies(atlas, model, concept) for model in atlas.models}
        deltas = {model: float(session.table(view, model)["delta"].at[concept]) for model in atlas.models}
        real = image_energies(atlas, "real", concept)
        show_figure(activation_histograms(real, energies, deltas, concept=concept), key="activation_figure")
        strength = st.slider("Tilt", 0.0, STEEPEST, USUAL, STEP, key="w_tilt", help=HELP)
        found = tilt_images(atlas, concept, strength)
        if found is None:
            st.caption("The energy is the same in every real image: there is nothing to tilt towards.")
        else:
            html.show("card.tilted", key="tilted", found=found)
