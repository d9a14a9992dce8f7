import pytest
import torch
from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification

from engine.atlas import Atlas
from engine.samplers.models import ModelBundle
from tests.drawable import build_drawable_atlas

CONCEPTS = 24


@pytest.fixture(scope="package")
def models(tmp_path_factory):
    """The models of an atlas; real ones, tiny and random."""
    atlas = Atlas.open(build_drawable_atlas(tmp_path_factory.mktemp("drawable"), CONCEPTS, pairs=6, models=("alpha",)))
    return ModelBundle(atlas, "cpu")


@pytest.fixture(scope="package")
def resnet(tmp_path_factory):
    """Folder of a ResNet of five classes, random, saved with the image settings of the real ones."""
    torch.manual_seed(0)
    names = ["tench, Tinca tinca", "zebra", "ambulance", "dome", "sports car"]
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", id2label=dict(enumerate(names))
    )
    folder = tmp_path_factory.mktemp("resnet")
    ResNetForImageClassification(config).save_pretrained(folder)
    ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.8).save_pretrained(folder)
    return folder


@pytest.fixture
def images():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
