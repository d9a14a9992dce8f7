"""Token features to sparse codes: TopK, BatchTopK and relaxed archetypal sparse autoencoders (RA-SAE) and the
convolutional transcoder, their training on tensors or on shards of a large corpus, and their checkpoints. `fit` learns
one, `load_dictionary` opens one."""

from engine.dictionary.archetypal import RelaxedArchetypal
from engine.dictionary.base import Codes, Dictionary
from engine.dictionary.batchtopk import BatchTopK
from engine.dictionary.checkpoints import load_dictionary, origin_of, save_dictionary
from engine.dictionary.evaluation import Quality, evaluate
from engine.dictionary.fitting import fit
from engine.dictionary.schedule import TrainConfig
from engine.dictionary.topk import TopK
from engine.dictionary.training import Progress, TrainReport, train
from engine.dictionary.transcoder import Transcoder

__all__ = [
    "BatchTopK",
    "Codes",
    "Dictionary",
    "Progress",
    "Quality",
    "RelaxedArchetypal",
    "TopK",
    "TrainConfig",
    "TrainReport",
    "Transcoder",
    "evaluate",
    "fit",
    "load_dictionary",
    "origin_of",
    "save_dictionary",
    "train",
]
