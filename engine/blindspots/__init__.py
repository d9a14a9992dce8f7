"""From sparse codes to blindspots: paper 004's analyses, each with its error bars or its baseline.

* concepts: `energy`, `moments`, `delta`, `significance`, `concentration`, `distribution`, `universal`, `correlation`,
  `frequency`, and the words of `log_odds`;
* single images: `divergence`, `memorisation`, `captions`, `post_training`;
* pairs of concepts: `cooccurrence`, `composition`, `spectrum`, `changes`;
* scalar metrics: `frechet`, `coverage`; and `baselines` for what chance alone gives.

Pure functions on numpy arrays and scipy sparse matrices (DESIGN section 4); nothing here reads or writes a file.
"""
