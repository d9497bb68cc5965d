"""Aggregators, augments and tasks by name, with options checked before anything is built."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

from coverslip.base.errors import SettingsError
from coverslip.base.registry import AGGREGATORS, AUGMENTS, TASKS, Registry, suggest
from coverslip.mil.augment.contract import Augment
from coverslip.mil.bags import Aggregator
from coverslip.mil.tasks.contract import Task


def build_aggregator(name: str, dim: int, num_outputs: int, options: Mapping[str, Any] | None = None) -> Aggregator:
    """The method of that name for rows of width `dim`, as `build(dim, num_outputs, **options)`.

    Raises:
        SettingsError: no such method or option, or a value it does not take.
    """
    build = AGGREGATORS.load(name)
    options = dict(options or {})
    check_options(name, options)
    try:
        made: Aggregator = build(dim, num_outputs, **options)
    except (ValueError, RuntimeError) as error:
        said = ", ".join(f"{key} = {value!r}" for key, value in options.items())
        raise SettingsError(f"aggregator.options: {name} cannot be built with {said}: {error}.") from error
    return made


def build_augment(name: str, options: Mapping[str, Any]) -> Augment | None:
    """The augment of that name, as `build(**options)`; None for "none".

    Raises:
        SettingsError: no such augment or option, or a value it does not take.
    """
    if name == "none":
        if options:
            raise SettingsError(
                f"fit.augment_options: {', '.join(options)} without an augment.",
                fix="Set fit.augment: `coverslip list augments`.",
            )
        return None
    build = AUGMENTS.load(name)
    _check(AUGMENTS, name, options, "fit.augment_options")
    made: Augment = build(**options)
    return made


def build_task(kind: str, arguments: Mapping[str, Any]) -> Task:
    """The task of that kind, as `build(**arguments)`.

    Raises:
        SettingsError: no such kind.
    """
    made: Task = TASKS.load(kind)(**arguments)
    return made


def make_task(
    kind: str, *, classes: Sequence[str] = (), grid: Sequence[float] = (), weights: str, options: Mapping[str, Any]
) -> Task:
    """The task of that kind for a target with these classes and times; it gets those of the three that it names.

    Raises:
        SettingsError: no such kind or option, or a value it does not take.
    """
    check_task_options(kind, options)
    offered = {"classes": tuple(classes), "grid": tuple(grid), "weights": weights}
    named = inspect.signature(TASKS.load(kind)).parameters
    if weights == "effective_number" and "weights" not in named:
        raise SettingsError(
            f'fit.class_weights = "effective_number" weighs classes, and {kind} has none.',
            fix="Leave fit.class_weights out.",
        )
    return build_task(kind, {**{name: value for name, value in offered.items() if name in named}, **options})


def check_task_options(kind: str, options: Mapping[str, Any]) -> None:
    """Nothing, for options that the task has, with values of their type.

    Raises:
        SettingsError: no such task or option, or a value it does not take.
    """
    _check(TASKS, kind, options, "task.options", given=("classes", "grid", "weights"))


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Nothing, for options that the method has, with values of their type.

    Raises:
        SettingsError: no such method or option, or a value it does not take.
    """
    _check(AGGREGATORS, name, options, "aggregator.options")


def _check(
    registry: Registry, name: str, options: Mapping[str, Any], section: str, *, given: Sequence[str] = ()
) -> None:
    """Refuses options that a plug-in does not have; those `given` come from elsewhere."""
    accepted = _accepted(registry, name, options, given)
    for key, value in options.items():
        if key not in accepted:
            fix = suggest(key, list(accepted)) if accepted else "It has none."
            raise SettingsError(f"{section}: {name} has no option {key!r}.", fix=fix)
        if not _fits(value, accepted[key]):
            raise SettingsError(f"{section}.{key} = {value!r}: {name} takes {_words(accepted[key])}.")


def _accepted(registry: Registry, name: str, options: Mapping[str, Any], given: Sequence[str]) -> dict[str, Any]:
    """The options of a plug-in and their types; one that passes others on to its `host` has the host's as well."""
    build = registry.load(name)
    parameters = inspect.signature(build).parameters.values()
    hints = get_type_hints(build.__init__ if inspect.isclass(build) else build)
    own = {p.name: hints.get(p.name, object) for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in given}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        return own
    default = inspect.signature(build).parameters["host"].default
    host = options.get("host", default)
    if not _fits(host, own["host"]) or host == name:
        return own
    return {**_accepted(registry, host, {}, given), **own}


def _fits(value: object, hint: Any) -> bool:
    parts = get_args(hint) or (hint,)
    if get_origin(hint) is Literal:
        return any(value == part and type(value) is type(part) for part in parts)
    if get_origin(hint) is not None:
        return any(_fits(value, part) for part in parts)
    # True is an int to Python, but not to anyone who writes hidden = true.
    if isinstance(value, bool):
        return hint is bool or hint is object
    return isinstance(value, (float, int) if hint is float else hint)


def _words(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(repr(part) for part in get_args(hint))
    parts = [part for part in get_args(hint) or (hint,) if part is not type(None)]
    return " or ".join(_words(part) if get_args(part) else part.__name__ for part in parts)
