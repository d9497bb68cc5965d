"""Floor 1: opening slides of any format, their scale, their pixels in boxes and batches; colour and stain."""

from coverslip.slide.batches import TileBatch
from coverslip.slide.colour import to_srgb
from coverslip.slide.discover import discover, slide_id
from coverslip.slide.reader import Reader, SlideInfo
from coverslip.slide.slide import Level, Slide

__all__ = ["Level", "Reader", "Slide", "SlideInfo", "TileBatch", "discover", "slide_id", "to_srgb"]
