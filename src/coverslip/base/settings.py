"""Typed settings: a TOML file, `--set a.b=c` over it, and errors that name the key, the value and what is accepted."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from coverslip.base.errors import SettingsError
from coverslip.base.registry import suggest


class Settings(BaseModel):
    """A frozen, strict table of settings: unknown keys, NaN, infinity and text for numbers are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


S = TypeVar("S", bound=Settings)


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        SettingsError: no such file, not UTF-8, or not TOML, with the line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise SettingsError(
            f"There is no settings file {path}.", fix="Give the path of a study's TOML file."
        ) from error
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read: {error.strerror}.", fix="Give the path of a study's TOML file."
        ) from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not UTF-8 text: {error}.", fix="Save it as UTF-8.") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(
            f"{path} is not TOML: {error}.", fix="Text needs quotes; true and false are small."
        ) from error


def override(tables: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """`tables` with each `a.b=c` set; c is read as TOML, and as plain text where it is none.

    Raises:
        SettingsError: an assignment without '=' or through a value that is no table.
    """
    result: dict[str, Any] = _copy(tables)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        keys = [part.strip() for part in key.split(".")]
        if not equals or not all(keys):
            raise SettingsError(
                f"--set {assignment!r} is not of the form section.key=value.", fix="Example: --set tiles.mpp=0.5"
            )
        table = result
        for part in keys[:-1]:
            inner = table.setdefault(part, {})
            if not isinstance(inner, dict):
                raise SettingsError(f"--set {assignment!r}: {part!r} is a value, not a section.")
            table = inner
        table[keys[-1]] = _toml_value(text.strip())
    return result


def parse(model: type[S], tables: Mapping[str, Any], *, source: str) -> S:
    """The typed settings.

    Raises:
        SettingsError: one message that names every wrong key with its value, what is accepted, and the nearest match.
    """
    try:
        return model.model_validate(dict(tables))
    except ValidationError as error:
        lines = [_explain(model, detail) for detail in error.errors(include_url=False)]
        raise SettingsError(f"{source}: " + "\n".join(lines)) from error


def dump_toml(tables: Mapping[str, Any]) -> str:
    """TOML text of nested tables of plain values; None is left out (it means "the default")."""
    lines: list[str] = []
    _dump_table(tables, (), lines)
    return "\n".join(lines).strip() + "\n"


def _explain(model: type[BaseModel], detail: ErrorDetails) -> str:
    location = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        table = _model_at(model, detail["loc"][:-1])
        accepted = sorted(table.model_fields) if table else []
        return f"unknown setting {location!r}. {suggest(str(detail['loc'][-1]), accepted)}"
    if detail["type"] == "missing":
        return f"{location!r} is missing and has no default."
    return f"{location} = {detail['input']!r}: {detail['msg']}."


def _model_at(model: type[BaseModel], location: Sequence[str | int]) -> type[BaseModel] | None:
    for part in location:
        field = model.model_fields.get(str(part))
        kind = field.annotation if field else None
        inner = [k for k in (kind, *getattr(kind, "__args__", ())) if isinstance(k, type) and issubclass(k, BaseModel)]
        if not inner:
            return None
        model = inner[0]
    return model


def _copy(value: Any) -> Any:
    return {k: _copy(v) for k, v in value.items()} if isinstance(value, Mapping) else value


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _dump_table(table: Mapping[str, Any], path: tuple[str, ...], lines: list[str]) -> None:
    plain = {k: v for k, v in table.items() if v is not None and not isinstance(v, Mapping)}
    if path and plain:
        lines += ["", f"[{'.'.join(_toml_key(p) for p in path)}]"]
    lines += [f"{_toml_key(k)} = {_toml_text(v)}" for k, v in plain.items()]
    for key, value in table.items():
        if isinstance(value, Mapping):
            _dump_table(value, (*path, key), lines)


def _toml_key(key: str) -> str:
    return key if key and all(c.isascii() and (c.isalnum() or c in "_-") for c in key) else _toml_text(key)


def _toml_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml_text(v) for v in value) + "]"
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    text = "".join(escapes.get(c, c if ord(c) >= 32 and ord(c) != 127 else f"\\u{ord(c):04x}") for c in str(value))
    return f'"{text}"'
