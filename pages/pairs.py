"""Images: how far single drawn images are from the real ones of their captions, down to the concepts of one pair."""

from html import escape

import streamlit as st

from pages.exhibits import images, named
from pages.widgets import controls, couples, data, markup, state, tiles, url
from pages.widgets.exhibit import missing, show, takeaway
from pages.widgets.live import link, live

KEYS = ("model", "estimator", "temperature", "low", "high", "models", "image", "top")


@st.fragment
def post_training() -> None:
    """Two models on the same captions."""
    view = url.current("pairs", KEYS)
    controls.two_models_choice(images.two_models(view), images.paired_models())
    _, _, rows, found = images.compared(view)
    interval = f"95 % interval {found.low:+.2f} to {found.high:+.2f}"
    numbers = (
        ("Medians", f"{found.medians[0]:.2f} → {found.medians[1]:.2f}", f"over {len(rows):,} captions"),
        ("Mean change", f"{found.change:+.2f}", f"{interval}; below 0: closer to reality"),
        ("Effect", f"{found.effect:+.2f}", "Cohen's d of the paired differences"),
        ("Closer", markup.percent(found.closer), f"of captions after; {tiles.probability(found.p)} (paired t), "
         f"{tiles.probability(found.p_wilcoxon)} (Wilcoxon)"),
    )  # fmt: skip
    inner = "".join(
        f'<div><strong>{name}</strong><b>{escape(value)}</b><span class="ba-note">{escape(what)}</span></div>'
        for name, value, what in numbers
    )
    show("post-training", view)
    live(f'<div class="ba-figures" style="--ba-least:125px">{inner}</div>', key="post_training")


@st.fragment
def single_images() -> None:
    """One model's pairs: candidates for copies, failures, and the chosen pair in detail."""
    view = url.current("pairs", KEYS)
    st.header("Single images", anchor="images", divider="gray")
    controls.model_choice(view)
    if not data.current().info.source(view.model).paired:
        st.info(f"{view.model} did not draw the captions of real images: its images have no real one to compare with.")
        return
    gallery, detail = st.columns([11, 9], gap="large")
    pair = images.chosen_pair(view)
    with detail, st.container(key="detail"):
        live(couples.pair_html(view, pair, data.table(view)), key="pair_detail")
        show("pair", view)
    with gallery:
        closest_and_worst(view, pair.number)
        show("copies", view)


def closest_and_worst(view: state.View, chosen: int) -> None:
    """Both ends of the ranking by divergence, as pairs of thumbnails."""
    rows = images.pairs_of(view.model)
    copied = int(rows["confirmed"].sum())
    count = max(3, view.top // 2)
    close = couples.couples(rows.head(count), chosen, nearest=True)
    far = couples.couples(rows.iloc[: -count - 1 : -1], chosen, nearest=False)
    how = (
        "Smallest divergence first: real, drawn, nearest real. p: share of real images whose nearest other real image "
        f"is at least as similar as this one's. {copied:,} of {len(rows):,} drawn images have p ≤ {images.LEVEL:g}; "
        f"about {images.LEVEL * len(rows):.0f} would, were they fresh draws from reality."
    )
    more = ""
    if count < min(48, len(rows)):
        more = f"<p>{link({'top': min(96, view.top + 24)}, 'Show more', css='ba-chip ba-more')}</p>"
    live(
        f"<section>{takeaway(named('copies', view))}<h3>Closest: copies?</h3>"
        f'<p class="ba-note">{escape(how)}</p>{close}</section>'
        f"<section>{takeaway(named('failures', view))}<h3>Furthest: failures</h3>"
        f'<p class="ba-note">Largest divergence first: real left, drawn right. The CSV has an empty column for whoever '
        f"rates whether the caption is to blame.</p>{far}</section>{more}",
        key="gallery",
    )


view = url.current("pairs", KEYS)
st.title("Images", anchor=False)
if missing("divergence", view):
    st.stop()
spread, trained = st.columns(2, gap="large")
with spread:
    show("divergence", view)
if len(images.paired_models()) > 1:
    with trained:
        post_training()
single_images()
