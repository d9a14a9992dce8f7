"""The demo world: small painted scenes of toys on a surface, with their captions and ground truth, and the training of
the demo's models on them.

`scenes`, `toys` and `surfaces` draw; a recipe's `world: tabletop` uses them. `optimisation`, `encoder`, `generators`
and `training` are what `python -m precompute demo --train` runs; nothing else imports them.
"""
