"""The distributional view of feature visualisation (paper 000): tilts, thresholds and what each does to the prior.

Everything works on arrays of scores with optional log-weights: a thousand real images, a grid of quadrature nodes, a
cloud of particles. A distribution on n such atoms is an array [n] of normalised log-probabilities, so a tilt of a tilt
or the hazard of a tilt is a call with the first one's result as the second one's log-weights.
"""
