"""Images to token features: any `transformers` image backbone (DINOv2, DINOv3, ViT, ConvNeXt ...) behind one frozen,
differentiable `Encoder`.

`spec` is the plain data of a recipe and an atlas and needs no torch, `preprocess` the only place where images are read,
resized and normalised, `pretrained` opens checkpoints, `encoder` runs them.
"""
