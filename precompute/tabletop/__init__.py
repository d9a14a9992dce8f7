"""The demo world: small painted scenes of toys on a surface, with their captions and ground truth."""
