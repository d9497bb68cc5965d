"""Ways to break a file: blind ones on bytes, and ones that know where its numbers, streams and tables lie.

A mutation takes a seed and a random generator and gives the broken bytes and a line that says what was done.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from fuzz.seeds import Number, Piece, Seed, segments

Mutation = Callable[[Seed, Generator], tuple[bytes, str]]

# Numbers at which programs break: limits of widths and signs, and sizes that no memory holds.
ODD = (0, 1, 2, 3, 7, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 60_000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
ODD_WIDE = (1 << 32, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
HEAD = 1024


def mutate(seed: Seed, rng: Generator) -> tuple[bytes, str]:
    """One to three mutations that fit the seed, and what they were."""
    fitting = _fitting(seed)
    data, done = seed.data, []
    for _ in range(int(rng.choice([1, 1, 1, 1, 2, 3]))):
        chosen = fitting[int(rng.integers(len(fitting)))]
        data, said = chosen(_with(seed, data), rng)
        done.append(f"{chosen.__name__}: {said}")
    return data, "; ".join(done)


def _fitting(seed: Seed) -> list[Mutation]:
    chosen = [*BYTES, *([a_number] * 8)]
    if seed.kind == "tiff":
        chosen += [*TIFF * 2]
    if seed.pieces:
        chosen += [*STREAM * 2]
    if seed.codec == "jpeg":
        chosen += [*JPEG * 2]
    if seed.codec == "jpeg2000":
        chosen += [a_jpeg2000_number] * 4
    if seed.codec == "deflate":
        chosen += [a_bomb] * 2
    if seed.codec == "lzw":
        chosen += [an_lzw_bomb] * 2
    return chosen


def _with(seed: Seed, data: bytes) -> Seed:
    """The seed with other bytes, for a further mutation; places still are those of the sound file."""
    return Seed(
        seed.name, seed.suffix, data, seed.codec, seed.order, seed.tables, seed.numbers, seed.pieces, seed.levels
    )


# Blind ------------------------------------------------------------------------------------------------------------


def _place(seed: Seed, rng: Generator) -> int:
    """A position; half of them near the beginning, where many formats keep their structure."""
    end = min(HEAD, len(seed.data)) if rng.random() < 0.5 else len(seed.data)
    return int(rng.integers(max(1, end)))


def _length(rng: Generator, most: int = 4096) -> int:
    return int(2 ** rng.uniform(0, np.log2(most)))


def flipped_bits(seed: Seed, rng: Generator) -> tuple[bytes, str]:
    data, places = bytearray(seed.data), []
    for _ in range(_length(rng, 16)):
        at = min(_place(seed, rng), len(data) - 1)
        if at >= 0:
            data[at] ^= 1 << int(rng.integers(8))
            places.append(at)
    return bytes(data), f"at {places}"


def zeros(seed: Seed, rng: Generator) -> tuple[bytes, str]:
    at, length = _place(seed, rng), _length(rng)
    data = bytearray(seed.data)
    data[at : at + length] = bytes(len(data[at : at + length]))
    return bytes(data), f"{length} at {at}"


def noise(seed: Seed, rng: Generator) -> tuple[bytes, str]:
    at, length = _place(seed, rng), _length(rng)
    data = bytearray(seed.data)
    data[at : at + length] = rng.bytes(len(data[at : at + length]))
    return bytes(data), f"{length} at {at}"


def cut(seed: Seed, rng: Generator) -> tuple[bytes, str]:
    at = int(rng.integers(len(seed.data) + 1))
    return seed.data[:at], f"at {at} of {len(seed.data)}"


def a_block_elsewhere(seed: Seed, rng: Generator) -> tuple[bytes, str]:
    source, target, length = _place(seed, rng), _place(seed, rng), _length(rng)
    data = bytearray(seed.data)
    block = data[source : source + length]
    data[target : target + len(block)] = block
    return bytes(data), f"{len(block)} from {source} to {target}"


def a_block_twice(seed: Seed, rng: Generator) -> tuple[bytes, str]:
    at, length = _place(seed, rng), _length(rng)
    return seed.data[: at + length] + seed.data[at:], f"{length} at {at}"


def a_block_gone(seed: Seed, rng: Generator) -> tuple[bytes, str]:
    at, length = _place(seed, rng), _length(rng)
    return seed.data[:at] + seed.data[at + length :], f"{length} at {at}"


BYTES: list[Mutation] = [flipped_bits, flipped_bits, zeros, noise, cut, a_block_elsewhere, a_block_twice, a_block_gone]


# Numbers of the structure -----------------------------------------------------------------------------------------


def _write(data: bytearray, number: Number, value: int, order: str) -> None:
    if number.at + number.size <= len(data):
        data[number.at : number.at + number.size] = (value % (1 << 8 * number.size)).to_bytes(number.size, order)  # type: ignore[arg-type]


def _read(data: bytes, number: Number, order: str) -> int:
    return int.from_bytes(data[number.at : number.at + number.size], order)  # type: ignore[arg-type]


def a_number(seed: Seed, rng: Generator) -> tuple[bytes, str]:
    data = bytearray(seed.data)
    # Each kind of number equally often, however many of it the file holds.
    kinds = sorted({n.what for n in seed.numbers})
    what = kinds[int(rng.integers(len(kinds)))]
    number = (same := [n for n in seed.numbers if n.what == what])[int(rng.integers(len(same)))]
    old = _read(seed.data, number, seed.order)
    near = [
        old + 1,
        old - 1,
        old * 2,
        old // 2,
        old ^ 1 << int(rng.integers(8 * number.size)),
        len(data),
        len(data) - 1,
    ]
    choices = [*ODD, *near, *near, *(ODD_WIDE if number.size == 8 else ())]
    value = choices[int(rng.integers(len(choices)))]
    _write(data, number, value, seed.order)
    return bytes(data), f"{what} at {number.at} from {old} to {value}"


def _numbers(seed: Seed, what: str) -> list[Number]:
    return [n for n in seed.numbers if n.what == what]


def a_circle(seed: Seed, rng: Generator) -> tuple[bytes, str]:
    """A link, or the list of sub-images, that leads back."""
    data = bytearray(seed.data)
    links = [*_numbers(seed, "link"), *_numbers(seed, "SubIFDs")]
    directories = [n.at for n in _numbers(seed, "number of tags")]
    number = links[int(rng.integers(len(links)))]
    target = directories[int(rng.integers(len(directories)))]
    _write(data, number, target, seed.order)
    return bytes(data), f"link at {number.at} to {target}"


def an_absurd_size(seed: Seed, rng: Generator) -> tuple[bytes, str]:
    """Sides of image and tile that agree with each other, and with no memory."""
    data, said = bytearray(seed.data), []
    side = int(rng.choice([0, 16, 4096, 13_000, 16_384, 30_000, 65_520, 1 << 20, 1 << 30, (1 << 31) - 1]))
    names = (("ImageWidth", "ImageLength"), ("TileWidth", "TileLength"), ("RowsPerStrip",))
    for group in names:
        if rng.random() < 0.6:
            for name in group:
                for number in _numbers(seed, name):
                    _write(data, number, side, seed.order)
                    # A short number holds no such value: make it a long one, in the same place.
                    if number.size == 2 and side > 0xFFFF and seed.order == "little":
                        kind = number.at - 6 if number.at >= 6 else 0
                        data[kind : kind + 2] = b"\x04\x00"
                        data[number.at : number.at + 4] = side.to_bytes(4, "little")
                said.append(name)
    return bytes(data), f"{side} for {', '.join(said)}"


def too_few_pieces(seed: Seed, rng: Generator) -> tuple[bytes, str]:
    data, said = bytearray(seed.data), []
    change = int(rng.choice([-5, -1, 1, 5, 1000, 1 << 20, 1 << 31]))
    for name in ("TileOffsets", "TileByteCounts", "StripOffsets", "StripByteCounts"):
        if rng.random() < 0.7:
            for number in _numbers(seed, f"count of {name}"):
                _write(data, number, max(0, _read(seed.data, number, seed.order) + change), seed.order)
                said.append(name)
    return bytes(data), f"{change} for {sorted(set(said))}"


def another_kind(seed: Seed, rng: Generator) -> tuple[bytes, str]:
    """Compression, colours, samples: a picture told to be of another kind."""
    data = bytearray(seed.data)
    kinds = {
        "Compression": (1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 33003, 33005, 34712, 34887, 34925, 50000, 50001, 50002),
        "PhotometricInterpretation": (0, 1, 2, 3, 4, 5, 6, 8, 32803),
        "SamplesPerPixel": (0, 1, 2, 3, 4, 5, 255, 65535),
        "BitsPerSample": (0, 1, 4, 7, 8, 12, 16, 32, 64),
        "PlanarConfiguration": (0, 1, 2),
        "Predictor": (0, 1, 2, 3, 34892),
        "YCbCrSubSampling": (0, 1, 2, 3, 4, 255),
        "NewSubfileType": (0, 1, 2, 4, 0xFFFFFFFF),
    }
    here = [name for name in kinds if _numbers(seed, name)]
    name = here[int(rng.integers(len(here)))]
    value = int(rng.choice(kinds[name]))
    for number in _numbers(seed, name):
        _write(data, number, value, seed.order)
    return bytes(data), f"{name} {value}"


def a_tag_gone(seed: Seed, rng: Generator) -> tuple[bytes, str]:
    data = bytearray(seed.data)
    tags = _numbers(seed, "tag")
    number = tags[int(rng.integers(len(tags)))]
    old = _read(seed.data, number, seed.order)
    new = int(rng.choice([65000, 256, 257, 273, 279, 324, 325, 330, 347, 700, 34675]))
    _write(data, number, new, seed.order)
    return bytes(data), f"{old} is {new}"


TIFF: list[Mutation] = [
    a_circle,
    an_absurd_size,
    an_absurd_size,
    too_few_pieces,
    another_kind,
    another_kind,
    a_tag_gone,
]


# Streams ----------------------------------------------------------------------------------------------------------


def _piece(seed: Seed, rng: Generator) -> tuple[Piece, bytes]:
    piece = seed.pieces[int(rng.integers(len(seed.pieces)))]
    return piece, seed.data[piece.start : piece.stop]


def _replaced(seed: Seed, piece: Piece, stream: bytes) -> bytes:
    """The file with another stream for a piece: at its end where the file says where pieces lie, else in place."""
    data = bytearray(seed.data)
    if piece.offset is None or piece.count is None:
        length = piece.stop - piece.start
        data[piece.start : piece.stop] = stream[:length].ljust(length, b"\0")
        return bytes(data)
    _write(data, piece.offset, len(data), seed.order)
    _write(data, piece.count, len(stream), seed.order)
    return bytes(data) + stream


def a_wrong_place(seed: Seed, rng: Generator) -> tuple[bytes, str]:
    piece, _ = _piece(seed, rng)
    data = bytearray(seed.data)
    number = piece.offset if rng.random() < 0.5 else piece.count
    if number is None:
        return a_number(seed, rng)
    old = _read(seed.data, number, seed.order)
    other = seed.pieces[int(rng.integers(len(seed.pieces)))]
    choices = [
        0,
        1,
        8,
        old // 2,
        old - 1,
        old + 1,
        old + 100,
        len(data) - 1,
        len(data) + 1000,
        other.start,
        -1,
        -old,
        *ODD,
    ]
    value = choices[int(rng.integers(len(choices)))]
    _write(data, number, value, seed.order)
    return bytes(data), f"{number.what} at {number.at} from {old} to {value}"


def a_damaged_stream(seed: Seed, rng: Generator) -> tuple[bytes, str]:
    """Bits, bytes or blocks changed inside one stream, headers spared half of the time."""
    piece, stream = _piece(seed, rng)
    if not stream:
        return seed.data, "nothing is left"
    first = len(stream) // 3 if rng.random() < 0.5 else 0
    changed = bytearray(stream)
    way = int(rng.integers(4))
    at = int(rng.integers(first, max(first + 1, len(stream))))
    length = _length(rng, max(2, len(stream) // 2))
    if way == 0:
        changed[at] ^= 1 << int(rng.integers(8))
    elif way == 1:
        changed[at : at + length] = bytes(len(changed[at : at + length]))
    elif way == 2:
        changed[at : at + length] = rng.bytes(len(changed[at : at + length]))
    else:
        del changed[at : at + length]
    return _replaced(seed, piece, bytes(changed)), f"way {way} at {at} of {len(stream)}, {length}"


def a_short_stream(seed: Seed, rng: Generator) -> tuple[bytes, str]:
    piece, stream = _piece(seed, rng)
    at = int(rng.integers(max(1, len(stream))))
    end = b"\xff\xd9" if rng.random() < 0.3 else b""
    return _replaced(seed, piece, stream[:at] + end), f"{at} of {len(stream)} bytes{' and an end' if end else ''}"


def the_stream_of_another(seed: Seed, rng: Generator) -> tuple[bytes, str]:
    piece, _ = _piece(seed, rng)
    other, stream = _piece(seed, rng)
    return _replaced(seed, piece, stream), f"{piece.start} gets {other.start}"


STREAM: list[Mutation] = [
    a_wrong_place,
    a_wrong_place,
    a_damaged_stream,
    a_damaged_stream,
    a_short_stream,
    the_stream_of_another,
]


def a_lying_frame(seed: Seed, rng: Generator) -> tuple[bytes, str]:
    """A JPEG whose header says another size, sampling, precision or coding."""
    piece, stream = _piece(seed, rng)
    at = stream.find(b"\xff\xc0")
    if at < 0:
        return seed.data, "no frame"
    changed = bytearray(stream)
    spot, values = [
        (at + 5, (32, 128, 512, 60_000, 65_535, 0)),
        (at + 7, (32, 128, 512, 60_000, 65_535, 0)),
        (at + 1, (0xC1, 0xC2, 0xC3, 0xC9, 0xCA, 0xC5)),
        (at + 4, (0, 7, 12, 16)),
        (at + 9, (0, 1, 2, 4, 255)),
        (at + 11, (0x00, 0x11, 0x14, 0x41, 0x22, 0xFF)),
        (at + 12, (1, 3, 9, 255)),
    ][int(rng.integers(7))]
    value = int(rng.choice(values))
    width = 2 if spot in (at + 5, at + 7) else 1
    changed[spot : spot + width] = value.to_bytes(width, "big")
    if width == 2 and rng.random() < 0.5:
        changed[at + 5 : at + 9] = value.to_bytes(2, "big") * 2
    return _replaced(seed, piece, bytes(changed)), f"byte {spot - at} of the frame is {value}"


def a_segment_changed(seed: Seed, rng: Generator) -> tuple[bytes, str]:
    """A segment of a JPEG header that is gone, doubled, cut or noise."""
    piece, stream = _piece(seed, rng)
    try:
        parts = segments(stream)
    except IndexError:
        return seed.data, "no segments"
    number = int(rng.integers(len(parts)))
    part = parts[number]
    way = int(rng.integers(4))
    new = [b"", part * 2, part[: len(part) // 2], part[:4] + rng.bytes(len(part) - 4)][way]
    return _replaced(seed, piece, stream.replace(part, new, 1)), f"way {way} of segment 0x{part[1]:x}"


def a_marker_inside(seed: Seed, rng: Generator) -> tuple[bytes, str]:
    """A marker in the middle of the codes, or behind them: restarts, ends, a second image, left-over data."""
    piece, stream = _piece(seed, rng)
    if not stream:
        return seed.data, "nothing is left"
    marker = bytes([0xFF, int(rng.choice([0xD0, 0xD3, 0xD7, 0xD8, 0xD9, 0xDA, 0xC0, 0xC4, 0xDD, 0xFE, 0xFF]))])
    at = int(rng.integers(len(stream) // 2, len(stream))) if rng.random() < 0.7 else len(stream) - 2
    junk = rng.bytes(int(rng.integers(64))) if rng.random() < 0.5 else b""
    over = len(marker) if rng.random() < 0.5 else 0
    return _replaced(
        seed, piece, stream[:at] + marker + junk + stream[at + over :]
    ), f"{marker.hex()} and {len(junk)} at {at}"


JPEG: list[Mutation] = [a_lying_frame, a_lying_frame, a_segment_changed, a_marker_inside]


def a_jpeg2000_number(seed: Seed, rng: Generator) -> tuple[bytes, str]:
    """A number in the headers of a JPEG 2000 stream: sizes, tiles, components, levels, code blocks, lengths."""
    piece, stream = _piece(seed, rng)
    start = max(0, stream.find(b"\xff\x4f"))
    marker = [b"\xff\x51", b"\xff\x52", b"\xff\x5c", b"\xff\x90"][int(rng.integers(4))]
    at = stream.find(marker, start)
    if at < 0:
        return seed.data, "no such marker"
    changed = bytearray(stream)
    spot = at + 2 + int(rng.integers(40))
    width = int(rng.choice([1, 2, 4]))
    value = int(rng.choice(ODD)) % (1 << 8 * width)
    changed[spot : spot + width] = value.to_bytes(width, "big")
    return _replaced(seed, piece, bytes(changed)), f"{marker.hex()}+{spot - at} is {value}"


def a_bomb(seed: Seed, rng: Generator) -> tuple[bytes, str]:
    """A few kilobytes that unpack to hundreds of megabytes or more."""
    piece, _ = _piece(seed, rng)
    megabytes = int(rng.choice([1, 64, 512, 3000]))
    packer = zlib.compressobj(9)
    first, again, last = (
        packer.compress(bytes(1 << 20)) + packer.flush(how) for how in (zlib.Z_FULL_FLUSH,) * 2 + (zlib.Z_FINISH,)
    )
    stream = first + again * (megabytes - 1) + last  # the checksum fits none but two of them: too late for the memory
    return _replaced(seed, piece, stream), f"{megabytes} MB in {len(stream)} bytes"


def an_lzw_bomb(seed: Seed, rng: Generator) -> tuple[bytes, str]:
    """LZW codes of ever longer strings of zeros: they grow with the square of their number."""
    piece, _ = _piece(seed, rng)
    codes, bits, width, following = [256, 0], "", 9, 258
    for _ in range(int(rng.choice([5, 50, 500]))):
        for code in codes:
            bits += f"{code:0{width}b}"
        codes = list(range(following, 4093))
        out = []
        for code in codes:
            following += 1
            width = 9 if following < 511 else 10 if following < 1023 else 11 if following < 2047 else 12
            out.append(f"{code:0{width}b}")
        bits += "".join(out) + f"{256:0{width}b}"
        codes, width, following = [0], 9, 258
    stream = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    return _replaced(seed, piece, stream), f"{len(stream)} bytes"
