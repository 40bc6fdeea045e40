"""What an operator can say about this plugin, under `plugins: adaptive_encoding:`."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)

from vqmon import parse_duration
from vqmon_adaptive_encoding.ladder import Level

Mode = Literal["observe", "act"]


def _seconds(value: object) -> object:
    """`30s`, `10m`; a number comes only from a program and is seconds."""
    return parse_duration(value) if isinstance(value, str) else value


def _http(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must begin with http:// or https:// and name a host")
    return url.rstrip("/")


Seconds = Annotated[float, BeforeValidator(_seconds)]
Address = Annotated[str, AfterValidator(_http)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class WebhookSettings(_Section):
    """A notifier of the configuration: signed, retried, kept over a crash."""

    type: Literal["webhook"]
    notifier: str = Field(description="Name under `notifiers:`.")


class GStreamerSettings(_Section):
    """The encoder program of this package, which changes its bitrate while it runs."""

    type: Literal["gstreamer"]
    socket: Path = Field(description="Its control socket.")


class MediaMTXSettings(_Section):
    """A Raspberry Pi camera behind MediaMTX, through its Control API."""

    type: Literal["mediamtx"]
    url: Address = Field(description="Address of the Control API, as `http://10.0.0.9:9997`.")
    path: str = Field(min_length=1, description="Name of the path that the camera publishes.")
    user: str | None = None
    password: SecretStr | None = None


class FFmpegSettings(_Section):
    """An ffmpeg process, which must be restarted to change: only ever a proposal."""

    type: Literal["ffmpeg"]
    codec: Literal["libx264", "libx265"] = "libx264"
    notifier: str | None = Field(None, description="Notifier that tells the operator, if any.")


class ProposalSettings(_Section):
    """Any other encoder that a person must change: only ever a proposal."""

    type: Literal["proposal"]
    notifier: str | None = Field(None, description="Notifier that tells the operator, if any.")


TargetSettings = Annotated[
    WebhookSettings | GStreamerSettings | MediaMTXSettings | FFmpegSettings | ProposalSettings,
    Field(discriminator="type"),
]


class RungSettings(_Section):
    """One rung of the ladder."""

    quality: float = Field(ge=1, le=10, description="What the encoder aims at, 1 to 10.")
    cap_kbps: int = Field(ge=50, le=500_000, description="What it must not exceed, kb/s.")


class StreamSettings(_Section):
    """One stream whose encoder may be asked."""

    target: TargetSettings
    ladder: Annotated[tuple[RungSettings, ...], Field(min_length=2, max_length=20)]
    cap_kbps: int = Field(
        ge=50, le=1_000_000, description="What the link bears; a stream that reaches it goes back."
    )
    base: float | None = Field(
        None, description="Quality of the rung at which the encoder runs; none is the lowest."
    )
    mode: Mode | None = Field(None, description="For this stream alone.")

    @property
    def levels(self) -> tuple[Level, ...]:
        return tuple(Level(rung.quality, rung.cap_kbps) for rung in self.ladder)

    @property
    def base_level(self) -> Level:
        if self.base is None:
            return self.levels[0]
        return next(level for level in self.levels if level.quality == self.base)

    @model_validator(mode="after")
    def _rises_and_stays_under_the_cap(self) -> StreamSettings:
        for low, high in pairwise(self.levels):
            if not (low.quality < high.quality and low.cap_kbps < high.cap_kbps):
                raise ValueError(f"the ladder must rise: {high} does not follow {low}")
        if self.levels[-1].cap_kbps >= self.cap_kbps:
            raise ValueError(
                f"the top rung ({self.levels[-1]}) must stay under cap_kbps ({self.cap_kbps}): "
                "leave room for sound and multiplexing"
            )
        if self.base is not None and self.base not in {level.quality for level in self.levels}:
            raise ValueError(f"base {self.base:g} is the quality of no rung")
        return self


class Rules(_Section):
    """When to act, and when to take it back. All times as `30s`, `10m`, `1h`."""

    min_severity: int = Field(2, ge=1, le=5, description="Of a finding that counts.")
    min_confidence: float = Field(0.5, ge=0, le=1, description="Of a finding that counts.")
    sustained: Seconds = Field(
        30.0, ge=1, le=3600, description="Watched seconds that a fault must last, without a break."
    )
    cooldown: Seconds = Field(
        600.0, ge=60, le=86_400, description="Least time after a change has been judged."
    )
    settle: Seconds = Field(
        20.0,
        ge=0,
        le=600,
        description="Segments that begin sooner after a request say nothing about it.",
    )
    verify_segments: int = Field(
        3, ge=1, le=20, description="Scored segments needed before and after, to judge."
    )
    verify_within: Seconds = Field(
        600.0, ge=30, le=7200, description="Later than this, what could not be judged goes back."
    )
    min_gain: float = Field(
        1.0, ge=0, le=50, description="Points of quality that count as an improvement."
    )
    recover_after: Seconds = Field(
        180.0, ge=180, le=86_400, description="Clean time until a stream counts as recovered."
    )
    hold: Seconds = Field(
        1800.0, ge=180, le=604_800, description="Clean time until a raised level is lowered again."
    )


class AdaptiveEncodingSettings(_Section):
    """Everything under `plugins: adaptive_encoding:`."""

    mode: Mode = Field("observe", description="`observe` only records; `act` asks encoders.")
    rules: Rules = Rules()
    streams: dict[str, StreamSettings] = Field(
        default_factory=dict, description="By the names of the streams in the configuration."
    )

    def mode_of(self, stream: str) -> Mode:
        return self.streams[stream].mode or self.mode
