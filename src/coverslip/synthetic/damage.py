"""Breaking a slide file the way disks, networks and scanners do, for tests of what notices."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import tifffile

from coverslip.base.files import write_bytes
from coverslip.base.random import stream

DamageKind = Literal["truncate", "random_bytes", "tile", "zero_tile"]


def damage(path: str | Path, kind: DamageKind = "truncate", *, tile: int | None = None) -> None:
    """Damages a TIFF slide in place, always the same way.

    `truncate` cuts the file in the middle of level 0's pixels (a copy that stopped); `random_bytes` fills the whole
    file with noise; `tile` overwrites the entropy-coded data of one level-0 tile; `zero_tile` says in the index that
    the tile has no bytes, as a scanner that skipped it does. `tile` is the tile's index, the middle one by default.
    """
    path = Path(path)
    data = bytearray(path.read_bytes())
    rng = stream(0, "damage", kind)
    if kind == "random_bytes":
        write_bytes(path, rng.bytes(len(data)))
        return
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        index = len(page.dataoffsets) // 2 if tile is None else tile
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        counts = page.tags["TileByteCounts"]
    if kind == "truncate":
        del data[offset + count // 2 :]
    elif kind == "tile":
        # The stream's own headers stay, so that only decoding the pixels finds out.
        scan = data.find(b"\xff\xda", offset, offset + count)
        start = scan + 14 if scan > 0 else offset
        # 0xff would be read as a marker; without it the decoder is left with wrong codes.
        data[start : offset + count] = bytes(b % 255 for b in rng.bytes(offset + count - start))
        data[start : start + 2] = b"\xff\xd9"
    elif kind == "zero_tile":
        width = {3: 2, 4: 4, 16: 8}[int(counts.dtype)]
        at = counts.valueoffset + width * index
        data[at : at + width] = bytes(width)
    else:
        raise ValueError(f"kind is truncate, random_bytes, tile or zero_tile, not {kind!r}")
    write_bytes(path, bytes(data))
