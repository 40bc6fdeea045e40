"""A signed HTTP POST."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from vqmon.domain import Delivery, Receipt
from vqmon.errors import ConfigError
from vqmon.notifiers import signing
from vqmon.notifiers.addresses import Reach
from vqmon.notifiers.posting import Call, post, trust
from vqmon.notifying import Target


class Webhook:
    """`vqmon.ports.Notifier` for whoever takes JSON by POST."""

    def __init__(self, target: Target) -> None:
        self._url = target.url
        self._keys = [signing.key(it) for it in target.secrets]
        self._call = call(target)

    def send(self, delivery: Delivery, at: datetime) -> Receipt:
        body = encoded(delivery.body)
        signed = signing.headers(delivery.id, at, body, self._keys)
        return post(self._url, body, signed, self._call)


def call(target: Target) -> Call:
    """How to post to a target. Raises ConfigError when its authorities cannot be read."""
    try:
        tls = trust(target.ca_file)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"notifiers.{target.name}.ca_file: {target.ca_file} cannot be used ({error}): name a "
            "readable file of certificates in PEM"
        ) from error
    reach = Reach(target.private, target.allow)
    return Call(reach, tls, target.timeout, target.redirects, target.headers)


def encoded(body: Mapping[str, Any] | list[Any]) -> bytes:
    """The JSON that goes over the wire and is signed."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
