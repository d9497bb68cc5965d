"""`coverslip convert`: feature files, annotations and tables from and to other tools' layouts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from coverslip.base.errors import CoverslipError, SettingsError, TableError
from coverslip.base.files import atomic, write_json
from coverslip.base.progress import SILENT, Progress
from coverslip.base.registry import suggest
from coverslip.cohort import read_table
from coverslip.nn.pt_files import read_pt
from coverslip.store import FeatureStore, write_table
from coverslip.store.annotations import read_annotations
from coverslip.store.convert import TARGETS, convert_store
from coverslip.store.layouts import Frame

KINDS = ("features", "annotations", "table")
FRAMES: dict[str | None, Frame | None] = {None: None, "level0_px": "level0_px", "um": "um"}
_ANNOTATIONS = (".xml", ".json", ".geojson")


def convert(
    what: str,
    source: Path,
    target: Path,
    *,
    to: str = "coverslip",
    frame: str | None = None,
    mpp: float | None = None,
    progress: Progress = SILENT,
) -> dict[str, str]:
    """The files that could not be converted, with the reasons; everything else is written.

    Raises:
        SettingsError: an unknown kind or layout, or no such file.
    """
    if what not in KINDS:
        raise SettingsError(f"{what!r} cannot be converted.", fix=suggest(what, list(KINDS)))
    if to not in TARGETS:
        raise SettingsError(f"There is no feature layout {to!r}.", fix=suggest(to, list(TARGETS)))
    if not source.exists():
        raise SettingsError(f"There is nothing at {source}.")
    if frame not in FRAMES:
        raise SettingsError(f"--frame {frame!r} is unknown.", fix="Accepted: level0_px, um.")
    if what == "features":
        return _features(source, target, to, FRAMES[frame], mpp, progress)
    if what == "annotations":
        return _annotations(source, target, mpp, progress)
    _table(source, target)
    return {}


def _features(
    source: Path, target: Path, to: str, frame: Frame | None, mpp: float | None, progress: Progress
) -> dict[str, str]:
    folder, only = (source, None) if source.is_dir() or source.suffix == ".npz" else (source.parent, [source.stem])
    store = FeatureStore(folder, readers={".pt": read_pt, ".pth": read_pt}, frame=frame)
    if not store.names():
        raise SettingsError(
            f"{source} holds no feature files.",
            fix=f"Accepted: {', '.join(store.suffixes)}, in the folder itself and named by their slides.",
        )
    done = convert_store(store, target, layout=to, slides=only, mpp=mpp, progress=progress)
    return {one.slide: str(one.error).removeprefix(f"{one.slide}: ") for one in done if one.error is not None}


def _annotations(source: Path, target: Path, mpp: float | None, progress: Progress) -> dict[str, str]:
    files = [source] if source.is_file() else sorted(p for p in source.iterdir() if p.suffix.lower() in _ANNOTATIONS)
    if not files:
        raise SettingsError(f"{source} holds no annotations.", fix=f"Accepted: {', '.join(_ANNOTATIONS)}.")
    failed = {}
    stems = Counter(file.stem for file in files)
    with progress.stage("convert", len(files), unit="file") as step:
        for file in files:
            one = target if source.is_file() and target.suffix else target / f"{file.stem}.geojson"
            try:
                if stems[file.stem] > 1:
                    raise TableError(
                        f"{stems[file.stem]} files are named {file.stem}, and one would overwrite the other.",
                        fix="Convert them one by one.",
                    )
                write_json(one, read_annotations(file, mpp=mpp).to_geojson())
            except CoverslipError as error:
                failed[file.name] = str(error)
            step.advance(note=file.name)
    return failed


def _table(source: Path, target: Path) -> None:
    frame = read_table(source)
    if target.suffix == ".parquet":
        with atomic(target) as temporary:
            frame.to_parquet(temporary, index=False)
    elif target.suffix == ".csv":
        write_table(target, frame)
    else:
        raise TableError(f"{target.name}: a table is .csv or .parquet.")
