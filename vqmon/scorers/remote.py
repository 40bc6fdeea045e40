"""A vision-language model behind an OpenAI-compatible server, such as vLLM or SGLang.

    question, pictures ─▶ POST chat/completions ─▶ text, and the likeliest tokens at each place
                                        │
                    the number ◀────────┴─▶ one more call for each of its likely beginnings

A server tells the likeliest tokens only along the text that it wrote. What would have followed
another first digit is asked for by sending the text up to there, to be gone on with; whether the
server does go on, rather than begin anew, is tried out once, on what is known already. Where it
does not, or tells no probabilities, the number that was written counts, and is marked as such (see
`scorers.writing`).

An answer that cannot be read is asked for once more as JSON by a schema, where the server has
structured output.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import math
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from vqmon.domain import SEVERITY_WORDS
from vqmon.errors import PictureUnsupported, ScorerError, ScorerUnavailable
from vqmon.scorers.writing import Deadline, Limits, Said, WritingScorer
from vqmon.writing.answers import (
    CLASS,
    HIGHEST,
    LOWEST,
    NONE,
    PREFERENCES,
    RATING,
    SEVERITY,
    Task,
    parse,
)
from vqmon.writing.expectation import Expected, Tokens, choose, expect
from vqmon.writing.prompts import Picture, Prompts, conversation, fitted, read_prompts

log = logging.getLogger("vqmon.scorers")

TOKEN_VARIABLE = "OPENAI_API_KEY"  # noqa: S105  the name of a variable
"""Where the token is, if none is given; the name that all clients of such servers use."""

SHOWN = 20
"""Likeliest tokens asked for at each place; more than this servers refuse."""

LEAST = 0.02
"""Beginnings of a number less likely than this are not asked about."""

CALLS = 40
"""Calls for one number at most: five first digits, and the likely first decimals of each."""

MOST_UNFOLLOWED = 0.3
"""A number of which more than this could not be followed is not called an expectation."""

AHEAD = 4
"""Tokens of a number that are looked at: a digit, `.`, two decimals."""

NEAR = 0.05
"""Probabilities of one token from two calls may differ by so much: servers calculate in batches."""

CONNECT_SECONDS = 5.0
LARGEST_ANSWER = 16 * 1024**2
MARKED_WORDS = 300
"""So much of a server's complaint is shown."""

_NUMBER = re.compile(rf'"{RATING}"\s*:\s*"?\s*(?=\d)', re.IGNORECASE)
_CHOICE = re.compile(r"<answer>\s*")
_VALUES = re.compile(rf'"(?:{CLASS}|{SEVERITY})"\s*:\s*"([^"]*)"', re.IGNORECASE)


class RemoteScorer(WritingScorer):
    """A `Scorer` over one model of a server; see `WritingScorer`."""

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        token: str | None = None,
        prompts: Prompts | None = None,
        limits: Limits | None = None,
    ) -> None:
        """url: of the server's API, as http://gpu:8000/v1; `#name` behind it names the model.

        model: None for that of the url, else the only one of the server. token: None for that of
        the environment, if there is one. prompts: those that the model was trained with.
        Raises ScorerError with the remedy, ScorerUnavailable when the server is away.
        """
        limits = limits or Limits()
        super().__init__(Remote(url, model, token, prompts or read_prompts(), limits), limits)


@dataclass(frozen=True, slots=True)
class Place:
    """One token of a text: what it is, how probable it was, and what might have stood there."""

    text: str
    chance: float
    others: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server wrote. places: of each token, empty where it does not tell."""

    text: str
    places: tuple[Place, ...] = ()
    cut: str = ""


@dataclass(slots=True)
class Skills:
    """What the server turned out to offer; None until it was tried."""

    chances: bool | None = None
    continuing: bool | None = None
    schemas: bool | None = None


class Remote:
    """A `Voice` behind a server."""

    def __init__(
        self, url: str, model: str | None, token: str | None, prompts: Prompts, limits: Limits
    ) -> None:
        self.prompts, self._limits = prompts, limits
        self.skills = Skills()
        self._lock = threading.Lock()
        self._api, named = _address(url)
        self._client = _client(token if token is not None else os.environ.get(TOKEN_VARIABLE, ""))
        until = Deadline(min(limits.seconds, 4 * CONNECT_SECONDS))
        self._name = model or named or self._only_model(until)

    @property
    def model(self) -> str:
        return f"{self._name}@remote"

    @property
    def classes(self) -> Mapping[str, str]:
        return self.prompts.classes

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def say(self, task: Task, pictures: Sequence[Picture], until: Deadline) -> Said:
        """One answer, in its form if the server can be made to keep it."""
        with self._lock:
            messages = _messages(self.prompts, task, pictures)
            reply = self._write(messages, until)
            if (
                not parse(task, reply.text, self.classes).readable
                and self.skills.schemas is not False
            ):
                again = self._by_schema(task, messages, until)
                if again is not None and parse(task, again.text, self.classes).readable:
                    return Said(again.text)
            return _MANNERS[task](self, messages, reply, until)

    def _write(self, messages: list[Any], until: Deadline) -> Reply:
        """The likeliest text, with the likeliest tokens if the server tells them."""
        asked = {"messages": messages, "max_tokens": self._limits.tokens}
        if self.skills.chances is False:
            return self._reply(asked, until)
        try:
            reply = self._reply({**asked, **_WITH_CHANCES}, until)
        except _Refused as refusal:
            reply = self._reply(asked, until, instead_of=refusal)
            self.skills.chances = False
            return reply
        self.skills.chances = bool(reply.places)
        return reply

    def _by_schema(self, task: Task, messages: list[Any], until: Deadline) -> Reply | None:
        """The same question again, as JSON; None when that cannot be had."""
        if not until.left:
            return None
        schema = {"name": task, "strict": True, "schema": _schema(task, self.classes)}
        form = {"type": "json_schema", "json_schema": schema}
        asked = {"messages": messages, "max_tokens": self._limits.tokens, "response_format": form}
        try:
            reply = self._reply(asked, until)
        except _Refused:
            self.skills.schemas = False
            return None
        self.skills.schemas = True
        return reply

    def go_on(
        self, messages: list[Any], begun: str, until: Deadline, tokens: int = AHEAD
    ) -> tuple[Place, ...] | None:
        """What follows the beginning of an answer; None when the server cannot go on."""
        asked = {
            "messages": [*messages, {"role": "assistant", "content": begun}],
            "max_tokens": tokens,
            "continue_final_message": True,
            "add_generation_prompt": False,
            **_WITH_CHANCES,
        }
        try:
            return self._reply(asked, until).places
        except _Refused:
            self.skills.continuing = False
            return None

    def continues(self, paths: _Paths) -> bool:
        """Whether the server goes on with an answer: it then says again what it said before."""
        if self.skills.continuing is None:
            if len(paths.reply.places) < paths.place + 2:
                return False  # nothing was said behind it
            try:
                self.skills.continuing = paths.repeated()
            except ScorerUnavailable:
                return False  # this time; there is an answer, if a coarser one
            if not self.skills.continuing:
                log.warning("writer_cannot_continue", extra={"model": self.model})
        return self.skills.continuing

    def _reply(
        self, asked: Mapping[str, Any], until: Deadline, instead_of: _Refused | None = None
    ) -> Reply:
        body = {"model": self._name, "temperature": 0, "seed": 0, "stream": False, **asked}
        try:
            return _read(self._call("POST", "/chat/completions", until, body))
        except _Refused as refusal:
            if (
                instead_of is None
                and {"logprobs", "continue_final_message", "response_format"} & asked.keys()
            ):
                raise
            raise ScorerError(f"{self._api} refuses the question: {refusal}") from refusal

    def _only_model(self, until: Deadline) -> str:
        names = self._models(until)
        if len(names) != 1:
            known = ", ".join(names) or "none"
            raise ScorerError(f"name the model, as remote:{self._api}#NAME; the server has {known}")
        return names[0]

    def _models(self, until: Deadline) -> list[str]:
        try:
            return [str(one["id"]) for one in self._call("GET", "/models", until)["data"]]
        except (KeyError, TypeError) as error:
            raise _strange(self._api) from error
        except _Refused as refusal:
            raise ScorerError(f"{self._api} lists no models: {refusal}") from refusal

    def _call(
        self, method: str, path: str, until: Deadline, body: Mapping[str, Any] | None = None
    ) -> Any:
        """JSON that the server answers. Raises _Refused when it does not take the question."""
        import httpx

        content = None if body is None else json.dumps(body).encode()
        try:
            status, headers, answer = _exchange(
                self._client, method, self._api + path, content, until
            )
        except httpx.HTTPError as error:
            why = str(error) or type(error).__name__
            raise ScorerUnavailable(f"{self._api} does not answer: {why}") from error
        if status != HTTPStatus.OK:
            raise _failure(self._api, self._name if body else "", status, headers, answer)
        try:
            return json.loads(answer)
        except ValueError as error:
            raise _strange(self._api) from error


def _alike(one: Place, other: Place) -> bool:
    """Both say the same of what is likeliest; servers differ a little from call to call."""
    return one.text == other.text and abs(one.chance - other.chance) < NEAR


class _Refused(Exception):
    """The server does not take the question as it was put; its text is the server's."""


_WITH_CHANCES = {"logprobs": True, "top_logprobs": SHOWN}


def _score(remote: Remote, messages: list[Any], reply: Reply, until: Deadline) -> Said:
    place = _place_behind(reply, _NUMBER)
    if place is None:
        return Said(reply.text, cut=reply.cut)
    return Said(
        reply.text, expected=_expected(remote, messages, reply, place, until), cut=reply.cut
    )


def _expected(
    remote: Remote, messages: list[Any], reply: Reply, place: int, until: Deadline
) -> Expected | None:
    """None when the server cannot go on with other digits than those it wrote."""
    paths = _Paths(remote, messages, reply, place, until)
    if not remote.continues(paths):
        return None
    found = expect(paths.follow, least=LEAST)
    return found if found.unfollowed <= MOST_UNFOLLOWED else None


def _degradation(_remote: Remote, _messages: list[Any], reply: Reply, _until: Deadline) -> Said:
    return Said(reply.text, confidence=_confidence(reply), cut=reply.cut)


def _comparison(remote: Remote, messages: list[Any], reply: Reply, until: Deadline) -> Said:
    place = _place_behind(reply, _CHOICE)
    if place is None:
        return Said(reply.text, cut=reply.cut)
    paths = _Paths(remote, messages, reply, place, until)
    if not remote.continues(paths):
        return Said(reply.text, cut=reply.cut)
    return Said(
        reply.text, choices=choose(paths.follow, tuple(PREFERENCES), least=LEAST), cut=reply.cut
    )


_MANNERS: Mapping[Task, Callable[[Remote, list[Any], Reply, Deadline], Said]] = {
    "score": _score,
    "degradation": _degradation,
    "comparison": _comparison,
}


@dataclass
class _Paths:
    """What follows each beginning of a value: known from the text, else asked for."""

    remote: Remote
    messages: list[Any]
    reply: Reply
    place: int
    until: Deadline
    known: dict[Tokens, Mapping[str, float]] = field(default_factory=dict)
    calls: int = 0

    def __post_init__(self) -> None:
        self._learn((), self.reply.places[self.place :][:AHEAD])

    @property
    def begun(self) -> str:
        """The text up to the value."""
        return "".join(place.text for place in self.reply.places[: self.place])

    def repeated(self) -> bool:
        """Whether going on from the first token of the value gives what came behind it.

        Not from before it: many servers strip the space that the text would end with.
        """
        first, second = self.reply.places[self.place : self.place + 2]
        begun = self.begun + first.text
        places = self.remote.go_on(self.messages, begun, self.until, tokens=1)
        return bool(places and _alike(places[0], second))

    def follow(self, beginnings: Sequence[Tokens]) -> list[Mapping[str, float] | None]:
        return [self.known.get(tokens) or self._asked(tokens) for tokens in beginnings]

    def _asked(self, tokens: Tokens) -> Mapping[str, float] | None:
        if self.calls >= CALLS or not self.until.left:
            return None
        self.calls += 1
        begun = self.begun + "".join(tokens)
        try:
            places = self.remote.go_on(self.messages, begun, self.until)
        except ScorerUnavailable:
            self.calls = CALLS  # what is known already has to do
            return None
        if not places:
            return None
        self._learn(tokens, places)
        return self.known[tokens]

    def _learn(self, tokens: Tokens, places: Sequence[Place]) -> None:
        for place in places:
            self.known.setdefault(tokens, place.others)
            tokens = (*tokens, place.text)


def _place_behind(reply: Reply, mark: re.Pattern[str]) -> int | None:
    """The first token of the value behind the mark in the answer; None when it cannot be told."""
    text = "".join(place.text for place in reply.places)
    found = mark.search(text, max(0, text.rfind("</think>")))
    begin = 0
    for number, place in enumerate(reply.places if found else ()):
        end = begin + len(place.text)
        if found and end > found.end():
            # A token may begin with spaces, or a quote, that the mark has taken for its own.
            return number if begin <= found.end() and _opens(text[begin : found.end()]) else None
        begin = end
    return None


def _opens(text: str) -> bool:
    return not text or text.isspace()


def _confidence(reply: Reply) -> float | None:
    """Probability of the values as they were written."""
    text = "".join(place.text for place in reply.places)
    spans = [m.span(1) for m in _VALUES.finditer(text, max(0, text.rfind("</think>")))]
    if not spans:
        return None
    chance, begin = 1.0, 0
    for place in reply.places:
        end = begin + len(place.text)
        if any(begin < stop and end > start for start, stop in spans):
            chance *= place.chance
        begin = end
    return chance


def _messages(prompts: Prompts, task: Task, pictures: Sequence[Picture]) -> list[Any]:
    """The conversation of training, with the pictures in it."""
    seen = iter(fitted(prompts, pictures))
    return [
        {**message, "content": [_part(part, seen) for part in message["content"]]}
        for message in conversation(prompts, task, len(pictures))
    ]


def _part(part: Mapping[str, str], pictures: Any) -> Mapping[str, Any]:
    if part["type"] != "image":
        return part
    return {"type": "image_url", "image_url": {"url": _inline(next(pictures))}}


def _inline(picture: Picture) -> str:
    """Without loss: compression is one of the things to be judged."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _schema(task: Task, classes: Mapping[str, str]) -> dict[str, Any]:
    of_tasks: Mapping[Task, dict[str, Any]] = {
        "score": {RATING: {"type": "number", "minimum": LOWEST, "maximum": HIGHEST}},
        "degradation": {
            CLASS: {"type": "string", "enum": [*classes, NONE]},
            SEVERITY: {"type": "string", "enum": [*SEVERITY_WORDS, NONE]},
        },
        "comparison": {"better": {"type": "string", "enum": list(PREFERENCES)}},
    }
    properties = {"think": {"type": "string"}, **of_tasks[task]}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _read(answer: Any) -> Reply:
    """A chat completion; ScorerUnavailable when it is none."""
    try:
        choice = answer["choices"][0]
        message = choice["message"]
        text = message.get("content") or ""
        reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
        places = tuple(map(_place, (choice.get("logprobs") or {}).get("content") or ()))
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise _strange("the server") from error
    whole = "".join(place.text for place in places)
    told = places if text.strip() in whole else ()
    if reasoning and "</think>" not in text:
        text = f"<think>{reasoning}</think>{text}"
    cut = "the server cut it off" if choice.get("finish_reason") == "length" else ""
    return Reply(text, told, cut)


def _place(token: Mapping[str, Any]) -> Place:
    chance = _probability(token["logprob"])
    others: dict[str, float] = {}
    for other in token.get("top_logprobs") or ():
        others[other["token"]] = others.get(other["token"], 0.0) + _probability(other["logprob"])
    others.setdefault(token["token"], chance)
    return Place(str(token["token"]), chance, others)


def _probability(logarithm: float) -> float:
    return min(1.0, math.exp(float(logarithm)))


def _address(url: str) -> tuple[str, str]:
    """The API's address without a slash at its end, and the model named behind it."""
    import httpx

    try:
        where = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise ScorerError(f"remote:{url} is no address: {error}") from error
    if where.scheme not in ("http", "https") or not where.host:
        raise ScorerError(
            f"remote:{where.host or url} is no address; write remote:http://HOST:8000/v1"
        )
    if where.userinfo:
        raise ScorerError(
            f"remote:{where.scheme}://{where.host} holds credentials: put the token into "
            f"the variable {TOKEN_VARIABLE} instead"
        )
    path = where.path.rstrip("/") or "/v1"
    api = str(where.copy_with(path=path, query=None, fragment=None))
    return api, where.fragment


def _client(token: str) -> Any:
    import httpx

    headers = {"authorization": f"Bearer {token}"} if token else {}
    return httpx.Client(headers=headers, trust_env=False, follow_redirects=False)


def _exchange(
    client: Any, method: str, url: str, content: bytes | None, until: Deadline
) -> tuple[int, Mapping[str, str], bytes]:
    """Status, headers and body, all within the deadline. Raises httpx.HTTPError."""
    import httpx

    left = until.left
    if not left:
        raise httpx.ReadTimeout(f"no answer within {until.seconds:g} seconds")
    timeout = httpx.Timeout(left, connect=min(left, CONNECT_SECONDS))
    headers = {"content-type": "application/json"}
    body = bytearray()
    with client.stream(method, url, content=content, headers=headers, timeout=timeout) as answer:
        for piece in answer.iter_bytes():
            body += piece
            if not until.left:
                raise httpx.ReadTimeout(f"no whole answer within {until.seconds:g} seconds")
            if len(body) > LARGEST_ANSWER:
                raise httpx.ReadError(f"more than {LARGEST_ANSWER} bytes of answer")
        return answer.status_code, answer.headers, bytes(body)


def _failure(
    api: str, model: str, status: int, headers: Mapping[str, str], answer: bytes
) -> Exception:
    """What an answer other than 200 means for the caller."""
    said = _complaint(answer)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return ScorerError(
            f"{api} wants another token ({status}): set {TOKEN_VARIABLE}, or the writer's `token`"
        )
    if status == HTTPStatus.NOT_FOUND:
        what = f"no model {model} at this address" if model else "no such address"
        return ScorerError(f"{api}: {what} ({said}); write remote:http://HOST:8000/v1#MODEL")
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return PictureUnsupported(
            f"{api} takes no picture of this size: make `pixels.most` of the prompts smaller"
        )
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        pause = headers.get("retry-after", "")
        return ScorerUnavailable(
            f"{api} is busy{f', for {pause} s' if pause.isdigit() else ''}: {said}"
        )
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ScorerUnavailable(f"{api} failed ({status}): {said}")
    if status >= HTTPStatus.BAD_REQUEST:
        return _Refused(f"{status}: {said}")
    return ScorerError(f"{api} answers {status}, which is no answer: check the address")


def _complaint(answer: bytes) -> str:
    """The server's own words, on one line."""
    text = answer.decode("utf-8", "replace")
    try:
        found = json.loads(text)
        error = found.get("error", found) if isinstance(found, dict) else found
        text = str(error.get("message", error) if isinstance(error, dict) else error)
    except ValueError:
        pass
    return " ".join(text.split())[:MARKED_WORDS] or "it does not say why"


def _strange(api: str) -> ScorerUnavailable:
    return ScorerUnavailable(
        f"{api} answers something else than an OpenAI-compatible server: check the address, which "
        "ends in /v1 mostly"
    )
