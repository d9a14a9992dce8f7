"""Samplers: images that excite a concept. `generation` is what the app and the command line call, `registry` lists the
methods. Importing this package or one of these two loads no torch.
"""
