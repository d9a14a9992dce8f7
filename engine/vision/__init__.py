"""Images to token features: any `transformers` image backbone (DINOv2, DINOv3, ViT, ConvNeXt ...) behind one frozen,
differentiable `Encoder`, and the one place where images are read, resized and normalised. Import from the modules
(`engine.vision.encoder`, `engine.vision.preprocess`, `engine.vision.spec`); the last needs no torch."""
