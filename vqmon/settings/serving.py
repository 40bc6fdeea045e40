"""Where the daemon answers over HTTP: health and metrics."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic_core import core_schema

from vqmon.settings.fields import Section

OFF = "off"
_WRITTEN = "write HOST:PORT, as in 127.0.0.1:8477 or [::1]:8477, or `off`"
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?", re.ASCII)
_LARGEST_PORT = 65535


class _Written:
    """In JSON Schema an address is a text; `off` may also be the word that YAML takes for false."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(_off, handler(source))


def _off(value: Any) -> Any:
    return OFF if value in (False, "false", "no") else value


def _checked(listen: str) -> str:
    if listen != OFF:
        parsed(listen)
    return listen


def parsed(listen: str) -> tuple[str, int]:
    """Host and port of HOST:PORT. Raises ValueError with what to write instead."""
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit():
        raise ValueError(f"has no port; {_WRITTEN}")
    if int(port) > _LARGEST_PORT:
        raise ValueError(f"a port is 0 (any that is free) to {_LARGEST_PORT}")
    if not host:
        raise ValueError(f"has no host: for every address of this machine write 0.0.0.0:{port}")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if bare != host and _is_ipv6(bare):
        return bare, int(port)
    if ":" in host:
        raise ValueError(f"an IPv6 address stands in brackets; {_WRITTEN}")
    if not _HOST.fullmatch(host):
        raise ValueError(f"has no host name or address before the port; {_WRITTEN}")
    return host, int(port)


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


class HttpSettings(Section):
    """Health and metrics over HTTP."""

    listen: Annotated[str, _Written(), AfterValidator(_checked)] = Field(
        "127.0.0.1:8477",
        description="Address and port for health and metrics, as HOST:PORT; port 0 takes any that "
        "is free, 0.0.0.0 listens on every address, `off` serves nothing. `http: HOST:PORT` and "
        "`http: off` are short for it.",
    )

    @model_validator(mode="before")
    @classmethod
    def _an_address_alone(cls, data: Any) -> Any:
        """`http: off` and `http: 0.0.0.0:8477`."""
        return {"listen": data} if isinstance(data, str | bool) else data

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [handler(schema), {"type": "string"}, {"const": False}]}

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port to listen on; None for `off`."""
        return None if self.listen == OFF else parsed(self.listen)
