"""Diffusion priors behind one small interface: timesteps, noise, denoise, step, decode.

`base` holds the interface, `schedule` the arithmetic of a variance-preserving noise schedule. `pixel`, `latent`, `dit`
and `adm` are the kinds of priors, `spec` is what a recipe says of one, and `loading` opens it. `adm_conversion` makes
an ADM's folder from a checkpoint of guided-diffusion.
"""
