"""What happened in the closed loop, chapter by chapter, from what is stored and what was heard. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from vqmon.domain import Alert, Decision

VERDICTS = ("keep", "roll_back")


@dataclass(frozen=True, slots=True)
class Chapter:
    """at: UTC. word: harder, raised, asked, heard, verified or cleared. key: another one each time."""

    at: datetime
    word: str
    text: str
    key: str


@dataclass(frozen=True, slots=True)
class Story:
    """What is known so far.

    harder_at: when the content got harder, None while it has not. alerts, decisions: of the one
    stream, in any order. heard: what the encoder says it was asked for, with `at` (ISO 8601).
    """

    harder_at: datetime | None = None
    alerts: Sequence[Alert] = ()
    decisions: Sequence[Decision] = ()
    heard: Sequence[Mapping[str, Any]] = ()

    def chapters(self) -> list[Chapter]:
        """In the order of time."""
        return sorted(self._chapters(), key=lambda it: it.at)

    def has(self, *words: str) -> bool:
        """Whether there is a chapter of each of these words."""
        return set(words) <= {it.word for it in self._chapters()}

    @property
    def closed(self) -> bool:
        """The loop is closed: the change was kept, and what raised alerts is over."""
        kept = any(it.kind == "keep" for it in self.decisions)
        return kept and bool(self.alerts) and not any(it.firing for it in self.alerts)

    def _chapters(self) -> Iterator[Chapter]:
        if self.harder_at:
            yield Chapter(self.harder_at, "harder", "The camera begins to turn fast.", "harder")
        for alert in self.alerts:
            yield Chapter(alert.opened_at, "raised", alert.reason, f"{alert.id} opened")
            if alert.closed_at:
                yield Chapter(alert.closed_at, "cleared", alert.cleared, f"{alert.id} closed")
        for decision in self.decisions:
            if word := _word(decision.kind):
                yield Chapter(decision.at, word, _sentence(decision.reason), decision.id)
        for number, command in enumerate(self.heard):
            at = datetime.fromisoformat(command["at"])
            yield Chapter(at, "heard", _answer(command), f"heard {number}")


def _word(kind: str) -> str | None:
    if kind in VERDICTS:
        return "verified"
    return {"raise": "asked", "wait": "waits", "observe": "observes"}.get(kind)


def _answer(command: Mapping[str, Any]) -> str:
    level = f"quality {command['quality']:g} under {command['cap_kbps']} kb/s"
    return f"The encoder was asked, by a signed webhook, for {level}."


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "." * (not text.endswith("."))


def line(chapter: Chapter) -> str:
    """On one line, times in UTC."""
    return f"{chapter.at:%H:%M:%S}  {chapter.word:9} {chapter.text}"


MISSING = {
    "raised": "no alert was raised",
    "asked": "the plugin did not ask for more",
    "heard": "the encoder heard nothing",
    "verified": "the change was not judged",
    "cleared": "the alert was not cleared",
}


def verdict(story: Story) -> str:
    """Whether the loop was closed, honestly, in a sentence."""
    if story.closed:
        return "The loop is closed: raised, asked, verified, kept, cleared."
    missing = [told for word, told in MISSING.items() if not story.has(word)]
    if any(it.kind == "roll_back" for it in story.decisions):
        missing.append("the change was taken back")
    return f"The loop was not closed: {', '.join(missing) or 'the alert still fires'}."
