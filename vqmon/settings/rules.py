"""Alert rules as an operator writes them, and the times in which nobody is told."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import core_schema

from vqmon.alerting import CONDITIONS, RULES, Rule, Window
from vqmon.alerting.quiet import cron
from vqmon.alerting.rules import default_clear_limit, default_limit, faults
from vqmon.settings.fields import DAY, HOUR, SECOND, Seconds, Section


def _checked_condition(on: str) -> str:
    if on not in CONDITIONS:
        near = difflib.get_close_matches(on, CONDITIONS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"is nothing that a rule can be on; {hint}known: {', '.join(CONDITIONS)}")
    return on


class RuleSettings(Section):
    """One alert rule: what it says over what is shipped under its name, or over a new rule."""

    on: Annotated[str, AfterValidator(_checked_condition)] | None = Field(
        None,
        description="What it is on: `quality`, `quality_worst`, `quality_drop`, `no_score`, or a "
        "finding; `no_signal` is on a stream that is down too.",
    )
    severity: Literal["info", "warning", "critical"] | None = Field(
        None, description="How urgent its alerts are."
    )
    limit: float | None = Field(
        None,
        description="Raises below this quality, from this drop on (points below the stream's own "
        "baseline), or from this severity of the finding on (1 to 5).",
    )
    clear_limit: float | None = Field(
        None,
        description="Clears from this quality on, below this drop, or below this severity; "
        "between both limits nothing changes.",
    )
    raise_seconds: Annotated[float, Seconds(0, DAY)] | None = Field(
        None,
        alias="for",
        description="Watched media with the trouble in it before an alert fires.",
    )
    clear_seconds: Annotated[float, Seconds(0, DAY)] | None = Field(
        None,
        alias="clear",
        description="Watched media without trouble after which the alert is resolved.",
    )
    pause: Annotated[float, Seconds(0, DAY)] | None = Field(
        None, description="Trouble that stops for no longer than this goes on counting."
    )
    keep_firing_for: Annotated[float, Seconds(0, DAY)] | None = Field(
        None, description="Least time from the last trouble to the end of the alert."
    )
    repeat: Annotated[float, Seconds(0, 365 * DAY)] | None = Field(
        None,
        description="Told again after this time while it fires and nobody has acknowledged it; "
        "0 never.",
    )
    enabled: bool | None = Field(
        None, description="`off` in place of the whole rule switches it off, as `false` here does."
    )

    @model_validator(mode="before")
    @classmethod
    def _off_is_a_rule_switched_off(cls, data: Any) -> Any:
        return {"enabled": "false"} if data in ("off", False) else data

    @model_serializer(mode="wrap")
    def _only_what_it_says(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [handler(schema), {"const": "off"}, {"const": False}]}

    def over(self, name: str, base: Rule | None) -> Rule:
        """The whole rule. Raises ValueError when there is no base and it does not say `on`."""
        on = self.on or (base.on if base else None)
        if on is None:
            near = difflib.get_close_matches(name, RULES, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"is no rule that is shipped, so it needs `on`{hint}")
        if base is None or base.on != on:
            limit = default_limit(on)
            base = Rule(name, on, limit=limit, clear_limit=default_clear_limit(on, limit))
        given = {key: getattr(self, key) for key in _RULE_KEYS}
        given = {key: value for key, value in given.items() if value is not None}
        if "limit" in given and "clear_limit" not in given:
            given["clear_limit"] = default_clear_limit(on, given["limit"])
        return replace(base, name=name, **given)


_RULE_KEYS = (
    "severity",
    "limit",
    "clear_limit",
    "raise_seconds",
    "clear_seconds",
    "pause",
    "keep_firing_for",
    "repeat",
)


Ruled = dict[str, tuple[Rule, bool]]
"""Rules by name, and whether they are on."""


def overlaid(known: Ruled, own: dict[str, RuleSettings]) -> Ruled:
    together = dict(known)
    for name, it in own.items():
        base, was_on = known.get(name, (None, True))
        rule = it.over(name, base)
        together[name] = (rule, was_on if it.enabled is None else it.enabled)
    return together


def shipped() -> Ruled:
    return {name: (rule, True) for name, rule in RULES.items()}


def wrong_rules(
    known: Ruled, own: dict[str, RuleSettings]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """What cannot be meant, by name of the rule and key."""
    for name, it in own.items():
        try:
            rule = it.over(name, known.get(name, (None, True))[0])
        except ValueError as error:
            yield (name,), str(error)
            continue
        for key, message in faults(rule):
            yield (name, key), message


class AlertsSettings(Section):
    """What holds for all alert rules."""

    grace: Annotated[float, Seconds(0, HOUR)] = Field(
        60.0,
        description="A stream raises nothing for this long after watching it has begun.",
    )


class MaintenanceSettings(Section):
    """A time in which alerts are recorded but told to nobody."""

    cron: str | None = Field(
        None,
        description="When it begins, again and again: minute, hour, day, month, weekday, as in "
        "`0 3 * * sun`.",
    )
    seconds: Annotated[float, Seconds(SECOND, 31 * DAY)] | None = Field(
        None, alias="for", description="How long it lasts, with `cron`."
    )
    timezone: str = Field(
        "UTC", description="Zone of `cron`, and of `from` and `until` when they name none."
    )
    begins: datetime | None = Field(
        None, alias="from", description="When it begins, once: 2026-12-01T08:00."
    )
    ends: datetime | None = Field(None, alias="until", description="When it ends, with `from`.")
    streams: tuple[str, ...] = Field(
        (), description="Only these streams; `*` and `?` match parts, empty is all."
    )
    rules: tuple[str, ...] = Field(
        (), description="Only these rules; `*` and `?` match parts, empty is all."
    )

    @field_validator("cron")
    @classmethod
    def _a_line_of_crontab(cls, text: str | None) -> str | None:
        if text is not None:
            cron(text)
        return text

    @field_validator("timezone")
    @classmethod
    def _a_zone_that_is_known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ValueError, OSError, ZoneInfoNotFoundError) as error:
            raise ValueError("is no time zone; write UTC or one like Europe/Berlin") from error
        return name

    @field_validator("begins", "ends")
    @classmethod
    def _in_the_zone(cls, moment: datetime | None, info: ValidationInfo) -> datetime | None:
        if moment is None or moment.tzinfo is not None:
            return moment
        return moment.replace(tzinfo=ZoneInfo(info.data.get("timezone", "UTC")))

    @model_validator(mode="after")
    def _once_or_again_and_again(self) -> Self:
        once = self.begins is not None and self.ends is not None
        again = self.cron is not None and self.seconds is not None
        mixed = (self.begins or self.ends) and (self.cron or self.seconds)
        if mixed or not (once or again):
            raise ValueError("needs `cron` and `for`, or `from` and `until`")
        if self.begins and self.ends and self.begins >= self.ends:
            raise ValueError("its `until` must be later than its `from`")
        return self

    def window(self, name: str) -> Window:
        """As the rules understand it."""
        return Window(
            name,
            begins=self.begins,
            ends=self.ends,
            trigger=cron(self.cron, self.timezone) if self.cron else None,
            seconds=self.seconds or 0.0,
            streams=self.streams,
            rules=self.rules,
        )
