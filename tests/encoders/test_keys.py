"""The translated names against transformers itself: equal outputs of a small random model."""

from __future__ import annotations

import logging

import pytest
import torch
from safetensors.torch import load_file

from coverslip.encoders.keys import from_transformers, rename
from coverslip.encoders.vit import ViT

transformers = pytest.importorskip("transformers", reason="the oracle of translated names is the extra 'hub'")

SMALL = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "patch_size": 14}


def published(model, folder):
    """The tensors as they lie on a hub."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def vit_model(image):
    config = transformers.ViTConfig(image_size=image, intermediate_size=96, **SMALL)
    return transformers.ViTModel(config), ViT(48, 2, 3, 14, input_px=image, mlp_ratio=2.0, norm_eps=1e-12)


def dinov2(image, *, swiglu=False):
    config = transformers.Dinov2Config(image_size=image, mlp_ratio=4, use_swiglu_ffn=swiglu, **SMALL)
    ratio = 2.66667 * 2 if swiglu else 4.0
    vit = ViT(48, 2, 3, 14, input_px=image, mlp_ratio=ratio, swiglu=swiglu, layer_scale=True)
    return transformers.Dinov2Model(config), vit


def registers(image):
    config = transformers.Dinov2WithRegistersConfig(image_size=image, mlp_ratio=4, num_register_tokens=4, **SMALL)
    vit = ViT(48, 2, 3, 14, input_px=image, registers=4, prefix_positions=False, layer_scale=True)
    return transformers.Dinov2WithRegistersModel(config), vit


def randomise(model):
    # Zeros and ones of a fresh model would hide a swapped tensor.
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model.eval()


MODELS = {
    "ViTModel": vit_model,
    "Dinov2Model": dinov2,
    "Dinov2Model with SwiGLU": lambda image: dinov2(image, swiglu=True),
    "Dinov2WithRegistersModel": registers,
}


@pytest.mark.parametrize("kind", MODELS)
def test_translated_weights_give_the_tokens_of_transformers(kind, tmp_path):
    model, vit = MODELS[kind](56)
    state = from_transformers(
        published(randomise(model), tmp_path), side=vit.side, prefix_positions=vit.prefix_positions
    )
    network = vit.build().eval()
    network.load_state_dict(state, strict=True)
    x = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        expected, found = model(x).last_hidden_state, network.forward_features(x)
    assert found.shape == expected.shape == (2, vit.num_tokens, 48)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", MODELS)
def test_every_tensor_is_used_once_and_none_is_missing(kind, tmp_path):
    model, vit = MODELS[kind](56)
    names = [new for old in published(model, tmp_path) if (new := rename(old)) is not None]
    assert len(set(names)) == len(names)
    joined = {name.replace(".query.", ".qkv.").replace(".key.", ".qkv.").replace(".value.", ".qkv.") for name in names}
    assert joined == set(vit.build("meta").state_dict())


def test_positions_of_a_larger_grid_are_resampled_as_transformers_does(tmp_path):
    model, _ = dinov2(112)  # published for 8 x 8 patches, used with 4 x 4
    _, vit = dinov2(56)
    network = vit.build().eval()
    state = from_transformers(published(randomise(model), tmp_path), side=4, prefix_positions=True)
    network.load_state_dict(state, strict=True)
    x = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        torch.testing.assert_close(network.forward_features(x), model(x).last_hidden_state, rtol=1e-4, atol=1e-4)


def test_an_unknown_tensor_is_kept_for_the_strict_load_to_tell():
    assert rename("encoder.layer.0.adapter.weight") == "encoder.layer.0.adapter.weight"
    assert rename("pooler.dense.bias") is None


def test_a_model_saved_inside_another_loses_its_prefix():
    assert rename("vit.layernorm.weight") == "norm.weight"
    assert rename("dinov2.embeddings.cls_token") == "cls_token"
