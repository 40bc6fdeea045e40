"""What an encoder must check before it obeys."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from vqmon.demo.commands import Command, Commands, Refused
from vqmon.notifiers import signing

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
OTHER = "whsec_" + base64.b64encode(b"fedcba9876543210fedcba9876543210").decode()
NOW = 1_767_225_600
RAISE = {
    "type": "vqmon.adaptive_encoding",
    "version": 1,
    "decision": "d1",
    "stream": "demo",
    "action": "raise",
    "quality": 6.5,
    "cap_kbps": 700,
    "previous": {"quality": 5.0, "cap_kbps": 220},
    "reason": "serious compression for 10 s: asks for more",
    "at": "2026-01-01T00:00:00+00:00",
}


class Post:
    """An encoder's ear and what it has done."""

    def __init__(self) -> None:
        self.done: list[Command] = []
        self.commands = Commands(SECRET, "demo", self.done.append, now=lambda: float(NOW))

    def send(
        self,
        content: Any = RAISE,
        *,
        id_: str = "msg_1",
        secret: str = SECRET,
        at: int = NOW,
        **headers: str,
    ) -> str:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        made = signing.headers(id_, datetime.fromtimestamp(at, UTC), body, [signing.key(secret)])
        return self.commands.take(made | {k.replace("_", "-"): v for k, v in headers.items()}, body)


def test_a_signed_message_is_obeyed() -> None:
    post = Post()

    assert post.send() == "raise to be done"

    [command] = post.done
    assert (command.action, command.quality, command.cap_kbps) == ("raise", 6.5, 700)


def test_a_message_signed_by_the_official_library_is_obeyed() -> None:
    """What we accept must be the standard, not our reading of it."""
    post, body = Post(), json.dumps(RAISE)
    moment = datetime.fromtimestamp(NOW, UTC)

    post.commands.take(
        {
            "Webhook-Id": "msg_2",
            "Webhook-Timestamp": str(NOW),
            "Webhook-Signature": Webhook(SECRET).sign("msg_2", moment, body),
        },
        body.encode(),
    )

    assert len(post.done) == 1


def test_one_of_several_signatures_is_enough() -> None:
    """While a secret is changed the sender signs with both."""
    post, body = Post(), json.dumps(RAISE).encode()
    keys = [signing.key(OTHER), signing.key(SECRET)]

    post.commands.take(signing.headers("m", datetime.fromtimestamp(NOW, UTC), body, keys), body)

    assert len(post.done) == 1


@pytest.mark.parametrize(
    ("changed", "status", "words"),
    [
        ({"secret": OTHER}, 401, "no signature fits"),
        ({"at": NOW - 301}, 401, "too old"),
        ({"at": NOW + 301}, 401, "too old or too new"),
        ({"webhook_signature": "v1,"}, 401, "no signature fits"),
        ({"webhook_signature": "v1,ü"}, 401, "no signature fits"),
        ({"webhook_signature": ""}, 401, "needed"),
        ({"webhook_id": "msg_9"}, 401, "no signature fits"),
        ({"webhook_timestamp": str(NOW + 1)}, 401, "no signature fits"),
        ({"webhook_timestamp": "1e9"}, 401, "seconds since 1970"),
        ({"content": b"not json"}, 400, "no JSON"),
        ({"content": b"[" * 100_000}, 400, "no JSON"),
        ({"content": RAISE | {"stream": "news"}}, 422, "'demo'"),
        ({"content": RAISE | {"version": 2}}, 422, "version 1"),
        ({"content": RAISE | {"quality": 11}}, 422, "quality"),
        ({"content": RAISE | {"quality": None}}, 422, "quality"),
        ({"content": RAISE | {"cap_kbps": True}}, 422, "cap_kbps"),
        ({"content": RAISE | {"cap_kbps": float("nan")}}, 422, "cap_kbps"),
        ({"content": RAISE | {"cap_kbps": 10**400}}, 422, "cap_kbps"),
    ],
)
def test_what_is_not_right_is_refused_and_nothing_is_done(
    changed: dict[str, Any], status: int, words: str
) -> None:
    """Whoever can reach the port can send anything."""
    post = Post()

    with pytest.raises(Refused, match=words) as refused:
        post.send(**changed)

    assert refused.value.status == status
    assert post.done == []


def test_the_same_id_is_done_once() -> None:
    """The sender sends again when it did not hear the answer."""
    post = Post()
    post.send()

    assert post.send() == "done already"

    assert len(post.done) == 1


def test_a_refused_message_can_be_sent_again_in_a_better_form() -> None:
    """Only what was done is remembered."""
    post = Post()
    with pytest.raises(Refused):
        post.send(RAISE | {"quality": 99})

    post.send()

    assert len(post.done) == 1


@pytest.mark.parametrize(
    "content", [{"version": "4", "alerts": []}, RAISE | {"action": "propose"}, [], "hello"]
)
def test_messages_that_ask_for_nothing_are_accepted(content: Any) -> None:
    """A target may hear of alerts and tests too; refusing them would only have them sent again."""
    post = Post()

    assert post.send(content) == "nothing to do"

    assert post.done == []
