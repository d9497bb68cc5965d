"""What a mutated slide may show: for every stored piece, whether it must be equal, be flagged, or may be either."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from enum import Enum

import numpy as np

from fuzz import jpeg
from fuzz.seeds import Piece, Seed


class Fate(Enum):
    """SAME: the pixels of the sound file. LOST: flagged, or the file refused; never pixels. OTHER: the stream is valid
    as it stands, and nothing tells its pixels from those that a scanner wrote."""

    SAME = "same"
    LOST = "lost"
    OTHER = "other"


def fates(seed: Seed, data: bytes) -> list[Fate] | None:
    """The fate of each piece; None where the structure itself was changed, so that the file may be another picture."""
    if not _structure_kept(seed, data):
        return None
    return [_fate(seed, piece, data) for piece in seed.pieces]


def _structure_kept(seed: Seed, data: bytes) -> bool:
    """True where every byte outside the pieces, their offsets and counts is as it was and at its place."""
    if not seed.pieces or len(data) < len(seed.data):
        return False
    free = np.zeros(len(seed.data), dtype=bool)
    for piece in seed.pieces:
        free[piece.start : piece.stop] = True
        for number in (piece.offset, piece.count):
            if number is not None:
                free[number.at : number.at + number.size] = True
    # What was put behind the end is reached by offsets only.
    before, after = np.frombuffer(seed.data, np.uint8), np.frombuffer(data, np.uint8)[: len(seed.data)]
    return bool((before == after)[~free].all())


def _fate(seed: Seed, piece: Piece, data: bytes) -> Fate:
    right, stored = seed.data[piece.start : piece.stop], piece.bytes_in(data, seed.order)
    if stored is None:
        return Fate.LOST
    if stored == right:
        return Fate.SAME
    size = (piece.width, piece.height)
    if seed.codec == "jpeg":
        found = jpeg.fault(stored, seed.tables, size)
        return Fate.OTHER if found is None or found == "" else Fate.LOST
    if seed.codec == "none":
        return Fate.LOST if len(stored) < len(right) else Fate.SAME if stored.startswith(right) else Fate.OTHER
    if seed.codec == "deflate":
        return _packed(_inflated(stored), _inflated(right))
    if seed.codec == "lzw":
        return _packed(_unpacked(stored), _unpacked(right))
    if seed.codec == "jpeg2000":
        # Wavelet data have no checksum and resynchronise nowhere: what shows is a missing end and another size.
        return (
            Fate.LOST
            if not stored.rstrip(b"\0").endswith(b"\xff\xd9") or _jpeg2000_size(stored) != size
            else Fate.OTHER
        )
    return Fate.OTHER


def _packed(found: bytes | None, right: bytes | None) -> Fate:
    assert right is not None
    if found is None or len(found) < len(right):
        return Fate.LOST
    return Fate.SAME if found.startswith(right) else Fate.OTHER


def _inflated(data: bytes) -> bytes | None:
    """The bytes of a whole stream whose checksum fits; what lies behind it does not count."""
    unpacker = zlib.decompressobj()
    try:
        found = unpacker.decompress(data, 1 << 24)
    except zlib.error:
        return None
    return found if unpacker.eof or len(found) == 1 << 24 else None


def _unpacked(data: bytes) -> bytes:
    """The bytes of LZW codes (TIFF 6.0, section 13), up to their end or to one that no table holds."""
    out, table, last = bytearray(), {}, b""
    held = bits = at = 0
    width, following = 9, 258
    while len(out) < 1 << 16:
        while bits < width and at < len(data):
            held, bits, at = held << 8 | data[at], bits + 8, at + 1
        if bits < width:
            break
        bits -= width
        code, held = held >> bits, held & ((1 << bits) - 1)
        if code == 257:
            break
        if code == 256:
            table, last, width, following = {}, b"", 9, 258
            continue
        if not last:
            entry = bytes([code]) if code < 256 else None
        else:
            entry = bytes([code]) if code < 256 else table.get(code, last + last[:1] if code == following else None)
        if entry is None:
            break
        if last:
            table[following] = last + entry[:1]
            following += 1
        out += entry
        last = entry
        width = 9 if following < 511 else 10 if following < 1023 else 11 if following < 2047 else 12
    return bytes(out)


def _jpeg2000_size(stream: bytes) -> tuple[int, int] | None:
    at = stream.find(b"\xff\x51")
    if at < 0:
        return None
    x1, y1, x0, y0 = (int.from_bytes(stream[at + 6 + 4 * i : at + 10 + 4 * i], "big") for i in range(4))
    return x1 - x0, y1 - y0


def touched(seed: Seed, box: Sequence[float], wanted: float) -> list[int]:
    """The pieces that a box in level-0 pixels needs, read from the coarsest level that is fine enough for `wanted`
    level-0 px per output px."""
    factors = [seed.levels[0][0] / width for width, _ in seed.levels]
    level = max((i for i, f in enumerate(factors) if f <= wanted * 1.011), default=0)
    x, y, width, height = (v / factors[level] for v in box)
    left, top, right, bottom = math.floor(x), math.floor(y), math.ceil(x + width), math.ceil(y + height)
    return [
        number
        for number, p in enumerate(seed.pieces)
        if p.level == level and p.x < right and left < p.x + p.width and p.y < bottom and top < p.y + p.height
    ]


def joined(found: Sequence[Fate]) -> Fate:
    """The fate of an image made of pieces of these fates."""
    for fate in (Fate.LOST, Fate.OTHER):
        if fate in found:
            return fate
    return Fate.SAME
