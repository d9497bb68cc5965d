"""Whether a JPEG stream says of itself that it is damaged: a slow decoder of its codes that makes no pixels.

Entropy-coded data has no checksum, so a flipped bit may leave a stream that is as valid as the one before. What can be
seen is: a broken marker structure, a size other than promised, tables that are missing or impossible, a code that is
in no table, data that end before the last block, and data left over behind it. ITU-T T.81, annexes B and F.
"""

from __future__ import annotations

from dataclasses import dataclass, field

# A decoder fetches this many bytes ahead, and does not notice so many left over behind the last block.
FETCHED_AHEAD = 8


class Damaged(Exception):
    """The stream cannot be decoded to the end; says why."""


@dataclass
class _Stream:
    quantised: set[int] = field(default_factory=set)
    codes: dict[tuple[int, int], dict[tuple[int, int], int]] = field(default_factory=dict)
    components: list[tuple[int, int, int, int]] = field(default_factory=list)
    size: tuple[int, int] = (0, 0)
    restart: int = 0


def fault(stream: bytes, tables: bytes, size: tuple[int, int]) -> str | None:
    """What is wrong with the stream; "" where nothing is; None where this decoder does not know the kind."""
    found = _Stream()
    try:
        if tables:
            _markers(tables, 2, found)
        if stream[:2] != b"\xff\xd8":
            raise Damaged("it does not begin like a JPEG")
        at, scan = _markers(stream, 2, found)
        if scan is None:
            raise Damaged("it has no scan")
        if found.size != size:
            raise Damaged(f"it is of {found.size}")
        if len(scan) != len(found.components) or len(scan) not in {1, 3}:
            return None
        at = _scan(stream, at, found, scan)
        left = stream.find(b"\xff\xd9", at)
        if left < 0:
            raise Damaged("it has no end")
        if left - at > FETCHED_AHEAD:
            raise Damaged(f"{left - at} bytes are left over")
    except NotImplementedError:
        return None
    except Damaged as damage:
        return str(damage)
    except IndexError:
        return "it ends in the middle"
    return ""


def _markers(data: bytes, at: int, found: _Stream) -> tuple[int, list[tuple[int, int]] | None]:
    """Reads segments up to a scan; where its data begin, and the tables of its components."""
    while at < len(data):
        if data[at] != 0xFF:
            raise Damaged(f"no marker at byte {at}")
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == 0xD9:
            return at, None
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            raise NotImplementedError
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : end]
        if end > len(data):
            raise Damaged("a segment leaves the stream")
        if marker in {0xC0, 0xC1}:
            _frame(body, found)
        elif marker == 0xC4:
            _huffman(body, found)
        elif marker == 0xDB:
            _quantisation(body, found)
        elif marker == 0xDD:
            found.restart = int.from_bytes(body[:2], "big")
        elif marker == 0xDA:
            scan = [(body[1 + 2 * i], body[2 + 2 * i]) for i in range(body[0])]
            if body[1 + 2 * len(scan) :] != b"\x00\x3f\x00" or [i for i, _ in scan] != [c[0] for c in found.components]:
                raise NotImplementedError
            return end, scan
        elif not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            raise NotImplementedError
        at = end
    return at, None


def _frame(body: bytes, found: _Stream) -> None:
    if body[0] != 8 or len(body) != 6 + 3 * body[5] or found.components:
        raise NotImplementedError
    found.size = (int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big"))
    parts = [body[6 + 3 * i : 9 + 3 * i] for i in range(body[5])]
    found.components = [(p[0], p[1] >> 4, p[1] & 15, p[2]) for p in parts]
    if any(not (1 <= h <= 2 and 1 <= v <= 2) for _, h, v, _ in found.components):
        raise NotImplementedError


def _huffman(body: bytes, found: _Stream) -> None:
    at = 0
    while at < len(body):
        kind, counts = body[at], body[at + 1 : at + 17]
        values, at = body[at + 17 : at + 17 + sum(counts)], at + 17 + sum(counts)
        code, place, codes = 0, 0, {}
        for bits, count in enumerate(counts, 1):
            for _ in range(count):
                codes[bits, code] = values[place]
                code, place = code + 1, place + 1
            if code > 1 << bits:
                raise Damaged("a table of codes is impossible")
            code <<= 1
        if kind < 16 and any(v > 15 for v in values):
            raise Damaged("a table of codes is impossible")
        found.codes[kind >> 4, kind & 15] = codes


def _quantisation(body: bytes, found: _Stream) -> None:
    at = 0
    while at < len(body):
        found.quantised.add(body[at] & 15)
        at += 1 + (128 if body[at] >> 4 else 64)


class _Bits:
    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at, self.left, self.held = data, at, 0, 0

    def take(self, count: int) -> int:
        while self.left < count:
            byte = self.data[self.at]
            self.at += 1
            if byte == 0xFF:
                while self.data[self.at] == 0xFF:  # fill bytes
                    self.at += 1
                if self.data[self.at] != 0:
                    raise Damaged("a marker stands in the middle of the data")
                self.at += 1
            self.held = (self.held << 8 | byte) & 0xFFFFFFFFFF
            self.left += 8
        self.left -= count
        return self.held >> self.left & ((1 << count) - 1)

    def code(self, table: dict[tuple[int, int], int]) -> int:
        value = 0
        for bits in range(1, 17):
            value = value << 1 | self.take(1)
            if (found := table.get((bits, value))) is not None:
                return found
        raise Damaged("a code is in no table")


def _scan(data: bytes, at: int, found: _Stream, scan: list[tuple[int, int]]) -> int:
    """Reads every block; where the data end."""
    if found.restart:
        raise NotImplementedError
    alone = len(scan) == 1
    across = 1 if alone else max(h for _, h, _, _ in found.components)
    down = 1 if alone else max(v for _, _, v, _ in found.components)
    units = -(-found.size[0] // (8 * across)) * -(-found.size[1] // (8 * down))
    blocks = []
    for (_, tables), (_, h, v, quantised) in zip(scan, found.components):
        if quantised not in found.quantised:
            raise Damaged("a table is missing")
        try:
            pair = found.codes[0, tables >> 4], found.codes[1, tables & 15]
        except KeyError:
            raise NotImplementedError from None  # decoders may take the standard's own tables
        blocks += [pair] * (1 if alone else h * v)
    bits = _Bits(data, at)
    for _ in range(units):
        for first, others in blocks:
            bits.take(bits.code(first))
            place = 1
            while place < 64:
                run_size = bits.code(others)
                run, size = run_size >> 4, run_size & 15
                if size == 0 and run != 15:
                    break
                place += run + 1
                bits.take(size)
    return bits.at
