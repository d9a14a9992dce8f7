"""Drawing images that excite a concept: scores, EnergyDPS, its peers, and the one function that the app and the
command line call (`engine.samplers.drawing.draw_concept`). Importing this package, `drawing` or `files` loads no torch.
"""
