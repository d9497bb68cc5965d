"""XML from people we do not know: no document type, so no entities that grow or that read files."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from coverslip.base.errors import StoreError


def parse_xml(data: bytes, path: Path) -> Element:
    """The root element.

    The standard library's expat does the parsing; a document type declaration, the only place where entities can be
    made, ends it. Annotation tools write none. That is all that a further dependency would add here.

    Raises:
        StoreError: not well-formed, or with a document type.
    """
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data

    def refuse(*_arguments: Any) -> None:
        raise StoreError(
            f"{path.name} declares a document type (DTD), which may hold entities that grow or read files.",
            fix="Remove the <!DOCTYPE ...> line; annotation tools write none.",
            code="unsafe",
        )

    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(data, True)
        return builder.close()
    except (expat.ExpatError, AssertionError, LookupError, ValueError) as error:
        raise StoreError(f"{path.name} cannot be read as XML: {error}.", code="annotation") from error
