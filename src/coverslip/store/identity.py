"""What made a feature file: encoder, tiles, slide and scale. Two files with the same identity hold the same numbers.

The identity travels as HDF5 attributes with the features, into models and into the report. Its fingerprint decides
whether finished work is used again; its `kind` decides whether two files may stand in one training set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Int32
from numpy import ndarray

from coverslip.base.errors import FeatureError
from coverslip.base.fingerprint import digest
from coverslip.base.geometry import Tiles, TileSpec

FORMAT = "coverslip.features/1"


@dataclass(frozen=True)
class EncoderIdentity:
    """Which network, with which weights and which preprocessing, made the rows."""

    name: str
    dim: int
    source: str = ""  # where the weights are from: a hub id, a file's name, "coverslip" for built-in descriptors
    revision: str = ""  # of the weights, or of the code where there are none
    sha256: str = ""  # of the weights file; empty where there is none
    pooling: str = ""
    preprocessing: str = ""  # input size, resampling, mean and standard deviation, as one line
    precision: str = "fp32"
    licence: str = ""

    @property
    def digest(self) -> str:
        """Equal for encoders whose features may be mixed: everything but the licence's wording and the precision."""
        parts = asdict(self)
        del parts["licence"], parts["precision"]
        return digest(parts)

    def __str__(self) -> str:
        details = [part for part in (self.revision[:12], self.pooling, self.preprocessing) if part]
        return f"{self.name} ({', '.join([f'{self.dim} numbers a tile', *details])})"


@dataclass(frozen=True)
class FeatureIdentity:
    """Everything that decides the numbers of one feature file."""

    encoder: EncoderIdentity
    spec: TileSpec
    mpp: float  # µm per level-0 pixel of the slide
    span: float  # side of a tile in level-0 pixels
    slide_fingerprint: str
    tiles: str  # digest of the planned positions
    normaliser: str = ""  # stain normalisation before encoding; empty for none
    reading: str = ""  # how pixels were read where not exactly ("scaled decoding"); empty for exactly

    @classmethod
    def of(
        cls,
        tiles: Tiles,
        encoder: EncoderIdentity,
        *,
        slide_fingerprint: str,
        normaliser: str = "",
        reading: str = "",
    ) -> FeatureIdentity:
        """The identity of these tiles under this encoder."""
        digest_of_tiles = coords_digest(tiles.xy)
        return cls(encoder, tiles.spec, tiles.mpp, tiles.span, slide_fingerprint, digest_of_tiles, normaliser, reading)

    @property
    def fingerprint(self) -> str:
        """Equal for equal inputs, settings and code format; what reuse asks for."""
        parts = asdict(self)
        del parts["encoder"]["licence"]
        if not self.reading:
            del parts["reading"]  # so that files from before there was a choice keep their fingerprint
        parts["spec"] |= {key: float(parts["spec"][key]) for key in ("mpp", "min_tissue")}  # 1 and 1.0 are one scale
        return digest({**parts, "mpp": float(self.mpp), "span": float(self.span), "format": FORMAT})

    @property
    def kind(self) -> str:
        """Equal for files that may stand side by side in one model: same encoder, tile size, scale and normaliser.

        Precision and scaled decoding are not asked for: both move a feature by less than another resize filter does.
        """
        return digest([self.encoder.digest, self.spec.size_px, float(self.spec.mpp), self.normaliser])

    def __str__(self) -> str:
        stain = f", {self.normaliser} normalised" if self.normaliser else ""
        return f"{self.encoder} on {self.spec.size_px} px at {self.spec.mpp:g} µm/px{stain}"

    def attributes(self) -> dict[str, str | int | float]:
        """The identity as flat HDF5 attributes; `from_attributes` reads them back."""
        encoder = {f"encoder_{key}": value for key, value in asdict(self.encoder).items() if key != "name"}
        assert self.spec.stride_px is not None
        return {
            "encoder": self.encoder.name,
            **encoder,
            "mpp": float(self.mpp),
            "span": float(self.span),
            "tile_px": self.spec.size_px,
            "tile_mpp": self.spec.mpp,
            "tile_stride_px": self.spec.stride_px,
            "tile_min_tissue": self.spec.min_tissue,
            "tiles": self.tiles,
            "slide_fingerprint": self.slide_fingerprint,
            "normaliser": self.normaliser,
            **({"reading": self.reading} if self.reading else {}),
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any], *, slide: str) -> FeatureIdentity:
        """The identity that `attributes` wrote.

        Raises:
            FeatureError: an attribute is missing, or the fingerprint is not that of the others (edited by hand).
        """
        plain = {key: plain_attribute(value) for key, value in attributes.items()}
        try:
            names = [field.name for field in fields(EncoderIdentity) if field.name != "name"]
            encoder = EncoderIdentity(plain["encoder"], **{name: plain[f"encoder_{name}"] for name in names})
            spec = TileSpec(plain["tile_px"], plain["tile_mpp"], plain["tile_stride_px"], plain["tile_min_tissue"])
            identity = cls(
                encoder,
                spec,
                plain["mpp"],
                plain["span"],
                plain["slide_fingerprint"],
                plain["tiles"],
                plain["normaliser"],
                plain.get("reading", ""),
            )
        except KeyError as error:
            raise FeatureError(
                f"the attribute {error} is missing.", slide=slide, fix="Embed the slide again.", code="damaged"
            ) from error
        if identity.fingerprint != plain.get("fingerprint"):
            raise FeatureError(
                f"the fingerprint {plain.get('fingerprint')!r} does not belong to the other attributes, "
                f"which give {identity.fingerprint!r}.",
                slide=slide,
                fix="The attributes were changed after writing; embed the slide again.",
                code="damaged",
            )
        return identity


def coords_digest(coords: Int32[ndarray, "n 2"]) -> str:
    """16 hex digits of tile positions in their order."""
    return digest([len(coords), np.ascontiguousarray(coords, dtype="<i4").tobytes().hex()])


def plain_attribute(value: Any) -> Any:
    """An HDF5 attribute as plain Python: text from bytes, a number from a one-element array."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, np.ndarray):
        return plain_attribute(value.reshape(-1)[0]) if value.size == 1 else [plain_attribute(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value
