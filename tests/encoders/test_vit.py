"""The published architectures, built without weights: sizes, tokens, preprocessing, pooling."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from coverslip.base.errors import EncoderError
from coverslip.base.registry import ENCODERS
from coverslip.encoders import blueprint
from coverslip.encoders.vit import PublishedViT, pool

# name: parameters in millions as published, tokens of a 224 px tile, tensors, dim, resize rule, gated
PUBLISHED = {
    "uni": (303.4, 197, 342, 1024, "bilinear 224", True),
    "uni2": (681.4, 265, 343, 1536, "bilinear 224", True),
    "phikon": (85.8, 197, 150, 768, "bilinear 224", False),
    "phikon-v2": (303.4, 197, 342, 1024, "bicubic 224", False),
    "virchow2": (631.2, 261, 455, 2560, "bicubic 224", True),
    "h-optimus-0": (1134.8, 261, 567, 1536, "bicubic 224", False),
    "gigapath": (1135.0, 197, 566, 1536, "bicubic 256, centre crop 224", True),
    "hibou-b": (85.7, 261, 175, 768, "bicubic 224", True),
    "midnight": (1134.8, 257, 566, 3072, "bilinear 224", False),
    "kaiko-vits16": (21.7, 197, 150, 384, "bilinear 224", False),
    "lunit-vits16": (21.7, 197, 150, 384, "bicubic 224", False),
}
IMAGENET = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
HALF = ((0.5,) * 3, (0.5,) * 3)
NORMS = {
    "kaiko-vits16": HALF,
    "midnight": HALF,
    "h-optimus-0": ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517)),
    "hibou-b": ((0.7068, 0.5755, 0.722), (0.195, 0.2316, 0.1816)),
    "lunit-vits16": ((0.70322989, 0.53606487, 0.66096631), (0.21716536, 0.26081574, 0.20723464)),
}


def test_the_table_holds_every_published_encoder():
    assert {name for name in ENCODERS.names() if name not in {"texture", "timm:"}} == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_architecture_is_the_published_one(name):
    millions, tokens, tensors, dim, resize, gated = PUBLISHED[name]
    plan = blueprint(name)
    network = plan.vit.build("meta")
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == millions
    assert len(network.state_dict()) == tensors
    features = network.forward_features(torch.empty(1, 3, 224, 224, device="meta"))
    assert tuple(features.shape) == (1, tokens, plan.vit.width) and plan.vit.num_tokens == tokens
    info = plan.info
    assert (info.dim, info.resize, info.gated, info.input_px) == (dim, resize, gated, 224)
    assert (info.mean, info.std) == NORMS.get(name, IMAGENET)
    assert info.revision == "main" and info.sha256 is None


@pytest.mark.parametrize(("name", "count"), [("gigapath", 1_134_953_984), ("virchow2", 631_239_424)])
def test_the_number_of_parameters_is_exactly_the_published_one(name, count):
    assert sum(p.numel() for p in blueprint(name).vit.build("meta").parameters()) == count


def test_registers_are_not_pooled():
    tokens = torch.arange(6.0).view(1, 6, 1)  # CLS 0, registers 1 2 3, patches 4 5
    assert pool(tokens, "cls", num_prefix=4).tolist() == [[0.0]]
    assert pool(tokens, "cls+mean", num_prefix=4).tolist() == [[0.0, 4.5]]


@pytest.mark.parametrize("name", ["virchow2", "hibou-b", "midnight"])
def test_registers_and_pooling_fit_together(name):
    plan = blueprint(name)
    assert plan.vit.num_prefix == {"virchow2": 5, "hibou-b": 5, "midnight": 1}[name]
    assert plan.info.dim == plan.vit.width * (2 if plan.info.pooling == "cls+mean" else 1)


def test_a_local_file_gives_its_own_outputs(tiny, tmp_path):
    plan = tiny("virchow2")
    source = plan.build("random").eval()
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.normal_(std=0.2)
    path = tmp_path / "mine.safetensors"
    save_file(source.network.state_dict(), path)
    loaded = plan.build(str(path)).eval()
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), source(x))
    assert loaded.info.source == "file:mine.safetensors" and len(loaded.info.sha256) == 64
    assert loaded.info == plan.resolve(str(path))


def test_half_precision_weights_are_computed_with_in_float32(tiny, tmp_path):
    plan = tiny("uni")
    path = tmp_path / "half.pth"
    torch.save({k: v.half() for k, v in plan.vit.build().state_dict().items()}, path)
    assert {p.dtype for p in plan.build(str(path)).parameters()} == {torch.float32}


def test_weights_of_another_architecture_are_refused_with_what_differs(tiny, tmp_path):
    path = tmp_path / "other.pth"
    torch.save(tiny("uni2").vit.build().state_dict(), path)
    with pytest.raises(EncoderError, match=r"not of the encoder 'uni'.*not known \(reg_token.*of another shape"):
        tiny("uni").build(str(path))


def test_random_weights_are_the_same_each_time_and_leave_the_callers_stream_alone(tiny):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first, second = tiny("phikon").build("random"), tiny("phikon").build("random")
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))
    assert first.info.source == "random" and first.info.sha256 is None


def test_a_cls_mean_model_of_the_wrong_width_cannot_be_described():
    plan = blueprint("midnight")
    with pytest.raises(AssertionError):
        PublishedViT(plan.info, blueprint("uni").vit)
