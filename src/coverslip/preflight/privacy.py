"""Images beside the tissue that may show a name, a number or a barcode."""

from __future__ import annotations

from collections.abc import Sequence

from coverslip.base.errors import Finding

# The macro photograph usually has the label in it; DICOM calls it overview.
_MAY_SHOW_A_LABEL = ("label", "macro", "overview")


def label_images(associated: Sequence[str]) -> list[Finding]:
    """A finding where the file carries a label or macro image; what they show is not looked at."""
    names = [name for name in associated if any(word in name.lower() for word in _MAY_SHOW_A_LABEL)]
    if not names:
        return []
    return [
        Finding(
            "label_image_present",
            f"The file carries the image{'s' if len(names) > 1 else ''} {', '.join(names)}, where a name, a number or "
            "a barcode of the patient may be seen.",
            "Nothing here shows or copies them. Remove them before the file is given to others.",
        )
    ]
