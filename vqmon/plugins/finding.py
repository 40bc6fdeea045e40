"""Which plugins there are: entry points of installed packages, and files in a folder.

Finding imports none of them. `load` does, and only ever in a process of the plugin's own.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from vqmon.errors import PluginUnusable
from vqmon.ports import Plugin

log = logging.getLogger("vqmon.plugins")

GROUP = "vqmon.plugins"
OWN_KEYS = ("enabled", "memory", "timeout")
"""What vqmon itself takes from a plugin's section; as in `vqmon.settings.PluginSettings`."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Found:
    """A plugin that could run.

    entry: "module:Class" of an installed package; path: file or package folder; one is empty.
    version: of the package, empty for a file. fingerprint: another one when its code changes.
    """

    name: str
    entry: str = ""
    path: str = ""
    package: str = ""
    version: str = ""
    fingerprint: str = ""

    @property
    def where(self) -> str:
        """Where it comes from, for people."""
        return self.path or f"{self.package} {self.version}".strip()


def find(folder: Path | None) -> dict[str, Found]:
    """All plugins by name, sorted; one in the folder goes before an installed one of its name.

    folder: where .py files and packages lie; None for none. Names that begin with `_` or `.` are
    helpers. Raises nothing: a folder that is not there holds none.
    """
    found = {it.name: it for it in _installed()}
    if folder is not None:
        found |= {it.name: it for it in _in_folder(folder)}
    return dict(sorted(found.items()))


def load(found: Found) -> type[Plugin]:
    """Import a plugin's code and return its class. Raises PluginUnusable."""
    try:
        loaded = _entry(found) if found.entry else _class_in(_module(found), found)
    except PluginUnusable:
        raise
    except (Exception, SystemExit) as error:
        raise PluginUnusable(
            found.name, f"{found.where} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    return _checked(loaded, found)


def _installed() -> Iterator[Found]:
    names: dict[str, str] = {}
    for entry in metadata.entry_points(group=GROUP):
        package = entry.dist.name if entry.dist else ""
        version = entry.dist.version if entry.dist else ""
        if entry.name in names and names[entry.name] != entry.value:
            log.warning("plugin_twice", extra={"plugin": entry.name, "ignored": package})
        elif entry.name not in names and _usable_name(entry.name):
            names[entry.name] = entry.value
            yield Found(entry.name, entry.value, "", package, version, f"{package} {version}")


def _in_folder(folder: Path) -> Iterator[Found]:
    try:
        inside = sorted(folder.iterdir())
    except OSError:
        return
    for path in inside:
        whole = path.is_dir() and (path / "__init__.py").is_file()
        if path.name[:1] in "_." or not (whole or (path.suffix == ".py" and path.is_file())):
            continue
        name = path.name if whole else path.stem
        if _usable_name(name):
            yield Found(name, path=str(path.absolute()), fingerprint=_fingerprint(path))


def _usable_name(name: str) -> bool:
    if _NAME.fullmatch(name):
        return True
    log.warning("plugin_name_unusable", extra={"plugin": name})
    return False


def _fingerprint(path: Path) -> str:
    """Of all code below; empty where it cannot be read, which importing will say."""
    digest = hashlib.sha256()
    try:
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(str(file).encode() + b"\0" + file.read_bytes())
    except OSError:
        return ""
    return digest.hexdigest()[:16]


def _entry(found: Found) -> Any:
    return metadata.EntryPoint(found.name, found.entry, GROUP).load()


def _module(found: Found) -> ModuleType:
    """The module under a name that shadows nothing; helpers beside it can be imported."""
    path = Path(found.path)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    name = "vqmon_plugin_" + found.name.replace("-", "_")
    inside = [str(path)] if path.is_dir() else None
    file = path / "__init__.py" if inside else path
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=inside)
    if spec is None or spec.loader is None:
        raise PluginUnusable(found.name, f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _class_in(module: ModuleType, found: Found) -> Any:
    """The one class of a file that is a plugin and is not merely imported there."""
    own = [
        it
        for it in vars(module).values()
        if isinstance(it, type)
        and issubclass(it, Plugin)
        and (it.__module__ == module.__name__ or it.__module__.startswith(f"{module.__name__}."))
    ]
    classes = list(dict.fromkeys(own))
    leaves = [it for it in classes if not any(it in other.__mro__[1:] for other in classes)]
    if len(leaves) == 1:
        return leaves[0]
    names = ", ".join(it.__name__ for it in leaves)
    wrong = f"has several plugins ({names}); keep one" if leaves else "has no subclass of Plugin"
    raise PluginUnusable(found.name, f"{found.where} {wrong}")


def _checked(loaded: Any, found: Found) -> type[Plugin]:
    from pydantic import BaseModel

    if not (isinstance(loaded, type) and issubclass(loaded, Plugin)):
        raise PluginUnusable(found.name, f"{found.where}: {found.entry} is no subclass of Plugin")
    settings = loaded.Settings
    if settings is None:
        return loaded
    if not (isinstance(settings, type) and issubclass(settings, BaseModel)):
        raise PluginUnusable(
            found.name, f"{loaded.__name__}.Settings is no pydantic model; derive it from BaseModel"
        )
    taken = [key for key in OWN_KEYS if key in written_keys(settings.model_fields)]
    if taken:
        raise PluginUnusable(
            found.name,
            f"{loaded.__name__}.Settings has {taken[0]!r}, which is vqmon's own; rename it",
        )
    return loaded


def written_keys(known: Mapping[str, Any]) -> list[str]:
    """The keys of a pydantic model as they are written."""
    return [field.alias or name for name, field in known.items()]
