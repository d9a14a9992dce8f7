"""Token features to sparse codes: TopK and relaxed archetypal sparse autoencoders (RA-SAE), their training on tensors
or on shards of a large corpus, and their checkpoints. `fit` learns one, `load_dictionary` opens one."""

from engine.dictionary.archetypal import RelaxedArchetypal
from engine.dictionary.base import Codes, Dictionary
from engine.dictionary.checkpoints import load_dictionary, save_dictionary
from engine.dictionary.fitting import fit
from engine.dictionary.topk import TopK
from engine.dictionary.training import Progress, TrainConfig, TrainReport, train

__all__ = [
    "Codes",
    "Dictionary",
    "Progress",
    "RelaxedArchetypal",
    "TopK",
    "TrainConfig",
    "TrainReport",
    "fit",
    "load_dictionary",
    "save_dictionary",
    "train",
]
