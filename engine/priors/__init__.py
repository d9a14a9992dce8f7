"""Diffusion priors behind one small interface: timesteps, noise, denoise, step, decode.

`base` holds the interface, `schedule` the arithmetic of a variance-preserving noise schedule, `pixel` and `latent` the
two families of diffusers models, `loading` turns a folder or hub id into one of them.
"""
