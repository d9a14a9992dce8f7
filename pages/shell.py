"""The frame of every page: opens the atlas (or says in one sentence why not) and declares the pages."""

from pathlib import Path

import streamlit as st

from engine.errors import BlindspotError
from pages.widgets import data, url
from pages.widgets.live import styles

# A file of our own: the browser would fetch a named symbol from elsewhere. (A docstring here would show on the page.)
ICON = Path(__file__).parent / "widgets" / "icon.png"

st.set_page_config(page_title="Blindspot Atlas", page_icon=ICON, layout="wide")

PAGES = {
    "overview": st.Page("overview.py", title="Overview", icon=":material/home:", default=True),
    "concept_map": st.Page("concept_map.py", title="Concept map", icon=":material/scatter_plot:"),
    "blindspots": st.Page("blindspots.py", title="Blindspots", icon=":material/visibility_off:"),
    "pairs": st.Page("pairs.py", title="Images", icon=":material/image:"),
    "composition": st.Page("composition.py", title="Composition", icon=":material/hub:"),
    "compare": st.Page("compare.py", title="Compare", icon=":material/compare:"),
    "dictionary": st.Page("dictionary.py", title="Dictionary", icon=":material/bar_chart:"),
    "theory": st.Page("theory.py", title="Theory", icon=":material/functions:"),
    "about": st.Page("about.py", title="Method", icon=":material/menu_book:"),
}
page = st.navigation(list(PAGES.values()), position="top")
styles()
try:
    data.current()
    wanted = url.leave()
    if wanted and wanted[0] in PAGES:
        st.switch_page(PAGES[wanted[0]], query_params=wanted[1])
    page.run()
except BlindspotError as error:
    st.title("This atlas cannot be shown")
    st.error(str(error), icon=":material/error:")
    st.caption("Start the app as `streamlit run app.py -- ATLAS`, or set BLINDSPOT_ATLAS to the atlas folder.")
