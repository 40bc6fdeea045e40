"""What an operator can say: every setting with its default, limits and description.

A setting is a field here and nowhere else; `docs/reference.md` lists them all and a test
compares. Settings come from `vqmon.config.load`. Streams are complete: what a stream does not
say itself has been filled in from `defaults` and `evidence`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError, core_schema

from vqmon.alerting import CONDITIONS, RULES, Rule, Window
from vqmon.alerting.own import OWN
from vqmon.alerting.quiet import cron
from vqmon.alerting.rules import default_clear_limit, default_limit, faults
from vqmon.domain import Schedule, Stream
from vqmon.errors import ConfigError
from vqmon.notifying import Target
from vqmon.quantities import (
    DURATION_PATTERN,
    SIZE_PATTERN,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

_SECOND, _MINUTE, _HOUR, _DAY = 1.0, 60.0, 3600.0, 86400.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)
OWN_RULES = ("configuration", "storage_low")
"""Names of alerts about vqmon itself, whose stream is `OWN`."""

_HEADER = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}", re.ASCII)
_OWN_HEADERS = ("host", "content-length", "content-type", "transfer-encoding", "connection")
_DATABASES = ("sqlite", "postgresql", "postgres", "postgresql+psycopg")


@dataclass(frozen=True, slots=True)
class _Seconds:
    """Marks a field of seconds, written with a unit and held between two limits."""

    low: float
    high: float

    def __get_pydantic_core_schema__(
        self, _type: object, _handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.read,
            serialization=core_schema.plain_serializer_function_ser_schema(
                format_duration, when_used="json"
            ),
        )

    def __get_pydantic_json_schema__(
        self, _schema: core_schema.CoreSchema, _handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string", "pattern": DURATION_PATTERN}

    def read(self, value: object) -> float:
        seconds = _quantity(value, parse_duration)
        if not self.low <= seconds <= self.high:
            raise ValueError(
                f"must be between {format_duration(self.low)} and {format_duration(self.high)}"
            )
        return seconds


@dataclass(frozen=True, slots=True)
class _Bytes:
    """Marks a field of bytes, written with a unit."""

    low: int

    def __get_pydantic_core_schema__(
        self, _type: object, _handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.read,
            serialization=core_schema.plain_serializer_function_ser_schema(
                format_size, when_used="json"
            ),
        )

    def __get_pydantic_json_schema__(
        self, _schema: core_schema.CoreSchema, _handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string", "pattern": SIZE_PATTERN}

    def read(self, value: object) -> int:
        count = int(_quantity(value, parse_size))
        if count < self.low:
            raise ValueError(f"must be at least {format_size(self.low)}")
        return count


def _quantity(value: object, parse: Callable[[str], float]) -> float:
    """A text from a file is parsed; a number can only come from a program, in base units."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return float(parse(str(value)))


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(
            "names become folder names and labels: use 1 to 64 letters, digits, '.', '_' or '-', "
            "beginning with a letter or digit"
        )
    return name


def _checked_label(name: str) -> str:
    if not _LABEL.fullmatch(name):
        raise ValueError("label names are letters, digits and '_', not beginning with a digit")
    return name


def _checked_device(device: str) -> str:
    if not re.fullmatch(r"cpu|cuda(:[0-9]+)?", device):
        raise ValueError("must be cpu, cuda, or cuda:N for the GPU of that number")
    return device


def _beside_the_file(value: Path, info: ValidationInfo) -> Path:
    """Relative paths count from the configuration's folder, so that it works from anywhere."""
    folder = (info.context or {}).get("folder") or Path.cwd()
    return Path(folder, value.expanduser()).absolute()


Name = Annotated[str, AfterValidator(_checked_name)]
Label = Annotated[str, AfterValidator(_checked_label)]
LabelValue = Annotated[str, Field(max_length=200)]
FilePath = Annotated[Path, AfterValidator(_beside_the_file)]
Device = Annotated[str, AfterValidator(_checked_device)]
Expectation = Literal["still_pictures", "no_audio", "letterbox"]


class _Section(BaseModel):
    """What all sections share: unknown keys refused, nothing changes after reading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _an_empty_value_is_an_absent_one(cls, data: Any) -> Any:
        """So that a key whose lines are all commented out does no harm."""
        if not isinstance(data, dict):
            return data
        return {key: value for key, value in data.items() if not _left_empty(cls, key, value)}


def _left_empty(section: type[BaseModel], key: str, value: object) -> bool:
    known = section.model_fields.get(key)
    return value is None and known is not None and known.get_default() is not None


class ScorerSettings(_Section):
    """The quality model and what it runs on."""

    model: str | None = Field(
        None,
        description="Folder of the model (ONNX and card.json), or the name of a shipped one; "
        "none is the usual shipped one.",
    )
    device: Device = Field(
        "cpu",
        description="What the model runs on: `cpu`, `cuda` or `cuda:N`; CUDA needs `vqmon[gpu]`.",
    )
    threads: int = Field(
        1, ge=1, le=64, description="Processor threads of the scoring process, with `cpu`."
    )

    @field_validator("model")
    @classmethod
    def _a_folder_or_a_name(cls, model: str | None, info: ValidationInfo) -> str | None:
        if model is None or model.startswith("shared:"):
            return model
        folder = _beside_the_file(Path(model), info)
        return str(folder) if folder.is_dir() or "/" in model else model


class IngestSettings(_Section):
    """The processes that read and decode streams."""

    streams_per_process: int = Field(
        8, ge=1, le=64, description="Streams that one ingest process watches."
    )
    burst_cpu: float = Field(
        0.15,
        ge=0,
        le=4,
        description="Processor cores that one ingest process may spend on looking closer at "
        "suspicious streams; 0 never looks closer.",
    )
    max_memory: Annotated[int, _Bytes(256 * 1000**2)] = Field(
        2 * 1000**3, description="An ingest process that grows beyond this is replaced."
    )


class VisitSettings(_Section):
    """Visits of streams that have a `schedule`."""

    max_concurrent_visits: int = Field(
        16, ge=1, le=1000, description="Visits under way at once; the others wait their turn."
    )
    misfire_grace: Annotated[float, _Seconds(_SECOND, _HOUR)] = Field(
        30.0,
        validate_default=True,
        description="A visit that could not start within this time is recorded as missed.",
    )


class SamplingSettings(_Section):
    """Which frames are decoded and scored."""

    mode: Literal["keyframes", "every"] = Field(
        "keyframes",
        description="`keyframes` decodes keyframes, and more while something is suspicious; "
        "`every` decodes all frames, about eight times the work.",
    )
    every: Annotated[float, _Seconds(0.1, _HOUR)] = Field(
        2.0, description="Least time between two scored frames."
    )


class ScheduleSettings(_Section):
    """Visit a stream now and then instead of watching it all the time."""

    every: Annotated[float, _Seconds(10 * _SECOND, 7 * _DAY)] = Field(
        description="Time from one visit to the next."
    )
    seconds: Annotated[float, _Seconds(_SECOND, _DAY)] = Field(
        alias="for", description="Length of a visit; shorter than `every`."
    )

    @field_validator("seconds")
    @classmethod
    def _visits_do_not_overlap(cls, seconds: float, info: ValidationInfo) -> float:
        every = info.data.get("every")
        if every is not None and seconds >= every:
            raise ValueError(
                f"must be shorter than `every` ({format_duration(every)}); "
                "remove `schedule` to watch all the time"
            )
        return seconds


class EvidenceSettings(_Section):
    """Pictures kept with segments."""

    thumbnails: bool = Field(
        default=True, description="Keep a small picture (320 pixels wide) of every segment."
    )
    frames: int = Field(
        4,
        ge=0,
        le=16,
        description="Full pictures kept of a segment with findings: its worst moment, the others "
        "evenly spread; 0 keeps none.",
    )
    hourly: bool = Field(
        default=True, description="Keep full pictures once an hour even when nothing is wrong."
    )
    jpeg_quality: int = Field(
        95, ge=50, le=100, description="JPEG quality of full pictures (4:4:4 chroma)."
    )


class StreamDefaults(_Section):
    """What holds for every stream that does not say otherwise."""

    labels: dict[Label, LabelValue] = Field(
        {}, description="Free names and values, shown with the stream."
    )
    sampling: SamplingSettings = Field(
        SamplingSettings(), description="Which frames are decoded and scored."
    )
    segment: Annotated[float, _Seconds(_SECOND, _HOUR)] = Field(
        10.0, description="Length of a segment, the unit of storing and reporting."
    )
    schedule: ScheduleSettings | None = Field(
        None, description="Visits instead of continuous watching; none watches all the time."
    )
    expect: tuple[Expectation, ...] = Field(
        (), description="Content that is legitimate here and raises no finding."
    )
    packet_ring: Annotated[float, _Seconds(0, _HOUR)] = Field(
        0.0,
        description="Keep the last packets of this long on disk, as received, for clips; 0 keeps "
        "none.",
    )


def _checked_condition(on: str) -> str:
    if on not in CONDITIONS:
        near = difflib.get_close_matches(on, CONDITIONS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"is nothing that a rule can be on; {hint}known: {', '.join(CONDITIONS)}")
    return on


class RuleSettings(_Section):
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
    raise_seconds: Annotated[float, _Seconds(0, _DAY)] | None = Field(
        None,
        alias="for",
        description="Watched media with the trouble in it before an alert fires.",
    )
    clear_seconds: Annotated[float, _Seconds(0, _DAY)] | None = Field(
        None,
        alias="clear",
        description="Watched media without trouble after which the alert is resolved.",
    )
    pause: Annotated[float, _Seconds(0, _DAY)] | None = Field(
        None, description="Trouble that stops for no longer than this goes on counting."
    )
    keep_firing_for: Annotated[float, _Seconds(0, _DAY)] | None = Field(
        None, description="Least time from the last trouble to the end of the alert."
    )
    repeat: Annotated[float, _Seconds(0, 365 * _DAY)] | None = Field(
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


def _overlaid(known: Ruled, own: dict[str, RuleSettings]) -> Ruled:
    together = dict(known)
    for name, it in own.items():
        base, was_on = known.get(name, (None, True))
        rule = it.over(name, base)
        together[name] = (rule, was_on if it.enabled is None else it.enabled)
    return together


def _shipped() -> Ruled:
    return {name: (rule, True) for name, rule in RULES.items()}


def _wrong_rules(
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


class MaintenanceSettings(_Section):
    """A time in which alerts are recorded but told to nobody."""

    cron: str | None = Field(
        None,
        description="When it begins, again and again: minute, hour, day, month, weekday, as in "
        "`0 3 * * sun`.",
    )
    seconds: Annotated[float, _Seconds(_SECOND, 31 * _DAY)] | None = Field(
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


class AlertsSettings(_Section):
    """What holds for all alert rules."""

    grace: Annotated[float, _Seconds(0, _HOUR)] = Field(
        60.0,
        description="A stream raises nothing for this long after watching it has begun.",
    )


class StreamSettings(StreamDefaults):
    """One stream to watch."""

    url: str = Field(min_length=1, description="Where the stream is; a path for a file.")
    options: dict[str, str] = Field(
        {}, description="Options of the URL's scheme; `docs/reference.md` lists them."
    )
    evidence: EvidenceSettings = Field(
        EvidenceSettings(), description="Overrides of `evidence` for this stream."
    )
    rules: dict[Name, RuleSettings] = Field(
        {}, description="Rules of this stream alone, key by key over `rules`; `off` switches off."
    )

    @field_validator("url")
    @classmethod
    def _something_that_can_be_opened(cls, url: str, info: ValidationInfo) -> str:
        from vqmon.sources import check_options
        from vqmon.sources.addresses import scheme_of

        try:
            check_options(url, {})
        except ConfigError as error:
            raise ValueError(str(error)) from error
        is_path = scheme_of(url) == "file" and not url.startswith("file:")
        return str(_beside_the_file(Path(url), info)) if is_path else url

    @field_validator("options")
    @classmethod
    def _options_of_the_scheme(
        cls, options: dict[str, str], info: ValidationInfo
    ) -> dict[str, str]:
        if "ca_file" in options:
            options = options | {"ca_file": str(_beside_the_file(Path(options["ca_file"]), info))}
        wrong = dict(_wrong_options(info.data["url"], options)) if "url" in info.data else {}
        if wrong:
            raise PydanticCustomError("options", "{wrong}", {"wrong": wrong})
        return options

    @field_validator("segment")
    @classmethod
    def _a_segment_holds_a_scored_frame(cls, segment: float, info: ValidationInfo) -> float:
        sampling = info.data.get("sampling")
        if sampling is not None and sampling.every > segment:
            raise ValueError(
                f"must be at least `sampling.every` ({format_duration(sampling.every)}), "
                "or segments would have no score"
            )
        return segment


def _wrong_options(url: str, options: dict[str, str]) -> Iterator[tuple[str, str]]:
    from vqmon.sources import check_options

    for name, value in options.items():
        try:
            check_options(url, {name: value})
        except ConfigError as error:
            yield name, str(error)


class RetentionSettings(_Section):
    """How long things are kept."""

    segments: Annotated[float, _Seconds(_HOUR, 3650 * _DAY)] = Field(
        7 * _DAY, description="Age at which segments and their pictures are deleted."
    )
    rollups: Annotated[float, _Seconds(_DAY, 36500 * _DAY)] = Field(
        400 * _DAY, description="Age at which minute and hour summaries are deleted."
    )
    max_size: Annotated[int, _Bytes(10 * 1000**2)] | None = Field(
        None,
        description="Most that database and pictures may take together; the oldest go first. "
        "None has no limit.",
    )
    max_pictures: Annotated[int, _Bytes(10 * 1000**2)] | None = Field(
        20 * 1000**3,
        description="Most that pictures may take; the oldest go first, their segments stay. "
        "None has no limit.",
    )
    min_free_percent: float = Field(
        5.0,
        ge=0,
        le=50,
        description="Below this share of free disk no pictures are written any more.",
    )


class LoggingSettings(_Section):
    """Log lines, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least important lines that are written."
    )
    format: Literal["text", "json"] = Field(
        "text", description="`text` for people, `json` with one object a line for machines."
    )


_ONE_OR_MANY = WithJsonSchema(
    {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
)


class NotifierSettings(_Section):
    """Someone who is told: of alerts, and what plugins have to say."""

    type: Literal["webhook", "alertmanager", "apprise", "log"] = Field(
        description="`webhook` is a signed HTTP POST, `alertmanager` Prometheus' Alertmanager, "
        "`apprise` mail, chat and what else Apprise reaches (`vqmon[notify]`), `log` a log line."
    )
    private: bool = Field(
        default=True,
        description="Whether addresses inside (loopback, private networks, link-local) may be "
        "reached; checked after name resolution, and after every redirect.",
    )
    allow: tuple[str, ...] = Field(
        (),
        description="The only networks and host names that may be reached, as in "
        "[10.20.0.0/16, encoder.example.net, '*.example.net']; empty allows all.",
    )
    url: str = Field(
        "",
        validate_default=True,
        description="Where it is: http:// or https:// for `webhook` and `alertmanager` (without "
        "/api/v2/alerts), any URL of Apprise for `apprise`.",
    )
    secret: Annotated[tuple[str, ...], _ONE_OR_MANY] = Field(
        (),
        description="Key that signs webhooks (24 to 64 bytes in base64, `whsec_` before it or "
        "not), or a list of keys during a change; `openssl rand -base64 32` makes one.",
    )
    headers: dict[str, str] = Field(
        {}, description="Further HTTP headers, as in {Authorization: 'Bearer ${TOKEN}'}."
    )
    redirects: int = Field(
        0, ge=0, le=5, description="Redirects that are followed; each is checked like the first."
    )
    timeout: Annotated[float, _Seconds(0.5, 2 * _MINUTE)] = Field(
        10.0, description="Time for one attempt, from name resolution to the answer."
    )
    ca_file: FilePath | None = Field(
        None, description="Certificates (PEM) of authorities that are trusted besides the usual."
    )
    alerts: bool = Field(
        default=True,
        description="Whether alerts are told; plugins may write to a target either way.",
    )
    streams: tuple[str, ...] = Field(
        (), description="Only alerts of these streams; `*` and `?` match parts, empty is all."
    )
    rules: tuple[str, ...] = Field(
        (), description="Only alerts of these rules; `*` and `?` match parts, empty is all."
    )
    severities: tuple[Literal["info", "warning", "critical"], ...] = Field(
        (), description="Only alerts of these severities; empty is all."
    )
    send_resolved: bool = Field(default=True, description="Whether the end of an alert is told.")
    repeat: bool = Field(default=True, description="Whether it is told again while an alert lasts.")

    @field_validator("secret", mode="before")
    @classmethod
    def _one_is_a_list_of_one(cls, secret: Any) -> Any:
        return (secret,) if isinstance(secret, str) else secret

    @field_validator("allow", "private", "secret", "headers", "redirects", "ca_file")
    @classmethod
    def _means_something_here(cls, value: Any, info: ValidationInfo) -> Any:
        kind = info.data.get("type", "webhook")
        if kind in ("apprise", "log") or (kind == "alertmanager" and info.field_name == "secret"):
            raise ValueError(f"does not apply to `type: {kind}`; remove it")
        return value

    @field_validator("allow")
    @classmethod
    def _networks_or_names(cls, allow: tuple[str, ...]) -> tuple[str, ...]:
        from vqmon.notifiers import check_entry

        for entry in allow:
            check_entry(entry)
        return allow

    @field_validator("url")
    @classmethod
    def _somewhere_to_send_to(cls, url: str, info: ValidationInfo) -> str:
        kind = info.data.get("type")
        if kind is None or (kind == "log" and not url):
            return url
        if kind == "log":
            raise ValueError("does not apply to `type: log`; remove it")
        if not url:
            raise ValueError("is required: where to send to")
        _check_target_url(kind, url, info.data)
        return url

    @field_validator("secret")
    @classmethod
    def _keys_that_can_sign(cls, secret: tuple[str, ...]) -> tuple[str, ...]:
        from vqmon.notifiers import signing

        for one in secret:
            signing.key(one)
        return secret

    @field_validator("headers")
    @classmethod
    def _headers_of_http(cls, headers: dict[str, str]) -> dict[str, str]:
        wrong = dict(_wrong_headers(headers))
        if wrong:
            raise PydanticCustomError("options", "{wrong}", {"wrong": wrong})
        return headers


def _wrong_filter(
    key: str, patterns: tuple[str, ...], known: Iterable[str]
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """A pattern that matches nothing is a misspelling that would never be noticed."""
    names = sorted(known)
    for place, pattern in enumerate(patterns):
        if names and not any(fnmatchcase(name, pattern) for name in names):
            near = difflib.get_close_matches(pattern, names, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            yield (key, place), f"matches none of the {key}; {hint}known: {', '.join(names)}"


def _check_target_url(kind: str, url: str, given: dict[str, Any]) -> None:
    from vqmon.notifiers import Reach, check_url

    if kind == "apprise":
        from vqmon.notifiers.apprise import service

        service(url)
    elif "private" in given and "allow" in given:
        check_url(url, Reach(given["private"], given["allow"]))


def _wrong_headers(headers: dict[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in headers.items():
        if not _HEADER.fullmatch(name):
            yield name, "a header's name has letters, digits and `-` only"
        elif name.lower().startswith("webhook-") or name.lower() in _OWN_HEADERS:
            yield name, "is set by vqmon; remove it"
        elif not value.isascii() or not value.isprintable():
            yield name, "must be printable ASCII in one line"


class PluginSettings(_Section):
    """One plugin. Its own settings stand beside these; the plugin itself says which they are."""

    model_config = ConfigDict(extra="allow")

    enabled: bool = Field(
        default=True, description="Whether it runs; `false` keeps its settings for later."
    )
    memory: Annotated[int, _Bytes(100 * 1000**2)] = Field(
        1000**3, description="A plugin whose process grows beyond this is started again."
    )
    timeout: Annotated[float, _Seconds(_SECOND, _HOUR)] = Field(
        60.0, description="A plugin that takes longer for one call is started again."
    )

    @property
    def own(self) -> dict[str, Any]:
        """What belongs to the plugin itself, as texts of the file."""
        return self.model_extra or {}


class Settings(_Section):
    """The whole configuration, defaults filled in, streams complete."""

    instance: Name = Field(
        "vqmon", description="Name of this daemon; one is active per database and instance."
    )
    data_dir: FilePath = Field(
        Path("vqmon-data"),
        validate_default=True,
        description="Folder of the database (unless elsewhere), pictures and packets.",
    )
    database: str = Field(
        "",
        validate_default=True,
        description="SQLAlchemy URL: sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME; "
        "empty is SQLite in `data_dir`.",
    )
    scorer: ScorerSettings = Field(
        ScorerSettings(), description="The quality model and what it runs on."
    )
    ingest: IngestSettings = Field(
        IngestSettings(), description="The processes that read and decode streams."
    )
    schedule: VisitSettings = Field(
        VisitSettings(), description="Visits of streams that have a `schedule`."
    )
    evidence: EvidenceSettings = Field(
        EvidenceSettings(), description="Pictures kept with segments."
    )
    retention: RetentionSettings = Field(
        RetentionSettings(), description="How long things are kept."
    )
    logging: LoggingSettings = Field(LoggingSettings(), description="Log lines, on standard error.")
    defaults: StreamDefaults = Field(
        StreamDefaults(), description="What holds for every stream that does not say otherwise."
    )
    alerts: AlertsSettings = Field(AlertsSettings(), description="What holds for all alert rules.")
    rules: dict[Name, RuleSettings] = Field(
        {}, description="Alert rules: over those that are shipped, by name, and new ones."
    )
    maintenance: dict[Name, MaintenanceSettings] = Field(
        {}, description="Times in which alerts are recorded but told to nobody, by name."
    )
    streams: dict[Name, StreamSettings] = Field(
        {}, description="What to watch: a name for each stream, and its settings."
    )
    notifiers: dict[Name, NotifierSettings] = Field(
        {}, description="Who is told about alerts: a name for each target, and its settings."
    )
    plugins_dir: FilePath | None = Field(
        None, description="Folder of plugins that are not installed: .py files and packages."
    )
    plugins: dict[Name, PluginSettings] = Field(
        {}, description="What acts on segments and alerts: a name for each plugin, its settings."
    )

    _fingerprint: str = PrivateAttr("")
    _secrets: dict[str, str] = PrivateAttr(default_factory=dict)
    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    @model_validator(mode="before")
    @classmethod
    def _streams_inherit(cls, data: Any) -> Any:
        """Complete every stream from `defaults` and `evidence`, before anything is checked."""
        if not isinstance(data, dict) or not isinstance(data.get("streams"), dict):
            return data
        inherited = _given(data.get("defaults")) | {"evidence": _given(data.get("evidence"))}
        streams = {name: _inherit(inherited, it) for name, it in data["streams"].items()}
        return data | {"streams": streams}

    @field_validator("database")
    @classmethod
    def _a_database_that_lasts(cls, url: str, info: ValidationInfo) -> str:
        scheme, _, rest = url.partition("://")
        if not url:
            return f"sqlite:///{info.data.get('data_dir', Path.cwd())}/vqmon.db"
        if scheme not in _DATABASES:
            raise ValueError("write sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME")
        if scheme != "sqlite":
            return url
        path = rest.removeprefix("/").partition("?")[0]
        if not rest.startswith("/") or path in ("", ":memory:"):
            raise ValueError(
                "name a file, as in sqlite:///vqmon.db; memory would forget everything"
            )
        return f"sqlite:///{_beside_the_file(Path(path), info)}"

    @field_validator("plugins", mode="before")
    @classmethod
    def _a_name_alone_is_enough(cls, plugins: Any) -> Any:
        """`clipper:` runs that plugin with its defaults."""
        if not isinstance(plugins, dict):
            return plugins
        return {name: {} if it is None else it for name, it in plugins.items()}

    @field_validator("notifiers")
    @classmethod
    def _filters_that_let_something_through(
        cls, notifiers: dict[str, NotifierSettings], info: ValidationInfo
    ) -> dict[str, NotifierSettings]:
        if "streams" not in info.data or "rules" not in info.data:  # told already
            return notifiers
        streams = info.data["streams"]
        rules = {*_shipped(), *OWN_RULES, *info.data["rules"]}
        rules = rules.union(*(it.rules for it in streams.values()))
        wrong = {
            (name, *path): message
            for name, it in notifiers.items()
            for path, message in (
                *_wrong_filter("streams", it.streams, [*streams, OWN] if streams else []),
                *_wrong_filter("rules", it.rules, rules),
            )
        }
        if wrong:
            raise PydanticCustomError("options", "{wrong}", {"wrong": wrong})
        return notifiers

    @field_validator("rules")
    @classmethod
    def _rules_that_can_be_meant(cls, rules: dict[str, RuleSettings]) -> dict[str, RuleSettings]:
        wrong = dict(_wrong_rules(_shipped(), rules))
        if wrong:
            raise PydanticCustomError("options", "{wrong}", {"wrong": wrong})
        return rules

    @field_validator("streams")
    @classmethod
    def _rules_of_streams_too(
        cls, streams: dict[str, StreamSettings], info: ValidationInfo
    ) -> dict[str, StreamSettings]:
        if "rules" not in info.data:  # told already
            return streams
        known = _overlaid(_shipped(), info.data["rules"])
        wrong = {
            (name, "rules", *path): message
            for name, it in streams.items()
            for path, message in _wrong_rules(known, it.rules)
        }
        if wrong:
            raise PydanticCustomError("options", "{wrong}", {"wrong": wrong})
        return streams

    @property
    def database_file(self) -> Path | None:
        """Where SQLite's file is, or will be; None for a server."""
        path = self.database.partition("?")[0].removeprefix("sqlite:///")
        return Path(path) if self.database.startswith("sqlite:") else None

    @property
    def evidence_dir(self) -> Path:
        """Root of the paths in `Segment.thumbnail` and `Segment.evidence`."""
        return self.data_dir / "evidence"

    @property
    def packets_dir(self) -> Path:
        """Rings of the last packets, for streams with `packet_ring`."""
        return self.data_dir / "packets"

    @property
    def fingerprint(self) -> str:
        """Of the file as it was read; compare with `config.fingerprint` to notice a change."""
        return self._fingerprint

    @property
    def secrets(self) -> dict[str, str]:
        """Texts that came through ``${...}``, and the placeholders to show in their place."""
        return self._secrets

    @property
    def folder(self) -> Path:
        """Of the configuration: what relative paths in it count from."""
        return self._folder

    def came_from(self, fingerprint: str, secrets: dict[str, str], folder: Path) -> None:
        """Remember the origin; called once, by whoever read the file."""
        self._fingerprint = fingerprint
        self._secrets = secrets
        self._folder = folder

    def stream(self, name: str) -> Stream:
        """What the pipeline needs to know of one stream."""
        it = self.streams[name]
        visits = it.schedule
        return Stream(
            name=name,
            url=it.url,
            labels=it.labels,
            sampling=it.sampling.mode,
            sample_every=it.sampling.every,
            segment_seconds=it.segment,
            schedule=Schedule(visits.every, visits.seconds) if visits else None,
            expect=frozenset(it.expect),
            options=it.options,
            packet_ring_seconds=it.packet_ring,
        )

    def rules_of(self, name: str) -> dict[str, Rule]:
        """The alert rules of one stream that are on, shipped ones included."""
        ruled = _overlaid(_shipped(), self.rules)
        if name in self.streams:
            ruled = _overlaid(ruled, self.streams[name].rules)
        return {it: rule for it, (rule, is_on) in ruled.items() if is_on}

    def windows(self) -> list[Window]:
        """All times of maintenance."""
        return [it.window(name) for name, it in self.maintenance.items()]

    def target(self, name: str) -> Target:
        """What delivering needs to know of one notifier."""
        it = self.notifiers[name]
        return Target(
            name=name,
            type=it.type,
            url=it.url,
            secrets=it.secret,
            headers=it.headers,
            private=it.private,
            allow=it.allow,
            redirects=it.redirects,
            timeout=it.timeout,
            ca_file=it.ca_file,
            alerts=it.alerts,
            streams=it.streams,
            rules=it.rules,
            severities=it.severities,
            send_resolved=it.send_resolved,
            repeat=it.repeat,
        )

    def targets(self) -> list[Target]:
        """All notifiers, in the order of the file."""
        return [self.target(name) for name in self.notifiers]

    def domain_streams(self) -> list[Stream]:
        """All streams, in the order of the file."""
        return [self.stream(name) for name in self.streams]


def _given(section: Any) -> dict[str, Any]:
    return {k: v for k, v in section.items() if v is not None} if isinstance(section, dict) else {}


def _inherit(inherited: dict[str, Any], own: Any) -> Any:
    """A stream's own keys over the inherited ones; labels, sampling and evidence key by key."""
    if not isinstance(own, dict):
        return own
    together = dict(inherited)
    for key, value in own.items():
        if key in ("labels", "sampling", "evidence") and isinstance(value, dict):
            together[key] = _given(inherited.get(key)) | value
        elif value is not None or key not in inherited or key == "schedule":
            together[key] = value
    return together
