"""A look at the chain of directories of a TIFF file, before anything else walks it.

A chain that runs in a circle makes some libraries walk for ever, and one that leads past the end of the file means
that the file was cut short. Both are cheap to see: 8 bytes a directory.
"""

from __future__ import annotations

import struct

from coverslip.base.errors import SlideError
from coverslip.slide.readers._files import FileBytes

# More images than any slide has; a larger number is a film or damage.
MAX_DIRECTORIES = 100_000


def check_chain(file: FileBytes) -> int:
    """The number of directories of the TIFF.

    Raises:
        SlideError: truncated where the chain leads out of the file, unreadable where it runs in a circle.
    """
    if file.size < 16:
        raise SlideError(f"The file has only {file.size} bytes.", code="truncated", fix="Copy it again.")
    head = file.read(0, 16)
    order = "<" if head[:2] == b"II" else ">"
    big = struct.unpack(order + "H", head[2:4])[0] == 43
    count_format, entry_bytes, link_format = ("Q", 20, "Q") if big else ("H", 12, "I")
    count_bytes, link_bytes = struct.calcsize(order + count_format), struct.calcsize(order + link_format)
    offset = struct.unpack_from(order + link_format, head, 8 if big else 4)[0]
    seen: set[int] = set()
    while offset:
        if offset in seen or len(seen) > MAX_DIRECTORIES:
            raise SlideError(
                "The file's list of images runs in a circle.", code="unreadable", fix="It is damaged: copy it again."
            )
        seen.add(offset)
        try:
            entries = struct.unpack(order + count_format, file.read(offset, count_bytes))[0]
            link = file.read(offset + count_bytes + entries * entry_bytes, link_bytes)
        except EOFError as error:
            raise SlideError(
                f"The file is cut short: an image's directory lies at byte {offset}, the file has {file.size}.",
                code="truncated",
                fix="Copy it again from where it came.",
            ) from error
        offset = struct.unpack(order + link_format, link)[0]
    if not seen:
        raise SlideError("The file lists no image.", code="truncated", fix="Copy it again from where it came.")
    return len(seen)
