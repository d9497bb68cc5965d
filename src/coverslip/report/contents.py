"""What a run folder holds, read once. Every part may be absent; a part that is there and damaged is an error."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
import pyarrow.parquet

from coverslip.base.errors import SettingsError, StoreError
from coverslip.store.run import MODEL, RunFolder
from coverslip.store.tables import read_outcomes, read_predictions

Json = dict[str, Any]


@dataclass(frozen=True)
class TilePicture:
    """One tile that a map ranks highest or lowest: where it lies (level-0 px), its score, and its image."""

    rank: str
    score: float | None
    x: int | None
    y: int | None
    image: Path


@dataclass(frozen=True)
class Map:
    """One slide's heatmap, what its colours mean, and its extreme tiles."""

    slide: str
    image: Path | None
    kind: str = ""
    target: str = ""
    tiles: tuple[TilePicture, ...] = ()


@dataclass(frozen=True)
class FoldModel:
    """What the `model.json` of one fold says about its training."""

    fold: str
    facts: Json


@dataclass(frozen=True)
class RunContents:
    """The parts of one run folder. None or empty: the run has no such part."""

    name: str
    folder: Path
    settings: Json | None = None
    split: Json | None = None
    cohort: Json | None = None
    predictions: pd.DataFrame | None = None
    metrics: Json | None = None
    evaluation: Json | None = None
    audit: Json | None = None
    control: Json | None = None
    check: Json | None = None
    outcomes: pd.DataFrame | None = None
    environment: Json | None = None
    embedding: tuple[Json, ...] = ()
    models: tuple[FoldModel, ...] = ()
    tissue: Mapping[str, Path] = field(default_factory=dict)
    maps: tuple[Map, ...] = ()
    slices: Mapping[str, tuple[TilePicture, ...]] = field(default_factory=dict)
    pseudonymised: bool = False

    def setting(self, *keys: str) -> Any:
        """The value of one setting, None where the run has no settings or not this one."""
        return dig(self.settings, *keys)

    def metric(self, *keys: str) -> Any:
        """A value of metrics.json, None where it is absent or null."""
        return dig(self.metrics, *keys)

    @property
    def is_empty(self) -> bool:
        """True where the folder holds no part of a run."""
        parts = (self.settings, self.split, self.predictions, self.metrics, self.check, self.outcomes, self.environment)
        return all(part is None for part in parts) and not (self.models or self.tissue or self.maps)

    @property
    def level(self) -> str:
        """The level of the run's numbers: patient or slide."""
        return str(self.metric("level") or self.setting("task", "level") or "patient")

    @property
    def column(self) -> str:
        """The target's column; of times that of events, of several labels all."""
        known = [self.metric("task", "column"), *(self.setting("task", key) for key in ("column", "event", "columns"))]
        named = next((one for one in known if one), "the target")
        return ", ".join(map(str, named)) if isinstance(named, list) else str(named)

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of the model's outputs."""
        return [str(name) for name in self.metric("task", "classes") or []]


def dig(value: Any, *keys: str) -> Any:
    """`value[key][key]...`, None as soon as something is not there."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def read_contents(folder: Path) -> RunContents:
    """The contents of a run folder.

    Raises:
        StoreError: there is no such folder, it is no run, or a JSON file of it is damaged; names the file.
        SettingsError: settings.toml is damaged. TableError: predictions.csv or outcomes.csv is.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise StoreError(f"There is no run folder {folder}.", fix="Give the folder that `coverslip run` wrote.")
    files = RunFolder(folder)
    settings = _toml(files.settings)
    metrics = _json(files.metrics, counts=dict, primary=dict, baseline=dict, pooled=dict, folds=list, warnings=list)
    column = dig(metrics, "task", "column") or dig(settings, "task", "column")
    target = (str(column),) if column else ()
    contents = RunContents(
        name=folder.resolve().name,
        folder=folder,
        settings=settings,
        split=_json(files.split, folds=list, leaks=list),
        cohort=_json(files.cohort, slides=list, exclusions=list),
        predictions=read_predictions(files.predictions, text=target) if files.predictions.is_file() else None,
        metrics=metrics,
        evaluation=_json(
            files.evaluation, discrimination=list, folds=list, confusion=dict, reliability=dict, sites=list
        ),
        audit=_json(files.audit, leaks=dict, sites=dict, subgroups=dict, slices=dict, warnings=list),
        control=_json(files.control, headline=dict, null_mean=dict, logrank=dict),
        check=_json(files.check, slides=list),
        outcomes=read_outcomes(files.outcomes) if files.outcomes.is_file() else None,
        environment=_json(files.environment),
        embedding=tuple(found for path in files.embeddings if (found := _json(path, skipped=dict, shares=dict))),
        models=_models(files.models),
        tissue={path.stem: path for path in sorted(files.tissue.glob("*.jpg"))},
        maps=_maps(files.heatmaps),
        slices={path.stem: _map(path.stem, None, path, {}).tiles for path in sorted(files.slices.glob("*.json"))},
    )
    if contents.is_empty:
        raise StoreError(
            f"{folder} holds no part of a run (no settings.toml, metrics.json, check.json ...).",
            fix="Give the folder that `coverslip run` wrote.",
        )
    name = contents.setting("name")
    return replace(contents, name=str(name)) if name else contents


def _json(path: Path, **kinds: type) -> Json | None:
    text = _text(path)
    if text is None:
        return None
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise _damaged(path, f"is not JSON (line {error.lineno}: {error.msg})") from error
    if not isinstance(value, dict):
        raise _damaged(path, f"holds a {type(value).__name__} where an object is expected")
    for key, kind in kinds.items():
        if value.get(key) is not None and not isinstance(value[key], kind):
            raise _damaged(path, f"has a {type(value[key]).__name__} under {key!r} where a {kind.__name__} is expected")
        if kind is list and any(not isinstance(item, (dict, str)) for item in value.get(key) or []):
            raise _damaged(path, f"has an entry under {key!r} that is no object")
    return value


def _toml(path: Path) -> Json | None:
    text = _text(path)
    if text is None:
        return None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is damaged: it is not TOML ({error}).", fix=_WAY_OUT) from error


def _models(folder: Path) -> tuple[FoldModel, ...]:
    found = []
    for path in sorted(folder.glob(f"*/{MODEL}"), key=lambda path: _natural(path.parent.name)):
        facts = _json(path)
        assert facts is not None
        found.append(FoldModel(path.parent.name, facts))
    return tuple(found)


def _maps(folder: Path) -> tuple[Map, ...]:
    images = {path.stem: path for path in sorted(folder.glob("*.png"))}
    lists = {path.stem: path for path in sorted((folder / "tiles").glob("*.json"))}
    return tuple(
        _map(slide, images.get(slide), lists.get(slide), _about(folder / f"{slide}.parquet"))
        for slide in sorted({*images, *lists})
    )


def _about(scores: Path) -> Json:
    """What a map shows, by its table of scores: `kind` (attention, evidence) and `target`, the class it is about."""
    if not scores.is_file():
        return {}
    try:
        table = pyarrow.parquet.ParquetFile(scores)
        columns = [name for name in ("kind", "target") if name in table.schema_arrow.names]
        rows = table.read(columns).slice(0, 1).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise _damaged(scores, f"is not a parquet table ({error})") from error
    return rows[0] if rows else {}


def _map(slide: str, image: Path | None, tiles: Path | None, about: Json) -> Map:
    """The list of tiles is either a bare list or an object that also says what the map shows: {kind, class, tiles}."""
    if tiles is None:
        return Map(slide, image, str(about.get("kind") or ""), str(about.get("target") or ""))
    try:
        value = json.loads(_text(tiles) or "null")
    except json.JSONDecodeError as error:
        raise _damaged(tiles, f"is not JSON (line {error.lineno}: {error.msg})") from error
    facts = value if isinstance(value, dict) else {}
    entries = facts.get("tiles") if isinstance(value, dict) else value
    if not isinstance(entries, list) or any(not isinstance(entry, dict) for entry in entries):
        raise _damaged(tiles, "holds no list of tiles")
    pictures = []
    for entry in entries:
        # Only names: a list that points elsewhere must not pull other files into the report.
        path = tiles.parent / Path(str(entry.get("file", ""))).name
        if path.is_file():
            pictures.append(
                TilePicture(str(entry.get("rank", "")), entry.get("score"), entry.get("x"), entry.get("y"), path)
            )
    kind = str(facts.get("kind") or about.get("kind") or "")
    target = next((str(one) for one in (facts.get("class"), about.get("target")) if one not in (None, "")), "")
    return Map(slide, image, kind, target, tuple(pictures))


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise _damaged(path, "is not UTF-8 text") from error
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}.") from error


_CURVES = {"discrimination": list, "folds": list, "confusion": dict, "reliability": dict, "sites": list}
_WAY_OUT = "Restore the file, or run the study again: what is finished is reused."


def _damaged(path: Path, what: str) -> StoreError:
    return StoreError(f"{path} is damaged: it {what}.", fix=_WAY_OUT, code="damaged")


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts fold10 behind fold9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
