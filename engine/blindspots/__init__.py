"""From sparse codes to blindspots: the analyses of "Conceptual Blindspots in Generative Image Models", with error bars.

* concepts: `energy`, `significance`, `delta`, `distribution`, `correlation`, and the words of `words`;
* single images: `divergence` (memorisation, failures, post-training);
* pairs of concepts: `cooccurrence`, `composition`, `spectrum`;
* scalar metrics: `metrics`.

Pure functions on numpy arrays and scipy sparse matrices; nothing here reads or writes a file. Section, figure and
theorem numbers in this package are those of that paper.
"""
