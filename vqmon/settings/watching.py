"""What is watched, which frames of it are looked at, and which pictures are kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from vqmon.errors import ConfigError
from vqmon.quantities import format_duration
from vqmon.settings.fields import (
    DAY,
    HOUR,
    SECOND,
    Label,
    LabelValue,
    Name,
    Seconds,
    Section,
    beside_the_file,
)
from vqmon.settings.rules import RuleSettings

Expectation = Literal["still_pictures", "no_audio", "letterbox"]


class SamplingSettings(Section):
    """Which frames are decoded and scored."""

    mode: Literal["keyframes", "every"] = Field(
        "keyframes",
        description="`keyframes` decodes keyframes, and more while something is suspicious; "
        "`every` decodes all frames, about eight times the work.",
    )
    every: Annotated[float, Seconds(0.1, HOUR)] = Field(
        2.0, description="Least time between two scored frames."
    )


class ScheduleSettings(Section):
    """Visit a stream now and then instead of watching it all the time."""

    every: Annotated[float, Seconds(10 * SECOND, 7 * DAY)] = Field(
        description="Time from one visit to the next."
    )
    seconds: Annotated[float, Seconds(SECOND, DAY)] = Field(
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


class EvidenceSettings(Section):
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


class StreamDefaults(Section):
    """What holds for every stream that does not say otherwise."""

    labels: dict[Label, LabelValue] = Field(
        {}, description="Free names and values, shown with the stream."
    )
    sampling: SamplingSettings = Field(
        SamplingSettings(), description="Which frames are decoded and scored."
    )
    segment: Annotated[float, Seconds(SECOND, HOUR)] = Field(
        10.0, description="Length of a segment, the unit of storing and reporting."
    )
    schedule: ScheduleSettings | None = Field(
        None, description="Visits instead of continuous watching; none watches all the time."
    )
    expect: tuple[Expectation, ...] = Field(
        (), description="Content that is legitimate here and raises no finding."
    )
    packet_ring: Annotated[float, Seconds(0, HOUR)] = Field(
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
        return str(beside_the_file(Path(url), info)) if is_path else url

    @field_validator("options")
    @classmethod
    def _options_of_the_scheme(
        cls, options: dict[str, str], info: ValidationInfo
    ) -> dict[str, str]:
        if "ca_file" in options:
            options = options | {"ca_file": str(beside_the_file(Path(options["ca_file"]), info))}
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
