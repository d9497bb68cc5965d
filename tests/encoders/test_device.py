from __future__ import annotations

import pytest
import torch

from coverslip.base.errors import SettingsError
from coverslip.encoders import describe
from coverslip.encoders.device import autocast, choose_device, choose_precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_numpy_encoders_stay_on_the_cpu_in_float32():
    info = describe("texture")
    assert choose_device("cuda", info) == CPU and choose_precision("auto", CPU, info) == "fp32"
    with pytest.raises(SettingsError, match="computes in fp32"):
        choose_precision("fp16", CPU, info)


@pytest.mark.parametrize("device", ["warp", "cuda:77", "cpu:9"])
def test_a_device_this_machine_lacks_is_refused(device):
    with pytest.raises(SettingsError, match="device"):
        choose_device(device, describe("uni"))


def test_auto_is_float32_on_a_cpu_and_half_on_a_gpu(monkeypatch):
    info = describe("uni")
    assert choose_precision("auto", CPU, info) == "fp32"
    for has_bf16, expected in ((True, "bf16"), (False, "fp16")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has=has_bf16, **_: has)
        assert choose_precision("auto", CUDA, info) == expected
    assert choose_precision("fp32", CUDA, info) == "fp32" and choose_precision("bf16", CPU, info) == "bf16"


def test_an_unknown_precision_is_refused():
    with pytest.raises(SettingsError, match="Accepted: auto, fp32, bf16, fp16"):
        choose_precision("tf32", CPU, describe("uni"))


def test_autocast_computes_in_what_it_says():
    a = torch.ones(2, 2)
    with autocast("bf16", CPU):
        assert (a @ a).dtype == torch.bfloat16
    with autocast("fp32", CPU):
        assert (a @ a).dtype == torch.float32
