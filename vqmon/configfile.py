"""YAML text and environment variables to plain data, with the place of every value.

Every scalar stays the text that the operator wrote (the models of `vqmon.config` turn it into
numbers), so ``no`` can name a stream and a label ``007`` keeps its zeros. Mistakes are gathered,
not raised one by one; only a text that is no YAML at all ends the reading at once.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vqmon.errors import ConfigError
from vqmon.sources import redact

KeyPath = tuple[str | int, ...]

PREFIX = "VQMON_"
OWN_VARIABLES = ("VQMON_CONFIG", "VQMON_DEBUG")
"""Variables of the command line that are no settings."""

_LARGEST_FILE = 16 * 1024**2
_LARGEST_SECRET = 64 * 1024
_MOST_VALUES = 500_000
_DEEPEST = 100
_KUBERNETES = re.compile(
    r"(.*_)?(SERVICE_(HOST|PORT)(_.*)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
_PLACEHOLDER = re.compile(r"\$(?P<literal>\$\{)|\$\{(?P<inside>[^{}]*)(?P<end>\})?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_NULLS = ("", "~", "null", "Null", "NULL")
_PLAIN_TAGS = tuple(
    f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "map", "seq")
)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Knows no types: every scalar is a text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  PyYAML's way of saying it


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value was written, and how. line and column count from 1."""

    source: str
    line: int = 0
    column: int = 0
    text: str | None = None

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where, which key, what was written there, and what to do about it."""

    place: Place
    path: KeyPath
    message: str

    def __str__(self) -> str:
        parts = [str(self.place), key_path(self.path)]
        if self.place.text is not None:
            parts.append(_shown(self.place.text))
        return ": ".join([*(part for part in parts if part), self.message])


@dataclass(slots=True)
class Document:
    """What was read.

    data: maps, lists, texts and None. places: of values, by key path; keys: of keys.
    secrets: value -> placeholder, of everything that came through ``${...}``.
    fingerprint: of the text and the secret files that it names.
    """

    source: str
    folder: Path
    data: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, Place] = field(default_factory=dict)
    keys: dict[KeyPath, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)
    fingerprint: str = ""

    def problem(self, path: KeyPath, message: str, *, at_key: bool = False) -> Problem:
        """A mistake at the nearest place that is known for `path`."""
        for length in range(len(path), -1, -1):
            known = self.keys if at_key or length < len(path) else self.places
            place = known.get(path[:length]) or self.places.get(path[:length])
            if place is not None:
                exact = length == len(path) and not at_key
                text = place.text if exact else None
                return Problem(Place(place.source, place.line, place.column, text), path, message)
        return Problem(Place(self.source), path, message)


def read(path: Path, environ: Mapping[str, str]) -> Document:
    """Read a file. Raises ConfigError when it cannot be read or is no YAML map."""
    raw = _bytes_of(path)
    text = _decoded(path, raw)
    root = _composed(path, text)
    document = Document(str(path), path.absolute().parent, fingerprint=_digest(path, raw))
    tree = _Tree(document, environ)
    if root is None:
        raise ConfigError(f"{path}: the file is empty; `vqmon config init URL` prints a start")
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(
            f"{tree.place(root)}: must be a map at the top (lines of `key: value`, as in "
            f"`streams:`), not {'a list' if isinstance(root, yaml.SequenceNode) else 'a text'}"
        )
    document.data = tree.value(root, ())
    return document


def fingerprint(path: Path) -> str:
    """Changes when the file, or a secret file that it names, has other content. Never raises."""
    try:
        return _digest(path, _bytes_of(path))
    except ConfigError as error:
        return f"unreadable: {error}"


def overlay(document: Document, environ: Mapping[str, str], known: Iterable[str]) -> list[str]:
    """Put ``VQMON_A__B=value`` over the file's ``a: {b: value}``; return what was left alone.

    known: names of top-level keys. An empty variable counts as unset. What Kubernetes sets for
    a service named vqmon is no setting. Other unknown names without ``__`` belong to somebody
    else unless they look like a misspelt setting.
    """
    names, ignored = tuple(known), []
    for variable in sorted(environ):
        path = tuple(variable.removeprefix(PREFIX).lower().split("__"))
        if not variable.startswith(PREFIX) or variable in OWN_VARIABLES or not environ[variable]:
            continue
        if len(path) == 1 and _KUBERNETES.fullmatch(variable.removeprefix(PREFIX)):
            continue
        if len(path) == 1 and path[0] not in names and nearest(path[0], names) is None:
            ignored.append(variable)
        elif path[0] == "streams":
            _refuse_variable(document, variable, "streams are named in the file; use ${NAME} there")
        elif "" in path:
            _refuse_variable(
                document, variable, "write VQMON_SECTION__KEY, two underscores between"
            )
        else:
            _set(document, variable, path, environ)
    return ignored


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant."""
    matches = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def key_path(path: KeyPath) -> str:
    """``streams.lobby.expect[0]``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


@dataclass(slots=True)
class _Tree:
    """Turns YAML nodes into plain data and notes places and problems in the document."""

    document: Document
    environ: Mapping[str, str]
    count: int = 0
    open: list[int] = field(default_factory=list)

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        place = self.document.places[path] = self.place(node)
        self.count += 1
        if self.count > _MOST_VALUES:
            raise ConfigError(f"{place}: more than {_MOST_VALUES} values; anchors within anchors?")
        if id(node) in self.open:
            raise ConfigError(f"{place}: {key_path(path)}: an anchor refers to itself")
        if node.tag not in _PLAIN_TAGS:
            self._wrong(node, path, f"the tag {node.tag} has no meaning here; remove it")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        self.open.append(id(node))
        inside = (
            self._map(node, path)
            if isinstance(node, yaml.MappingNode)
            else [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        )
        self.open.pop()
        return inside

    def place(self, node: yaml.Node) -> Place:
        mark = node.start_mark
        text = node.value if isinstance(node, yaml.ScalarNode) and not _null(node) else None
        return Place(self.document.source, mark.line + 1, mark.column + 1, text)

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> str | None:
        if _null(node):
            return None
        return substituted(self.document, path, node.value, self.environ)

    def _map(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._wrong(key, path, "a key must be a text")
            elif key.value == "<<" and not key.style:
                merged = self._merged(value, path) | merged
            elif key.value in own:
                first = self.document.keys[(*path, key.value)].line
                self._wrong(
                    key, (*path, key.value), f"is given twice; the first is in line {first}"
                )
            else:
                self.document.keys[(*path, key.value)] = self.place(key)
                own[key.value] = self.value(value, (*path, key.value))
        return merged | own

    def _merged(self, node: yaml.Node, path: KeyPath) -> dict[str, Any]:
        """What ``<<: *anchor`` or ``<<: [*a, *b]`` brings in; the earlier wins."""
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        together: dict[str, Any] = {}
        here = self.document.places[path]
        for source in sources:
            if isinstance(source, yaml.MappingNode):
                together = self.value(source, path) | together
            else:
                self._wrong(source, (*path, "<<"), "only maps can be merged")
        self.document.places[path] = here
        return together

    def _wrong(self, node: yaml.Node, path: KeyPath, message: str) -> None:
        mark = node.start_mark
        place = Place(self.document.source, mark.line + 1, mark.column + 1)
        self.document.problems.append(Problem(place, path, message))


def _null(node: yaml.ScalarNode) -> bool:
    return not node.style and node.value in _NULLS


def substituted(document: Document, path: KeyPath, text: str, environ: Mapping[str, str]) -> str:
    """Replace ``${NAME}`` and ``${file:/path}``; ``$${`` is a literal ``${``."""

    def replacement(match: re.Match[str]) -> str:
        if match["literal"]:
            return "${"
        try:
            secret = _secret(match, document.folder, environ)
        except ValueError as error:
            document.problems.append(document.problem(path, str(error)))
            return match[0]
        document.secrets[secret] = match[0]
        return secret

    return _PLACEHOLDER.sub(replacement, text)


def _secret(match: re.Match[str], folder: Path, environ: Mapping[str, str]) -> str:
    """The text behind a placeholder. Raises ValueError with the remedy."""
    inside = match["inside"].strip()
    if match["end"] and inside.startswith("file:"):
        return _secret_file(Path(folder, inside.removeprefix("file:").strip()).expanduser())
    if not match["end"] or not _VARIABLE.fullmatch(inside):
        raise ValueError(
            "write ${NAME} for an environment variable or ${file:/path} for a file; "
            "a literal ${ is written $${"
        )
    if inside not in environ:
        raise ValueError(f"the environment variable {inside} is not set; set it before starting")
    return environ[inside]


def _secret_file(path: Path) -> str:
    try:
        if not path.is_file():
            raise ValueError(f"there is no file {path}; create it or correct the path")
        with path.open("rb") as file:
            raw = file.read(_LARGEST_SECRET + 1)
        if len(raw) > _LARGEST_SECRET:
            raise ValueError(f"{path} is larger than {_LARGEST_SECRET // 1024} KiB; not a secret?")
        return raw.decode().rstrip("\r\n")
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text") from error


def _bytes_of(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ConfigError(f"{path}: is a folder; name the file in it")
        if not stat.S_ISREG(mode):
            raise ConfigError(f"{path}: is not a regular file; the daemon reads it again later")
        with path.open("rb") as file:
            raw = file.read(_LARGEST_FILE + 1)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: no such file; `vqmon config init URL > {path.name}` writes one"
        ) from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(raw) > _LARGEST_FILE:
        raise ConfigError(
            f"{path}: larger than {_LARGEST_FILE // 1024**2} MiB; not a configuration?"
        )
    return raw


def _decoded(path: Path, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}:{line}: byte 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from error


def _composed(path: Path, text: str) -> yaml.Node | None:
    try:
        _check_depth(path, text)
        node: yaml.Node | None = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_syntax_error(path, text, error)) from error
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise ConfigError(
            f"{path}:{line}: contains the character U+{_code(error.character):04X}, which YAML "
            "does not allow; remove it"
        ) from error
    return node


def _check_depth(path: Path, text: str) -> None:
    """The C parser's composer overruns its stack on absurd nesting; its event stream does not."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise ConfigError(f"{path}: nested more than {_DEEPEST} deep; not a configuration?")


def _syntax_error(path: Path, text: str, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
    lines = text.splitlines()
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return f"{where}: a tab in the indentation; YAML wants spaces"
    said = " ".join(part for part in (error.context, error.problem) if part)
    return f"{where}: not valid YAML: {said}; check indentation, colons and quotes near this line"


def _code(character: int | str | bytes) -> int:
    return character if isinstance(character, int) else ord(character)


def _digest(path: Path, raw: bytes) -> str:
    digest = hashlib.sha256(raw)
    for name in re.findall(rb"\$\{\s*file:([^{}]*)\}", raw):
        try:
            secret = Path(path.absolute().parent, name.decode(errors="replace").strip())
            digest.update(_secret_file(secret.expanduser()).encode())
        except ValueError as error:
            digest.update(str(error).encode())
    return digest.hexdigest()


def _set(
    document: Document, variable: str, path: tuple[str, ...], environ: Mapping[str, str]
) -> None:
    text = environ[variable]
    inside = document.data
    for part in path[:-1]:
        below = inside.get(part)
        if not isinstance(below, dict):
            below = inside[part] = {}
        inside = below
    for known in [key for key in document.places if key[: len(path)] == path]:
        del document.places[known]
    document.places[path] = document.keys[path] = Place(f"environment {variable}", text=text)
    inside[path[-1]] = _from_variable(document, variable, path, environ)


def _from_variable(
    document: Document, variable: str, path: tuple[str, ...], environ: Mapping[str, str]
) -> Any:
    """A list or map is written as YAML in one line (``[a, b]``); all else is taken literally."""
    text = environ[variable]
    if not text.lstrip().startswith(("[", "{")):
        return substituted(document, path, text, environ)
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError:
        node = None
    if node is None:
        _refuse_variable(document, variable, "not a list or map; write [a, b] or {a: b}")
        return None
    scratch = Document(f"environment {variable}", document.folder)
    value = _Tree(scratch, environ).value(node, path)
    document.problems.extend(scratch.problems)
    document.secrets.update(scratch.secrets)
    return value


def _refuse_variable(document: Document, variable: str, message: str) -> None:
    document.problems.append(Problem(Place(f"environment {variable}"), (), message))


def _shown(text: str) -> str:
    text = redact(text)
    return repr(text if len(text) <= 60 else text[:57] + "...")


def problems_text(problems: Iterable[Problem]) -> str:
    """All problems, one a line, in the order of the file."""
    ordered = sorted(problems, key=lambda it: (it.place.source, it.place.line, it.place.column))
    return "\n".join(_unrepeated(str(problem) for problem in ordered))


def _unrepeated(lines: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for line in lines:
        if line not in seen:
            seen.add(line)
            yield line
