"""Invented sources of any size, with planted blindspots: `python -m precompute synthesize`.

`marginals` says how often concepts fire and how strongly, `world` which of them belong together, `scenes` what an
image shows, `planted` what a model gets wrong, `codes` and `pictures` turn scenes into token codes and thumbnails, and
`build` sends all of it through the same stages as a real atlas.
"""
