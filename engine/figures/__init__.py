"""Tables in, plotly figures (and images) out: pure functions that a notebook can call without the app.

Every figure carries a title, a subtitle (estimator, n) and, in ``layout.meta["how"]``, one line on how to read it. The
package takes data frames and arrays, never an atlas; `engine.reports` draws an atlas's own figures with it.
"""
