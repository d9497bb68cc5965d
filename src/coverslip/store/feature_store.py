"""A folder of feature files, ours or another tool's: find a slide, read it, and see that all belong together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from coverslip.base.errors import FeatureError
from coverslip.base.files import remove_abandoned, safe_name
from coverslip.store.features import ARRAY_SUFFIXES, HDF5_SUFFIXES, Features, Reader, read_features
from coverslip.store.layouts import Frame, read_attributes
from coverslip.store.packed import PackedFeatures
from coverslip.store.sidecar import remove_stale

# Where other tools put the files below the folder that users know.
_INNER = ("h5_files", "pt_files", "patches")


class FeatureStore:
    """The feature files of a folder, by slide. A file's name without its last suffix is the slide.

    `readers` adds file types (".pt"); `frame` says whether coords of files that do not tell are "level0_px" or "um".
    A single .npz with `features`, `offsets` and `slide_ids` is a store too.
    """

    def __init__(
        self, folder: Path, *, readers: Mapping[str, Reader] | None = None, frame: Frame | None = None
    ) -> None:
        self.folder = Path(folder)
        self.readers = dict(readers or {})
        self.frame = frame
        self._packed = PackedFeatures.open(self.folder) if self.folder.is_file() else None

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Accepted file types; where a slide has several, the first wins."""
        return (*HDF5_SUFFIXES, *ARRAY_SUFFIXES, *self.readers)

    def path(self, slide: str) -> Path:
        """Where our file of this slide is or would be."""
        return self.folder / f"{safe_name(slide, what='slide')}.h5"

    def find(self, slide: str) -> Path | None:
        """The slide's feature file of any accepted type, or None."""
        if self._packed is not None:
            return self.folder if slide in self._packed.slides else None
        name = safe_name(slide, what="slide")
        candidates = (self.folder / f"{name}{suffix}" for suffix in self.suffixes)
        return next((path for path in candidates if path.is_file()), None)

    def names(self) -> list[str]:
        """The slides that have features, sorted."""
        if self._packed is not None:
            return sorted(self._packed.slides)
        if not self.folder.is_dir():
            return []
        files = (path for path in self.folder.iterdir() if path.suffix.lower() in self.suffixes)
        return sorted({path.stem for path in files if not path.name.startswith(".")})

    def read(self, slide: str, *, mpp: float | None = None, check: bool = True) -> Features:
        """The features of one slide.

        Raises:
            FeatureError: there are none, or `read_features` refuses them.
        """
        path = self.find(slide)
        if path is None:
            raise FeatureError(
                f"no features in {self.folder}.",
                slide=slide,
                fix=self._where_else() or "Run `coverslip embed`.",
                code="missing",
            )
        if self._packed is not None:
            return self._packed.read(slide, check=check)
        return read_features(path, slide=slide, mpp=mpp, frame=self.frame, readers=self.readers, check=check)

    def has(self, slide: str, fingerprint: str) -> bool:
        """True where our file of this slide was made from exactly these inputs and settings."""
        path = self.path(slide)
        return path.is_file() and read_attributes(path).get("fingerprint") == fingerprint

    def tidy(self) -> None:
        """Removes what killed runs left beside finished files; unfinished slides that can go on are kept."""
        for path in self.folder.glob(".*.rows"):
            finished = self.path(path.name[1 : -len(".rows")])
            if finished.is_file():
                remove_stale(path, str(read_attributes(finished).get("fingerprint")))
        remove_abandoned(self.folder)

    def dim(self, slides: Iterable[str] | None = None) -> int:
        """The feature width that all of `slides` (default: every slide) share.

        Raises:
            FeatureError: naming the files of another width, or of another encoder, tile size or scale.
        """
        names = self.names() if slides is None else list(slides)
        if not names:
            raise FeatureError(
                f"{self.folder} holds no feature files.",
                fix=self._where_else() or "Run `coverslip embed`.",
                code="missing",
            )
        found = [self.read(name, check=False) for name in names]
        check_one_kind(found)
        return found[0].dim

    def _where_else(self) -> str:
        inner = [name for name in _INNER if (self.folder / name).is_dir()]
        if self.folder.is_dir() and not inner:
            inner = sorted(path.name for path in self.folder.iterdir() if path.is_dir() and any(path.glob("*.h5")))[:3]
        return f"There are files in {self.folder / inner[0]}; set features.store to it." if inner else ""


def check_one_kind(found: Iterable[Features]) -> None:
    """Nothing, for features of one width, encoder, tile size and scale, as far as the files tell.

    Raises:
        FeatureError: naming the odd file, and what the others are.
    """
    features = list(found)
    if not features:
        return
    dim, usual = Counter(one.dim for one in features).most_common(1)[0]
    odd = [one for one in features if one.dim != dim]
    if odd:
        raise FeatureError(
            f"{odd[0].dim} numbers a row, while {usual} other files have {dim}"
            + (f" ({len(odd)} files differ)." if len(odd) > 1 else "."),
            slide=odd[0].slide,
            fix="Files of one store come from one encoder; embed it again or move it elsewhere.",
            code="width",
        )
    first = features[0]
    for one in features:
        if kind_of(one) != kind_of(first):
            raise FeatureError(
                f"made by {told(one)}; {first.slide} was made by {told(first)}.",
                slide=one.slide,
                fix="Features of different encoders or scales cannot be mixed: embed all slides the same way.",
                code="mixed",
            )


def kind_of(features: Features) -> str:
    """Equal for features that may be mixed; of other tools' files it holds what they tell: layout and encoder."""
    if features.identity is not None:
        return features.identity.kind
    return f"{features.encoder or 'unknown'} {features.dim}"


def told(features: Features) -> str:
    """What a file says about its making, for people."""
    if features.identity is not None:
        return str(features.identity)
    return f"{features.encoder or 'an encoder that the file does not name'} ({features.dim} numbers a tile)"
