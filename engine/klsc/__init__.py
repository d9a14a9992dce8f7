"""KL-constrained feature visualisation ("EnergyDPS", arXiv:2605.17504): what tilts and thresholds do to a prior.

A distribution on n atoms (real images, quadrature nodes, particles) is an array [n] of normalised log-probabilities, so
that a tilt of a tilt is a call with the first one's result as the second one's log-weights. Equation, lemma and
definition numbers in this package are those of arXiv:2605.17504.
"""
