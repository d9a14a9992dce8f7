"""Token features to sparse codes: TopK, BatchTopK and relaxed archetypal sparse autoencoders (RA-SAE) and the
convolutional transcoder, their training on tensors or on shards of a large corpus, and their checkpoints.

Import from the modules: `spec` says what a dictionary is to be (no torch), `fitting.fit` learns one,
`base.Dictionary.from_pretrained` opens one, and `published.import_dictionary` makes one of what others published."""
