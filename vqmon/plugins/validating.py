"""A plugin's settings against its own model, and what is wrong with them in the operator's words.

Runs where the plugin's code may run: in a process of its own.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from vqmon.config import WORDS, not_one_of
from vqmon.configfile import KeyPath, nearest
from vqmon.plugins.finding import OWN_KEYS, written_keys
from vqmon.ports import Plugin


@dataclass(frozen=True, slots=True)
class Mistake:
    """path: below the plugin's section. at_key: the key is wrong, not its value."""

    path: KeyPath
    message: str
    at_key: bool = False


class SettingsRefused(Exception):
    """The settings do not fit the plugin's model."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        super().__init__("; ".join(f"{dotted(it.path)}: {it.message}" for it in mistakes))
        self.mistakes = mistakes


def validated(plugin: type[Plugin], given: Mapping[str, Any], folder: Path) -> BaseModel | None:
    """The settings that the plugin is given; texts of the file become what its model wants.

    folder: of the configuration, in the validation context, for relative paths.
    Raises SettingsRefused.
    """
    model = plugin.Settings
    if model is None:
        if given:
            raise SettingsRefused(
                [Mistake((key,), _unknown(key, ()), at_key=True) for key in given]
            )
        return None
    unknown = list(_unknown_keys(model, given))
    try:
        settings = model.model_validate(dict(given), context={"folder": folder})
    except ValidationError as error:
        told = {it.path for it in unknown}
        found = [_mistake(model, given, it) for it in error.errors(include_url=False)]
        raise SettingsRefused([*unknown, *(it for it in found if it.path not in told)]) from error
    if unknown:
        raise SettingsRefused(unknown)
    return settings


def _unknown_keys(model: type[BaseModel], given: Mapping[str, Any]) -> Iterator[Mistake]:
    """Pydantic ignores them unless a model says otherwise; an operator would never know."""
    if model.model_config.get("extra") == "allow":
        return
    known = {*model.model_fields, *written_keys(model.model_fields)}
    for key in given:
        if key not in known:
            yield Mistake((key,), _unknown(key, written_keys(model.model_fields)), at_key=True)


def _unknown(key: str, known: Iterable[str]) -> str:
    possible = [*known, *OWN_KEYS]
    if meant := nearest(key, possible):
        return f"is not a setting of this plugin; did you mean {meant!r}?"
    return f"is not a setting of this plugin; possible here: {', '.join(possible)}"


def _mistake(model: type[BaseModel], given: Mapping[str, Any], details: ErrorDetails) -> Mistake:
    path = _written(details["loc"], given)
    field = _field(model, path)
    kind, context = details["type"], details.get("ctx", {})
    described = f": {field.description}" if field and field.description else ""
    if kind == "extra_forbidden":
        return Mistake(path, _unknown_below(model, path), at_key=True)
    if kind == "missing":
        return Mistake(path, f"is required{described}", at_key=True)
    if details["input"] is None:
        return Mistake(path, f"needs a value{described}")
    if kind in ("literal_error", "enum"):
        choices = [it.strip(" '") for it in context["expected"].replace(" or ", ", ").split(",")]
        return Mistake(path, not_one_of(str(details["input"]), choices))
    if kind == "value_error":
        return Mistake(path, str(context["error"]))
    message = WORDS.get(kind) or details["msg"].replace("Input should ", "must ", 1)
    return Mistake(path, f"{message}{described}")


def _written(location: tuple[int | str, ...], given: Any) -> KeyPath:
    """The keys that stand in the file: pydantic also names the branches of a union."""
    path: list[str | int] = []
    for place, part in enumerate(location):
        if isinstance(given, Mapping) and part in given:
            given = given[str(part)]
        elif isinstance(given, list) and isinstance(part, int) and part < len(given):
            given = given[part]
        elif not isinstance(given, Mapping) or place < len(location) - 1 or part == "[key]":
            continue
        path.append(part)
    return tuple(path)


def _unknown_below(model: type[BaseModel], path: KeyPath) -> str:
    inside = _model(model, path[:-1])
    known = written_keys(inside.model_fields) if inside else ()
    if len(path) == 1:
        return _unknown(str(path[0]), known)
    meant = nearest(str(path[-1]), known)
    hint = f"did you mean {meant!r}?" if meant else f"possible here: {', '.join(known)}"
    return f"is not a setting here; {hint}"


def _field(model: type[BaseModel], path: KeyPath) -> FieldInfo | None:
    inside = _model(model, path[:-1]) if path else None
    if inside is None:
        return None
    fields = inside.model_fields.items()
    return next((it for name, it in fields if path[-1] in (name, it.alias)), None)


def _model(model: type[BaseModel], path: KeyPath) -> type[BaseModel] | None:
    """The model of the section at `path`, where there is exactly one."""
    annotation: Any = model
    for part in path:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            field = _field(annotation, (part,))
            annotation = field.annotation if field else None
        else:
            annotation = next(iter(get_args(annotation)[-1:]), None)
        annotation = _only_model_or_container(annotation)
    return (
        annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    )


def _only_model_or_container(annotation: Any) -> Any:
    """``Model`` for ``Model | None``; None where a union has several."""
    if get_origin(annotation) in (Union, types.UnionType):
        arguments = [it for it in get_args(annotation) if it is not type(None)]
        return arguments[0] if len(arguments) == 1 else None
    return annotation


def dotted(path: KeyPath) -> str:
    """``a.b.0``, as errors name a key."""
    return ".".join(map(str, path))
