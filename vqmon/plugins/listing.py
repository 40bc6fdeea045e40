"""What `vqmon plugins` tells: which there are, whether they could run, what they last decided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vqmon.domain import Decision
from vqmon.plugins.checking import Checked, Wanted, check, missing
from vqmon.plugins.finding import Found, find
from vqmon.plugins.validating import dotted
from vqmon.settings import PluginSettings, Settings

DECISIONS = 5
"""The newest so many of each plugin."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One plugin. found: None for one that is configured and not there.

    settings: what the configuration says of it, None when it does not name it.
    decisions: the newest, oldest first.
    """

    name: str
    found: Found | None
    settings: PluginSettings | None
    checked: Checked
    decisions: Sequence[Decision] = ()

    @property
    def state(self) -> str:
        """enabled, disabled, not configured, wrong settings, unusable or missing."""
        if self.found is None:
            return "missing"
        if self.checked.unusable:
            return "unusable"
        if self.checked.mistakes:
            return "wrong settings"
        if self.settings is None:
            return "not configured"
        return "enabled" if self.settings.enabled else "disabled"

    @property
    def wrong(self) -> bool:
        """Whether it is enabled and cannot run."""
        enabled = self.settings is not None and self.settings.enabled
        return enabled and self.state in ("missing", "unusable", "wrong settings")


def listed(settings: Settings, decided: Callable[[str, int], Sequence[Decision]]) -> list[Listed]:
    """All plugins, by name; each is imported in a process of its own to see whether it can be.

    decided: the newest decisions of a plugin, at most so many.
    """
    known = find(settings.plugins_dir)
    fresh = PluginSettings()
    wanted = {}
    for name, found in known.items():
        it = settings.plugins.get(name)
        wanted[name] = Wanted(found, it.own if it else None, (it or fresh).memory)
    checked = check(wanted, settings.folder)
    return [
        Listed(
            name,
            known.get(name),
            settings.plugins.get(name),
            checked[name] if name in checked else Checked((missing(name, known),)),
            decided(name, DECISIONS),
        )
        for name in sorted({*known, *settings.plugins})
    ]


def problems(it: Listed) -> list[str]:
    """What is wrong with it, a line each."""
    mistakes = [": ".join(filter(None, [dotted(m.path), m.message])) for m in it.checked.mistakes]
    return [*filter(None, [it.checked.unusable]), *mistakes]


def as_json(it: Listed) -> dict[str, Any]:
    """What `vqmon plugins --json` prints of one plugin."""
    return {
        "name": it.name,
        "state": it.state,
        "version": it.found.version or None if it.found else None,
        "from": it.found.where if it.found else None,
        "title": it.checked.title,
        "problems": problems(it),
        "decisions": [
            {
                "id": one.id,
                "at": one.at.isoformat(),
                "stream": one.stream,
                "kind": one.kind,
                "reason": one.reason,
                "data": dict(one.data),
                "segment": one.segment,
                "alert": one.alert,
            }
            for one in it.decisions
        ],
    }
