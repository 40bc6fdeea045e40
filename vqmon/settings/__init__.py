"""What an operator can say: every setting with its default, limits and description.

A setting is a field here and nowhere else; `docs/reference.md` lists them all and a test
compares. Settings come from `vqmon.config.load`. Streams are complete: what a stream does not
say itself has been filled in from `defaults` and `evidence`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from vqmon.alerting import Rule, Window
from vqmon.alerting.own import OWN, OWN_RULES
from vqmon.domain import Schedule, Stream
from vqmon.notifying import Target
from vqmon.settings.fields import FilePath, Name, Section, beside_the_file
from vqmon.settings.notifiers import NotifierSettings, wrong_filter
from vqmon.settings.plugins import PluginSettings
from vqmon.settings.rules import (
    AlertsSettings,
    MaintenanceSettings,
    RuleSettings,
    overlaid,
    shipped,
    wrong_rules,
)
from vqmon.settings.running import (
    IngestSettings,
    LoggingSettings,
    RetentionSettings,
    ScorerSettings,
    VisitSettings,
)
from vqmon.settings.serving import HttpSettings
from vqmon.settings.watching import (
    EvidenceSettings,
    Expectation,
    SamplingSettings,
    ScheduleSettings,
    StreamDefaults,
    StreamSettings,
)
from vqmon.settings.writer import WriterSettings

__all__ = [
    "OWN_RULES",
    "AlertsSettings",
    "EvidenceSettings",
    "Expectation",
    "HttpSettings",
    "IngestSettings",
    "LoggingSettings",
    "MaintenanceSettings",
    "NotifierSettings",
    "PluginSettings",
    "RetentionSettings",
    "RuleSettings",
    "SamplingSettings",
    "ScheduleSettings",
    "ScorerSettings",
    "Settings",
    "StreamDefaults",
    "StreamSettings",
    "VisitSettings",
    "WriterSettings",
]

_DATABASES = ("sqlite", "postgresql", "postgres", "postgresql+psycopg")


class Settings(Section):
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
    http: HttpSettings = Field(HttpSettings(), description="Health and metrics over HTTP.")
    scorer: ScorerSettings = Field(
        ScorerSettings(), description="The quality model and what it runs on."
    )
    writer: WriterSettings = Field(
        WriterSettings(), description="The large model that is asked for words where it pays."
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
        return f"sqlite:///{beside_the_file(Path(path), info)}"

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
        rules = {*shipped(), *OWN_RULES, *info.data["rules"]}
        rules = rules.union(*(it.rules for it in streams.values()))
        wrong = {
            (name, *path): message
            for name, it in notifiers.items()
            for path, message in (
                *wrong_filter("streams", it.streams, [*streams, OWN] if streams else []),
                *wrong_filter("rules", it.rules, rules),
            )
        }
        if wrong:
            raise PydanticCustomError("options", "{wrong}", {"wrong": wrong})
        return notifiers

    @field_validator("rules")
    @classmethod
    def _rules_that_can_be_meant(cls, rules: dict[str, RuleSettings]) -> dict[str, RuleSettings]:
        wrong = dict(wrong_rules(shipped(), rules))
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
        known = overlaid(shipped(), info.data["rules"])
        wrong = {
            (name, "rules", *path): message
            for name, it in streams.items()
            for path, message in wrong_rules(known, it.rules)
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
        ruled = overlaid(shipped(), self.rules)
        if name in self.streams:
            ruled = overlaid(ruled, self.streams[name].rules)
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
