"""What an operator can say about this plugin, under `plugins: enhancement:`."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from vqmon import parse_duration, parse_size
from vqmon_enhancement.remedies import MENDS


def _seconds(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def _bytes(value: object) -> object:
    return parse_size(value) if isinstance(value, str) else value


def _mendable(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in MENDS:
            raise ValueError(f"{name!r} is nothing that filters mend; they mend {', '.join(MENDS)}")
    return names


Seconds = Annotated[float, BeforeValidator(_seconds)]
Bytes = Annotated[int, BeforeValidator(_bytes)]


class EnhancementSettings(BaseModel):
    """Everything under `plugins: enhancement:`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    streams: tuple[str, ...] = Field(
        (), description="Names of the streams to enhance; none means all with a packet ring."
    )
    findings: Annotated[tuple[str, ...], AfterValidator(_mendable)] = Field(
        tuple(MENDS), description="Findings that make a segment worth it."
    )
    min_severity: int = Field(3, ge=1, le=5, description="Of such a finding.")
    min_confidence: float = Field(0.5, ge=0, le=1, description="Of such a finding.")
    min_seconds: Seconds = Field(
        2.0, ge=0, le=3600, description="How long the finding must last within the segment."
    )
    per_hour: int = Field(6, ge=1, le=1000, description="Segments worked on in an hour, at most.")
    budget: Seconds = Field(
        60.0, ge=1, le=3600, description="Time to search for the best filters of one segment."
    )
    slowest: float = Field(
        30.0,
        gt=0,
        le=1000,
        description="Seconds of work that one second of media may cost; slower filters are out.",
    )
    certainty: float = Field(
        0.8, ge=0.5, lt=1, description="How certain the model must be of the improvement."
    )
    min_gain: float = Field(1.0, ge=0, le=50, description="Points of quality to be won.")
    keep: Bytes = Field(
        10**9, ge=10**6, description="Disk space for kept clips; the oldest go first."
    )
