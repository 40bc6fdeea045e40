"""Signatures, verified by the official library of Standard Webhooks."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from vqmon.notifiers import signing

OLD = base64.b64encode(b"an old key of thirty-two bytes!!").decode()
NEW = "whsec_" + base64.b64encode(b"a newer key of thirty-two bytes!").decode()
BODY = json.dumps({"text": "Öffentlich 📺"}, ensure_ascii=False).encode()


def signed(*secrets: str, body: bytes = BODY) -> dict[str, str]:
    keys = [signing.key(it) for it in secrets]
    return signing.headers("msg-1", datetime.now(UTC), body, keys)


def test_the_official_library_accepts_ours() -> None:
    """Receivers verify with it, or with one of its translations."""
    assert Webhook(NEW).verify(BODY, signed(NEW)) == {"text": "Öffentlich 📺"}


def test_during_a_change_of_keys_both_verify() -> None:
    """Receivers change at another moment than we do."""
    headers = signed(NEW, OLD)

    Webhook(NEW).verify(BODY, headers)
    Webhook(OLD).verify(BODY, headers)
    assert headers["webhook-signature"].count("v1,") == 2


@pytest.mark.parametrize("part", ["body", "webhook-id", "webhook-timestamp", "key"])
def test_a_change_on_the_way_is_noticed(part: str) -> None:
    """Everything that matters is under the signature."""
    headers, body, key = signed(NEW), BODY, NEW
    if part == "body":
        body += b" "
    elif part == "webhook-timestamp":
        headers[part] = str(int(headers[part]) - 1)
    elif part == "key":
        key = OLD
    else:
        headers[part] = "msg-2"

    with pytest.raises(WebhookVerificationError):
        Webhook(key).verify(body, headers)


def test_a_known_signature_stays_as_it_is() -> None:
    """Computed with openssl: printf 'msg_1.1767225600.{}' | openssl dgst -sha256 -hmac KEY."""
    key = signing.key("whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz")

    headers = signing.headers("msg_1", datetime(2026, 1, 1, tzinfo=UTC), b"{}", [key])

    assert headers == {
        "webhook-id": "msg_1",
        "webhook-timestamp": "1767225600",
        "webhook-signature": "v1,9C1W7HyTHIPZMrPCiPXxvgNIef+6K1X98hHQYbXPcOA=",
    }


def test_without_a_key_there_is_no_signature() -> None:
    """An empty one would look like a signature."""
    assert signed().keys() == {"webhook-id", "webhook-timestamp"}


@pytest.mark.parametrize(
    ("secret", "complaint"),
    [
        ("not base64!", "base64"),
        ("whsec_", "0"),
        (base64.b64encode(b"short").decode(), "5"),
        (base64.b64encode(b"x" * 65).decode(), "65"),
    ],
)
def test_a_key_that_cannot_sign_is_refused_with_the_remedy(secret: str, complaint: str) -> None:
    """At configuration time, not at three in the morning."""
    with pytest.raises(ValueError, match=f"{complaint}.*openssl rand"):
        signing.key(secret)


def test_keys_may_lack_padding_and_prefix() -> None:
    """As they come out of secret stores."""
    assert signing.key(OLD.rstrip("=") + "\n") == b"an old key of thirty-two bytes!!"
