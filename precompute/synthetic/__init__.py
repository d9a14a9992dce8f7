"""Invented sources of any size, with planted blindspots: `python -m precompute synthesize`.

`world` says which concepts there are, how often they fire and which belong together; `scenes` what an image shows and
how it is drawn; `codes` turns scenes into token codes, with what a model gets wrong planted in them; `invention` holds
all of one atlas, and `build` sends it through the same stages as a real one.
"""
