"""Who is told of alerts, and where."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, WithJsonSchema, field_validator
from pydantic_core import PydanticCustomError

from vqmon.settings.fields import MINUTE, FilePath, Seconds, Section

_HEADER = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}", re.ASCII)
_OWN_HEADERS = ("host", "content-length", "content-type", "transfer-encoding", "connection")

_ONE_OR_MANY = WithJsonSchema(
    {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
)


class NotifierSettings(Section):
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
    timeout: Annotated[float, Seconds(0.5, 2 * MINUTE)] = Field(
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


def wrong_filter(
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
