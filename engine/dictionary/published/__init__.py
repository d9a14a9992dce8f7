"""Dictionaries that others published, opened without running anything they contain: overcomplete (TopK, BatchTopK,
RA-SAE), OSU-NLP saev, EleutherAI sparsify, dictionary_learning and SAELens. `import_dictionary` makes them ours."""

from engine.dictionary.published.importing import AUTO, READERS, ImportReport, import_dictionary, read_published
from engine.dictionary.published.linear import Imported, Options

__all__ = ["AUTO", "READERS", "ImportReport", "Imported", "Options", "import_dictionary", "read_published"]
