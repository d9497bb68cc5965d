"""What an encoder is, in words and numbers: everything that decides its output, and what may be done with it.

This travels into feature files, models and reports. It imports no torch, so that `describe` stays cheap to read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from coverslip.base.errors import EncoderError
from coverslip.base.geometry import TileSpec

RGB = tuple[float, float, float]

# A slide scanned at 0.46 or 0.53 µm/px is read at 0.5; a request further off than this is another magnification.
MPP_TOLERANCE = 0.1


@dataclass(frozen=True)
class EncoderInfo:
    """One encoder with one set of weights.

    `input_px` is the side of the square the network sees, None where it takes tiles as they are; `mpp` the lowest and
    highest µm per pixel it was made for; `mean` and `std` are of RGB in 0..1; `resize` is the rule that brings a tile
    to `input_px` (`Resize.parse` reads it); `pooling` says how tokens become one vector, because the same weights
    pooled differently are another encoder; `source`, `revision` and `sha256` say which weights; `device` is "cpu" for
    encoders that compute in numpy. `pretraining` names the public cohorts that the weights have learnt from, as their
    authors say; empty for none, None where it is not known. A test on slides of such a cohort may be too good.
    `pretraining_source` is what they say and where, in a line, or that nothing public says it.
    """

    name: str
    dim: int
    input_px: int | None
    mpp: tuple[float, float]
    mean: RGB
    std: RGB
    resize: str
    pooling: str
    source: str
    revision: str
    sha256: str | None
    licence: str
    gated: bool
    device: Literal["any", "cpu"] = "any"
    pretraining: tuple[str, ...] | None = None
    pretraining_source: str = ""

    def __post_init__(self) -> None:
        assert self.dim > 0 and 0 < self.mpp[0] <= self.mpp[1], self
        rule = Resize.parse(self.resize)
        assert self.input_px is None or rule is None or rule.crop == self.input_px, (self.resize, self.input_px)

    def check_scale(self, spec: TileSpec) -> None:
        """Nothing, where tiles of this spec are at a scale the encoder was made for.

        Raises:
            EncoderError: naming the tiles' µm per pixel and the encoder's range.
        """
        low, high = self.mpp
        if low * (1 - MPP_TOLERANCE) <= spec.mpp <= high * (1 + MPP_TOLERANCE):
            return
        accepted = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        raise EncoderError(
            f"The tiles are at {spec.mpp:g} µm/px, and the encoder {self.name!r} was made for {accepted} µm/px.",
            fix=f"Set tiles.mpp = {min(max(spec.mpp, low), high):g}, or choose another encoder.",
            code="encoder_scale",
        )


@dataclass(frozen=True)
class Resize:
    """A rule such as "bicubic 256, centre crop 224": resize the tile to `px`, then keep the middle `crop` pixels."""

    interpolation: Literal["bilinear", "bicubic"]
    px: int
    crop: int

    @classmethod
    def parse(cls, text: str) -> Resize | None:
        """The rule that a text states; None for "none" (the tile is taken as it is)."""
        if text == "none":
            return None
        match = _RULE.fullmatch(text)
        assert match, f"not a resize rule: {text!r}"
        interpolation: Literal["bilinear", "bicubic"] = "bilinear" if match[1] == "bilinear" else "bicubic"
        return cls(interpolation, int(match[2]), int(match[3] or match[2]))


_RULE = re.compile(r"(bilinear|bicubic) (\d+)(?:, centre crop (\d+))?")
