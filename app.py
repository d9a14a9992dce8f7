"""Opens an atlas in the browser: ``streamlit run app.py -- [ATLAS]``.

The pages live in `pages/shell.py`; the routes beside them hand thumbnails, large figures and the pictures that samplers
were compared on to the browser, which keeps them, so that a click moves a few kilobytes.
"""

import streamlit as st
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from engine.reports import samplers
from pages.routes import KnownHosts, routes
from pages.widgets.reports import SAMPLER_IMAGES

pictures = Mount(SAMPLER_IMAGES, StaticFiles(directory=samplers.FOLDER, check_dir=False))
app = st.App("pages/shell.py", routes=[*routes(), pictures], middleware=[Middleware(KnownHosts)])
