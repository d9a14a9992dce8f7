"""Invariant sets: which inputs a model cannot tell from a given one, sampled through a prior ("EquiDiff", Sadlej 2025).

IS(x*) = {x : f(x) = f(x*)} (eq. 3.1). With images x = G(z) of a deterministic generator and z ~ N(0, I), its members
are the z with f(G(z)) = y*. `levelset` has the constraint, and three ways onto it: descent as the thesis prints it,
Gauss-Newton projection, and annealed particles. `walk` moves along it with the right law. `planar` holds them against
exact laws in the plane.
"""
