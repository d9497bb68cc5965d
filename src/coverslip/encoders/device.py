"""Where an encoder runs and in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from coverslip.base.errors import SettingsError
from coverslip.encoders.info import EncoderInfo

Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(device: str | torch.device, info: EncoderInfo) -> torch.device:
    """The device to use: "auto" is CUDA, else MPS, else the CPU; encoders that compute in numpy stay on the CPU.

    Raises:
        SettingsError: a device this machine does not have.
    """
    if info.device == "cpu":
        return torch.device("cpu")
    if str(device) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise SettingsError(
            f"device = {device!r} is no device.", fix="Accepted: auto, cpu, cuda, cuda:1, mps."
        ) from error
    have = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if wanted.type != "meta" and (wanted.index or 0) >= have.get(wanted.type, 0):
        raise SettingsError(f"device = {str(device)!r}: this machine has none.", fix="Use 'auto' or 'cpu'.")
    return wanted


def choose_precision(precision: str, device: torch.device, info: EncoderInfo) -> Precision:
    """The precision to compute in; "auto" is bf16 or fp16 where the device has it, and fp32 on a CPU.

    Raises:
        SettingsError: half precision of an encoder that computes in numpy, or an unknown word.
    """
    if precision not in {"auto", "fp32", "bf16", "fp16"}:
        raise SettingsError(f"precision = {precision!r} is unknown.", fix="Accepted: auto, fp32, bf16, fp16.")
    if info.device == "cpu" and precision in _DTYPES:
        raise SettingsError(
            f"The encoder {info.name!r} computes in fp32 on the CPU, not in {precision}.", fix="Use precision = 'auto'."
        )
    if precision == "fp32" or (precision == "auto" and device.type == "cpu"):
        return "fp32"
    if precision == "auto":
        bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16" if bf16 else "fp16"
    return "bf16" if precision == "bf16" else "fp16"


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a forward pass computes in this precision."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])
