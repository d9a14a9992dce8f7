"""Opens an atlas in the browser: ``streamlit run app.py -- [ATLAS]``.

The pages live in `pages/shell.py`; the routes beside them hand thumbnails and large figures to the browser, which keeps
them, so that a click moves a few kilobytes.
"""

import streamlit as st

from pages.routes import routes

app = st.App("pages/shell.py", routes=routes())
