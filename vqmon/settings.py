"""What an operator can say: every setting with its default, limits and description.

A setting is a field here and nowhere else; `docs/reference.md` lists them all and a test
compares. Settings come from `vqmon.config.load`. Streams are complete: what a stream does not
say itself has been filled in from `defaults` and `evidence`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError, core_schema

from vqmon.domain import Schedule, Stream
from vqmon.errors import ConfigError
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


class StreamSettings(StreamDefaults):
    """One stream to watch."""

    url: str = Field(min_length=1, description="Where the stream is; a path for a file.")
    options: dict[str, str] = Field(
        {}, description="Options of the URL's scheme; `docs/reference.md` lists them."
    )
    evidence: EvidenceSettings = Field(
        EvidenceSettings(), description="Overrides of `evidence` for this stream."
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
    streams: dict[Name, StreamSettings] = Field(
        {}, description="What to watch: a name for each stream, and its settings."
    )

    _fingerprint: str = PrivateAttr("")
    _secrets: dict[str, str] = PrivateAttr(default_factory=dict)

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

    def came_from(self, fingerprint: str, secrets: dict[str, str]) -> None:
        """Remember the origin; called once, by whoever read the file."""
        self._fingerprint = fingerprint
        self._secrets = secrets

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
