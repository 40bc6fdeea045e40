"""What settings are made of: quantities with units, names, paths, sections."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationInfo,
    model_validator,
)
from pydantic_core import core_schema

from vqmon.quantities import (
    DURATION_PATTERN,
    SIZE_PATTERN,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

SECOND, MINUTE, HOUR, DAY = 1.0, 60.0, 3600.0, 86400.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)


class Section(BaseModel):
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


@dataclass(frozen=True, slots=True)
class Seconds:
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
class Bytes:
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


def beside_the_file(value: Path, info: ValidationInfo) -> Path:
    """Relative paths count from the configuration's folder, so that it works from anywhere."""
    folder = (info.context or {}).get("folder") or Path.cwd()
    return Path(folder, value.expanduser()).absolute()


Name = Annotated[str, AfterValidator(_checked_name)]
Label = Annotated[str, AfterValidator(_checked_label)]
LabelValue = Annotated[str, Field(max_length=200)]
FilePath = Annotated[Path, AfterValidator(beside_the_file)]
Device = Annotated[str, AfterValidator(_checked_device)]
