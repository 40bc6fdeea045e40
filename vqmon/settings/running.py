"""What the daemon itself runs with: its model, its processes, what it keeps and what it logs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from vqmon.settings.fields import (
    DAY,
    HOUR,
    SECOND,
    Bytes,
    Device,
    Seconds,
    Section,
    beside_the_file,
)


class ScorerSettings(Section):
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
        folder = beside_the_file(Path(model), info)
        return str(folder) if folder.is_dir() or "/" in model else model


class IngestSettings(Section):
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
    max_memory: Annotated[int, Bytes(256 * 1000**2)] = Field(
        2 * 1000**3, description="An ingest process that grows beyond this is replaced."
    )


class VisitSettings(Section):
    """Visits of streams that have a `schedule`."""

    max_concurrent_visits: int = Field(
        16, ge=1, le=1000, description="Visits under way at once; the others wait their turn."
    )
    misfire_grace: Annotated[float, Seconds(SECOND, HOUR)] = Field(
        30.0,
        validate_default=True,
        description="A visit that could not start within this time is recorded as missed.",
    )


class RetentionSettings(Section):
    """How long things are kept."""

    segments: Annotated[float, Seconds(HOUR, 3650 * DAY)] = Field(
        7 * DAY, description="Age at which segments and their pictures are deleted."
    )
    rollups: Annotated[float, Seconds(DAY, 36500 * DAY)] = Field(
        400 * DAY, description="Age at which minute and hour summaries are deleted."
    )
    max_size: Annotated[int, Bytes(10 * 1000**2)] | None = Field(
        None,
        description="Most that database and pictures may take together; the oldest go first. "
        "None has no limit.",
    )
    max_pictures: Annotated[int, Bytes(10 * 1000**2)] | None = Field(
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


class LoggingSettings(Section):
    """Log lines, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least important lines that are written."
    )
    format: Literal["text", "json"] = Field(
        "text", description="`text` for people, `json` with one object a line for machines."
    )
