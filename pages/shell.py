"""The frame of every page: opens the atlas (or says in one sentence why not) and declares the pages."""

from pathlib import Path

import streamlit as st

from engine.errors import BlindspotError
from pages.widgets import html, running, session

# A file of our own: the browser would fetch a named symbol from elsewhere. (A docstring here would show on the page.)
ICON = Path(__file__).parent / "widgets" / "icon.png"

st.set_page_config(page_title="Blindspot Atlas", page_icon=ICON, layout="wide")

PAGES = [
    st.Page("overview.py", title="Overview", icon=":material/home:", default=True),
    st.Page("concept_map.py", title="Concept map", icon=":material/scatter_plot:"),
    st.Page("blindspots.py", title="Blindspots", icon=":material/visibility_off:"),
    st.Page("pairs.py", title="Images", icon=":material/image:"),
    st.Page("my_image.py", title="My image", icon=":material/add_photo_alternate:"),
    st.Page("generate.py", title="Generate", icon=":material/auto_awesome:"),
    st.Page("composition.py", title="Composition", icon=":material/hub:"),
    st.Page("compare.py", title="Compare", icon=":material/compare:"),
    st.Page("dictionary.py", title="Dictionary", icon=":material/bar_chart:"),
    st.Page("invariance.py", title="Invariance", icon=":material/join_inner:"),
    st.Page("theory.py", title="Theory", icon=":material/functions:"),
    st.Page("samplers.py", title="Samplers", icon=":material/brush:"),
    st.Page("ratings.py", title="Ratings", icon=":material/rate_review:"),
    st.Page("about.py", title="Method", icon=":material/menu_book:"),
]
page = st.navigation(PAGES, position="top")
st.set_page_config(page_title=f"{page.title} · Blindspot Atlas")
html.styles()
try:
    html.atlas_choice()
    if session.was_rebuilt():
        st.toast("The atlas was rebuilt; this is the new one.", icon=":material/refresh:")
    html.notice()
    running.show()
    page.run()
except BlindspotError as error:
    if session.is_rebuilt():
        st.rerun()
    st.title("This atlas cannot be shown")
    st.error(html.plain(error, code=True), icon=":material/error:")
    st.caption("Start the app as `streamlit run app.py -- ATLAS`, ATLAS the folder of an atlas or of several.")
except Exception as error:
    html.failed(error)
