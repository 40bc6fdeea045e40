"""Reads the configuration and tells every mistake with file, line, key, value and remedy.

`load` is the way in: YAML -> data with places (`vqmon.configfile`) -> environment on top ->
the models of `vqmon.settings`. The rest of the file compares, shows and documents settings.
"""

from __future__ import annotations

import functools
import logging
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from vqmon.configfile import (
    Document,
    KeyPath,
    Place,
    Problem,
    fingerprint,
    nearest,
    overlay,
    problems_text,
    read,
)
from vqmon.errors import ConfigError
from vqmon.settings import EvidenceSettings, Settings, StreamSettings
from vqmon.sources import redact

__all__ = [
    "EvidenceSettings",
    "Settings",
    "StreamChanges",
    "StreamSettings",
    "changed_streams",
    "commented_example",
    "description",
    "fingerprint",
    "json_schema",
    "load",
    "named",
    "restart_needed",
    "rules_from",
    "setting_paths",
    "shown",
    "watching",
]

log = logging.getLogger("vqmon.config")

_SECRET_NAME = re.compile(r"pass(word|phrase)?$|secret|token|_key$|^headers?$|^cookies?$")
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._]+", re.ASCII)


def load(
    path: Path | None,
    environ: Mapping[str, str],
    *,
    data_dir: Path | None = None,
    plugins: bool = False,
) -> Settings:
    """Settings from a file (or none) with the environment over it.

    data_dir, from the command line, wins over both. plugins: whether the settings of plugins are
    checked too, which takes a second or more, since each imports its plugin. Raises ConfigError
    with one line for each mistake of the whole file.
    """
    if path is None:
        document = Document("configuration", Path.cwd())
        return _finished(document, environ, data_dir, plugins=plugins)
    document = read(path, environ)
    if not document.data.get("streams"):
        document.problems.append(
            document.problem(("streams",), "needs at least one stream: a name with its `url`")
        )
    return _finished(document, environ, data_dir, plugins=plugins)


def watching(
    urls: Iterable[str], environ: Mapping[str, str], *, data_dir: Path | None = None
) -> Settings:
    """Settings without a file that watch `urls`, under names made from them."""
    document = Document("command line", Path.cwd())
    document.data = {"streams": {name: {"url": url} for name, url in named(urls).items()}}
    document.places = {
        ("streams", name, "url"): Place("command line", text=stream["url"])
        for name, stream in document.data["streams"].items()
    }
    return _finished(document, environ, data_dir, plugins=True)


def rules_from(path: Path, environ: Mapping[str, str], streams: Iterable[str]) -> Settings:
    """Settings of which only the rules mean anything, for these streams and those of the file.

    The file has `rules`, and may have `alerts`, `maintenance` and `rules` of streams; a whole
    configuration does, too. Raises ConfigError like `load`.
    """
    document = read(path, environ)
    given = document.data.get("streams")
    given = given if isinstance(given, dict) else {}
    document.data["streams"] = {
        name: {"url": "synthetic:"} | _rules_alone(given.get(name)) for name in (*streams, *given)
    }
    settings = _validated(document)
    if document.problems or settings is None:
        raise ConfigError(problems_text(document.problems))
    return settings


def _rules_alone(stream: Any) -> dict[str, Any]:
    has_rules = isinstance(stream, dict) and stream.get("rules") is not None
    return {"rules": stream["rules"]} if has_rules else {}


def _finished(
    document: Document, environ: Mapping[str, str], data_dir: Path | None, *, plugins: bool
) -> Settings:
    ignored = overlay(document, environ, Settings.model_fields)
    if data_dir is not None:
        document.data["data_dir"] = str(data_dir.absolute())
    settings = _validated(document)
    if settings is not None and plugins:
        document.problems.extend(_problems_of_plugins(document, settings))
    if document.problems or settings is None:
        raise ConfigError(problems_text(document.problems))
    for variable in ignored:
        log.warning("environment_variable_ignored", extra={"variable": variable})
    return settings


def _validated(document: Document) -> Settings | None:
    try:
        settings = Settings.model_validate(document.data, context={"folder": document.folder})
    except ValidationError as error:
        told = {problem.path for problem in document.problems}
        errors = _told_once(document, error.errors())
        problems = (problem for details in errors for problem in _problems(document, details))
        document.problems.extend(it for it in problems if it.path not in told)
        return None
    settings.came_from(document.fingerprint, document.secrets, document.folder)
    return settings


def _problems_of_plugins(document: Document, settings: Settings) -> Iterator[Problem]:
    """What the plugins themselves say of their settings.

    One that cannot be imported is no mistake of the file: it is left out with a warning, since
    watching must not end for the sake of a plugin.
    """
    from vqmon.plugins.checking import check_configured

    for name, checked in check_configured(settings).items():
        if checked.unusable:
            log.warning("plugin_unusable", extra={"plugin": name, "error": checked.unusable})
        for it in checked.mistakes:
            path = ("plugins", name, *it.path)
            yield document.problem(path, it.message, at_key=it.at_key)


def _problems(document: Document, details: ErrorDetails) -> Iterator[Problem]:
    """The mistake in the operator's words, at its place."""
    path = _path(details)
    if details["type"] == "extra_forbidden":
        yield document.problem(path, _unknown(path), at_key=True)
    elif details["type"] == "missing":
        yield document.problem(path, f"is required: {_description(path)}", at_key=True)
    elif details["type"] == "options":
        for inside, message in details["ctx"]["wrong"].items():
            yield _problem_inside(document, path, inside, message)
    else:
        at_key = "[key]" in details["loc"]
        yield document.problem(path, _message(path, details), at_key=at_key)


def _problem_inside(
    document: Document, path: KeyPath, inside: str | KeyPath, message: str
) -> Problem:
    """At a key below `path`; at its value where several keys lead to one that was written."""
    if isinstance(inside, str):
        return document.problem((*path, inside), message, at_key=True)
    whole = (*path, *inside)
    written = document.places.get(whole)
    return document.problem(whole, message, at_key=written is None or written.text is None)


def _path(details: ErrorDetails) -> KeyPath:
    return tuple(part for part in details["loc"] if part != "[key]")


def _told_once(document: Document, errors: list[ErrorDetails]) -> Iterator[ErrorDetails]:
    """Leave out what a stream only inherited from `defaults` or `evidence`, where it is told."""
    shared = {(_path(it)[1:], it["msg"]) for it in errors if it["loc"][0] == "defaults"}
    shared |= {(_path(it), it["msg"]) for it in errors if it["loc"][0] == "evidence"}
    for error in errors:
        path = _path(error)
        own = path[:1] != ("streams",) or path in document.places
        if own or (path[2:], error["msg"]) not in shared:
            yield error


def _unknown(path: KeyPath) -> str:
    name, known = str(path[-1]), _keys_at(path[:-1])
    if meant := nearest(name, known):
        return f"is not a setting; did you mean {meant!r}?"
    elsewhere = [it for it in setting_paths() if it.split(".")[-1] == name]
    if elsewhere:
        return f"is not a setting here; it belongs at {' or '.join(elsewhere)}"
    return f"is not a setting; possible here: {', '.join(known)}"


def _message(path: KeyPath, details: ErrorDetails) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if details["input"] is None:
        return f"needs a value: {_description(path)}"
    if kind == "literal_error":
        return not_one_of(str(details["input"]), re.findall(r"'([^']*)'", context["expected"]))
    if kind == "value_error":
        return str(context["error"])
    if kind in ("greater_than_equal", "less_than_equal"):
        return f"must be {_limits(path)}"
    return WORDS.get(kind, details["msg"])


_MAP = "must be a map: indented lines of `key: value`"
_LIST = "must be a list, as in [a, b]"
WORDS = {
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be a number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be a text, not a list or map",
    "string_too_short": "must not be empty",
    "path_type": "must be a path",
    "dict_type": _MAP,
    "model_type": _MAP,
    "model_attributes_type": _MAP,
    "tuple_type": _LIST,
    "list_type": _LIST,
}


def not_one_of(value: str, choices: list[str]) -> str:
    """What to say of a value that is none of the choices."""
    meant = nearest(value, choices)
    return f"must be one of {', '.join(choices)}" + (f"; did you mean {meant!r}?" if meant else "")


def _limits(path: KeyPath) -> str:
    """The limits that a number field states."""
    metadata = _fields()[_general(path)].metadata
    low = next((it.ge for it in metadata if hasattr(it, "ge")), None)
    high = next((it.le for it in metadata if hasattr(it, "le")), None)
    return f"between {low} and {high}"


def _description(path: KeyPath) -> str:
    return description(_general(path)) or _MAP


def description(path: str) -> str:
    """What a setting of `setting_paths` is for; empty for what is none."""
    known = _fields().get(path)
    return known.description or "" if known else ""


def setting_paths() -> list[str]:
    """Every key that may be written, sections included: ``streams.NAME.sampling.every``."""
    return list(_fields())


def _keys_at(path: KeyPath) -> list[str]:
    """The keys that may stand below `path`."""
    above = _general(path)
    return [it.rpartition(".")[2] for it in _fields() if it.rpartition(".")[0] == above]


def _general(path: KeyPath) -> str:
    """``streams.NAME.expect`` for ``("streams", "lobby", "expect", 0)``."""
    parts = ["NAME" if _is_name(path, n) else it for n, it in enumerate(path)]
    return ".".join(it for it in parts if isinstance(it, str))


def _is_name(path: KeyPath, place: int) -> bool:
    """Whether the key there is one that the operator chooses."""
    of_rule = place == 3 and (path[0], path[2]) == ("streams", "rules")
    return of_rule or (place == 1 and path[0] in _maps())


@functools.cache
def _maps() -> frozenset[str]:
    """Sections whose keys are names that the operator chooses."""
    fields = Settings.model_fields.items()
    return frozenset(name for name, known in fields if get_origin(known.annotation) is dict)


@functools.cache
def _fields() -> dict[str, FieldInfo]:
    return dict(_below(Settings, ""))


def _below(section: type[BaseModel], above: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, known in section.model_fields.items():
        path = f"{above}{known.alias or name}"
        yield path, known
        inside, prefix = _section_in(known.annotation)
        if inside is not None:
            yield from _below(inside, f"{path}.{prefix}")


def _section_in(annotation: Any) -> tuple[type[BaseModel] | None, str]:
    """The model inside ``Model``, ``Model | None`` or ``dict[name, Model]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, ""
    arguments = get_args(annotation)
    if get_origin(annotation) is dict:
        inside, _ = _section_in(arguments[1])
        return inside, "NAME."
    found = [inside for inside, _ in map(_section_in, arguments) if inside is not None]
    return (found[0], "") if found else (None, "")


@dataclass(frozen=True, slots=True)
class StreamChanges:
    """Names of streams that a new configuration adds, removes, or declares differently."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


def changed_streams(old: Settings, new: Settings) -> StreamChanges:
    """What a reload must start, stop and restart; all other streams go on undisturbed."""
    return StreamChanges(
        added=tuple(it for it in new.streams if it not in old.streams),
        removed=tuple(it for it in old.streams if it not in new.streams),
        changed=tuple(
            it
            for it in new.streams
            if it in old.streams and _source(new.streams[it]) != _source(old.streams[it])
        ),
    )


def _source(stream: StreamSettings) -> StreamSettings:
    """What watching depends on: rules look at what was watched."""
    return stream.model_copy(update={"rules": {}})


def restart_needed(old: Settings, new: Settings) -> tuple[str, ...]:
    """Sections that differ and take effect only when the daemon starts again."""
    sections = ("instance", "data_dir", "database", "http", "scorer", "ingest", "schedule")
    return tuple(it for it in (*sections, "logging") if getattr(old, it) != getattr(new, it))


def named(urls: Iterable[str]) -> dict[str, str]:
    """A readable, unique name for each URL: ``rtsp://cam.local/live/main`` is cam.local-live-main."""
    names: dict[str, str] = {}
    for url in urls:
        wanted = _name_of(url)
        name, number = wanted, 1
        while name in names:
            number += 1
            name = f"{wanted[:60]}-{number}"
        names[name] = url
    return names


def _name_of(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    if not host:
        wanted = Path(parts.path).stem or parts.scheme
    elif parts.path.strip("/"):
        wanted = f"{host.partition(':')[0]}-{parts.path}"
    else:
        wanted = host
    return _NOT_IN_A_NAME.sub("-", wanted).strip("-._")[:64] or "stream"


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the file, for editors; numbers may also be ``${...}`` there."""
    schema = Settings.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema


def commented_example(urls: Iterable[str] = ()) -> str:
    """A file that watches `urls`, with every other setting as a comment that shows its default."""
    streams = named(urls) or {"lobby": "rtsp://camera.example/live"}
    lines = [*_PREAMBLE, "streams:"]
    for name, url in streams.items():
        lines += [f"  {_scalar(name)}:", f"    url: {_scalar(url)}"]
    for name, known in Settings.model_fields.items():
        if name != "streams":
            lines += ["", f"# {known.description}", *_commented(Settings, name, "")]
    return "\n".join([*lines, ""])


_PREAMBLE = (
    "# vqmon configuration; `vqmon config check -c FILE` finds mistakes.",
    "# Durations are written 10s, 5m, 24h, 7d and sizes 500MB, 10GB. Keep passwords out of this",
    "# file: ${NAME} takes an environment variable, ${file:/path} the content of a file.",
    "# The lines with `#` and no space after it show all other settings with their defaults.",
    "",
    "# What to watch. A stream may also have `options` (of its URL's scheme), its own `evidence`,",
    "# and everything that stands under `defaults`.",
)


def _commented(section: type[BaseModel], name: str, indent: str) -> list[str]:
    known = section.model_fields[name]
    inside, default = f"{indent}  ", known.get_default()
    if not isinstance(default, BaseModel):
        return [f"#{indent}{name}: {_default(section, name)}"]
    lines = [f"#{indent}{name}:"]
    for key, field in type(default).model_fields.items():
        wrapped = textwrap.wrap(field.description or "", 90 - len(inside))
        lines += [f"#{inside}# {line}" for line in wrapped]
        lines += _commented(type(default), key, inside)
    return lines


def _default(section: type[BaseModel], name: str) -> str:
    """The default as it would be written."""
    default = section.model_fields[name].get_default()
    if isinstance(default, Path):
        return str(default)
    required = {key: "x" for key, known in section.model_fields.items() if known.is_required()}
    written = section.model_validate(required).model_dump(mode="json")[name]
    return _scalar(default if default == "" else written)


def _scalar(value: object) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return str(text).removesuffix("\n").removesuffix("\n...")


def shown(settings: Settings) -> str:
    """The effective settings as YAML, without credentials and secrets."""
    plain = settings.model_dump(mode="json", by_alias=True)
    for notifier in plain["notifiers"].values():
        if notifier["type"] == "apprise" and notifier["url"] not in settings.secrets:
            notifier["url"] = f"{notifier['url'].partition(':')[0]}://***"
    hidden = _hidden(plain, settings.secrets)
    return str(yaml.safe_dump(hidden, sort_keys=False, allow_unicode=True))


def _hidden(value: Any, secrets: Mapping[str, str], key: str = "") -> Any:
    if isinstance(value, dict):
        below = {name: key if _SECRET_NAME.search(key) else name for name in value}
        return {name: _hidden(it, secrets, below[name]) for name, it in value.items()}
    if isinstance(value, list):
        return [_hidden(inside, secrets, key) for inside in value]
    if not isinstance(value, str):
        return value
    if _SECRET_NAME.search(key):
        return "***"
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        value = value.replace(secret, secrets[secret])
    return redact(value)
