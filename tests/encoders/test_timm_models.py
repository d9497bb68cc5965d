from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file

from coverslip.base.errors import EncoderError, SettingsError
from coverslip.encoders import describe, encoder
from coverslip.testing.encoders import check_encoder, example_tiles


@pytest.mark.parametrize("arch", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
def test_any_architecture_keeps_the_contract(arch):
    check_encoder(encoder(f"timm:{arch}", "random"))


def test_everything_timm_publishes_is_written_out():
    info = describe("timm:resnet50.a1_in1k")
    assert (info.dim, info.input_px, info.resize, info.pooling) == (2048, 224, "bicubic 224", "mean")
    assert info.mean == (0.485, 0.456, 0.406) and info.std == (0.229, 0.224, 0.225)
    assert info.source == "timm/resnet50.a1_in1k" and info.licence == "apache-2.0"


@pytest.mark.parametrize(
    ("arch", "dim", "px", "pooling"),
    [
        ("vit_base_patch14_dinov2.lvd142m", 768, 518, "cls"),
        ("vit_base_patch16_siglip_224.v2_webli", 768, 224, "attention"),
        ("convnext_tiny.in12k_ft_in1k", 768, 224, "mean"),
        ("mobilenetv3_small_100.lamb_in1k", 1024, 224, "mean"),
    ],
)
def test_width_input_and_pooling_are_the_networks_own(arch, dim, px, pooling):
    info = describe(f"timm:{arch}")
    assert (info.dim, info.input_px, info.pooling) == (dim, px, pooling)


def test_without_weights_nothing_is_made_up():
    with pytest.raises(EncoderError, match=r'timm:resnet18 needs weights.*file.*"timm/resnet18\.a1_in1k".*random'):
        encoder("timm:resnet18")


def test_random_weights_are_said_to_be_random():
    info = encoder("timm:test_vit", "random").info
    assert (info.source, info.sha256, info.licence) == ("random", None, "not stated")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_published_file_loads_without_its_classifier(tmp_path, suffix):
    torch.manual_seed(3)
    published = timm.create_model("test_vit", num_classes=1000).eval()
    path = tmp_path / f"weights{suffix}"
    save = save_file if suffix == ".safetensors" else torch.save
    save(published.state_dict(), path)
    model = encoder("timm:test_vit", str(path))
    x = model.prepare(example_tiles(160))
    with torch.no_grad():
        expected = published.forward_head(published.forward_features(x), pre_logits=True)
        torch.testing.assert_close(model(x), expected)


def test_weights_of_another_architecture_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    with pytest.raises(EncoderError, match="not of the encoder 'timm:test_vit'"):
        encoder("timm:test_vit", str(path))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm:rsnet18", "no architecture 'rsnet18'.*'resnet18'"),
        ("timm:resnet18.a9_in1k", "no weights 'a9_in1k' of resnet18.*resnet18.a1_in1k"),
        ("timm:", "no architecture ''"),
        ("tim:resnet18", "no encoder 'tim:resnet18'"),
    ],
)
def test_wrong_names_are_told_with_the_nearest(name, said):
    with pytest.raises(SettingsError, match=said):
        encoder(name, "random")
