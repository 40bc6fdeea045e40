"""Signatures as Standard Webhooks has them, so that any of its libraries can verify ours.

webhook-id: the delivery's id, the same on every retry
webhook-timestamp: seconds since 1970 of this attempt
webhook-signature: v1,<base64 of HMAC-SHA256 of "id.timestamp.body">, one for each key
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable
from datetime import datetime

PREFIX = "whsec_"
SHORTEST, LONGEST = 24, 64
"""Bytes of a key."""

MAKE_ONE = "`openssl rand -base64 32` makes one"


def key(secret: str) -> bytes:
    """The bytes of a key as people write it. Raises ValueError with the remedy."""
    text = secret.strip().removeprefix(PREFIX)
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(
            f"a signing key is written in base64, with {PREFIX} before it or not; {MAKE_ONE}"
        ) from error
    if not SHORTEST <= len(raw) <= LONGEST:
        raise ValueError(
            f"a signing key has {SHORTEST} to {LONGEST} bytes, this one {len(raw)}; {MAKE_ONE}"
        )
    return raw


def headers(id_: str, at: datetime, body: bytes, keys: Iterable[bytes]) -> dict[str, str]:
    """What a signed message carries; without keys only its id and time."""
    seconds = str(int(at.timestamp()))
    signed = f"{id_}.{seconds}.".encode() + body
    signatures = " ".join(f"v1,{_signature(it, signed)}" for it in keys)
    plain = {"webhook-id": id_, "webhook-timestamp": seconds}
    return plain | ({"webhook-signature": signatures} if signatures else {})


def _signature(raw: bytes, signed: bytes) -> str:
    return base64.b64encode(hmac.new(raw, signed, hashlib.sha256).digest()).decode()
