"""The second, large model: which, on what, when it is asked and how often."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from vqmon.cascade import Policy
from vqmon.domain import ASK_CAUSES, AskCause
from vqmon.settings.fields import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    Device,
    Seconds,
    Section,
    beside_the_file,
)


class WriterSettings(Section):
    """The large model that is asked for words where it pays."""

    model: str | None = Field(
        None,
        description="`writer:NAME` for a checkpoint on this machine (a folder, or a name of the "
        "hub that has been downloaded), `remote:URL#MODEL` for an OpenAI-compatible server; none "
        "asks nobody.",
    )
    token: str | None = Field(
        None,
        description="Token of a `remote:`; none is that in the variable OPENAI_API_KEY, if there "
        "is one.",
    )
    device: Device = Field(
        "cuda", description="What a `writer:` runs on: `cpu`, `cuda` or `cuda:N`."
    )
    threads: int = Field(1, ge=1, le=64, description="Processor threads of a `writer:` on `cpu`.")
    ask_on: tuple[AskCause, ...] = Field(
        ASK_CAUSES,
        description="Some of `alert` (segments that raise one), `low_confidence` (segments whose "
        "score is uncertain) and `demand` (`vqmon explain`).",
    )
    per_hour: int = Field(
        30,
        ge=1,
        le=100_000,
        description="How often the writer may be asked within an hour, failures included; a "
        "quarter is kept for `demand`.",
    )
    uncertainty: float = Field(
        20.0,
        gt=0,
        le=100,
        description="Points of uncertainty from which a segment counts as `low_confidence`.",
    )
    pause: Annotated[float, Seconds(SECOND, 7 * DAY)] = Field(
        HOUR,
        description="From one `low_confidence` question about a stream to the next.",
    )
    timeout: Annotated[float, Seconds(SECOND, HOUR)] = Field(
        2 * MINUTE, description="How long the writer may take for one segment."
    )
    tries: int = Field(
        3, ge=1, le=20, description="Attempts for one segment, further and further apart."
    )
    max_age: Annotated[float, Seconds(MINUTE, 7 * DAY)] = Field(
        6 * HOUR, description="A segment that could not be asked about for so long is given up."
    )
    pictures: int = Field(
        2,
        ge=1,
        le=16,
        description="Pictures of a segment that the writer sees; the worst is first.",
    )

    @field_validator("model")
    @classmethod
    def _one_that_writes(cls, model: str | None, info: ValidationInfo) -> str | None:
        if model is None:
            return None
        kind, colon, place = model.partition(":")
        if kind not in ("writer", "remote") or not colon or not place:
            raise ValueError(
                "write writer:FOLDER or writer:NAME for a model on this machine, or remote:URL#MODEL"
            )
        folder = beside_the_file(Path(place), info)
        return f"writer:{folder}" if kind == "writer" and folder.is_dir() else model

    def policy(self, instance: str) -> Policy | None:
        """When the writer is asked; None when there is none."""
        if self.model is None:
            return None
        causes = frozenset(self.ask_on)
        return Policy(instance, causes, self.uncertainty, self.pause, self.max_age)
