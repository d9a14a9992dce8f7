"""Diffusion priors behind one small interface: timesteps, noise, denoise, step, decode.

`base` holds the interface; `schedule` the arithmetic of a variance-preserving noise schedule, and `levels` and
`schedulers` what it follows of diffusers' schedulers. `pixel`, `latent`, `dit` and `adm` are the kinds of priors, and
`loading` turns a folder or hub id into one of them. `adm_conversion` makes such a folder from a checkpoint of
guided-diffusion.
"""
