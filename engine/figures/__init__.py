"""Tables in, plotly figures (and image overlays) out: pure functions that a notebook can call without the app.

Every figure carries a title, a subtitle (estimator, n) and, in ``layout.meta["how"]``, one line on how to read it. The
module stands alone: it takes data frames and arrays, never an atlas.
"""
