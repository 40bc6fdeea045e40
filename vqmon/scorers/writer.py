"""A vision-language model on this machine, through transformers' Auto classes.

    picture, question ─▶ prompt ─▶ greedy text up to `"rating":` ─▶ tree of digits ─▶ the rest

The text is the likeliest, token by token, so that it is the same on every run. Where the number
begins, the tree of everything that could stand there is followed on the same key-value cache:
the first digits as one batch, then what follows them. The text then goes on as if nothing had
happened, and its own number is kept beside the expectation.

What may take long is bounded in tokens and in seconds, looked at after every token.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import math
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from vqmon.errors import ScorerError, ScorerUnavailable
from vqmon.scorers.writing import Deadline, Limits, Said, WritingScorer
from vqmon.writing.answers import CLASS, PREFERENCES, RATING, SEVERITY, Task
from vqmon.writing.expectation import END, Tokens, choose, ends, expect
from vqmon.writing.processor import adapted_base, load_processor
from vqmon.writing.prompts import Picture, Prompts, encode, prompts_of

AT_ONCE = 16
"""Beginnings of numbers that are followed in one batch; each needs a copy of the cache."""

PARTS = ("score_degradation", "comparison")
"""Folders of the published Q-Insight weights: one model scores and names, the other compares."""

_NUMBER_COMES = re.compile(rf'"{RATING}"\s*:\s*"?\s*$', re.IGNORECASE)
_CHOICE_COMES = re.compile(r"<answer>\s*$")
_VALUES = re.compile(rf'"(?:{CLASS}|{SEVERITY})"\s*:\s*"([^"]*)"', re.IGNORECASE)

_SMALL, _PIECE, _PIECES = 64 * 1024**2, 65_536, 64


class WriterScorer(WritingScorer):
    """A `Scorer` over one checkpoint; see `WritingScorer`. Loading it takes seconds to minutes."""

    def __init__(
        self,
        place: str,
        *,
        device: str = "cpu",
        threads: int = 1,
        prompts: Prompts | None = None,
        limits: Limits | None = None,
    ) -> None:
        """place: a checkpoint folder, or a hub name whose files have been downloaded.

        prompts: None for those beside the checkpoint, else the shipped ones.
        Raises ScorerError with the remedy when packages, weights or the device are missing.
        """
        limits = limits or Limits()
        super().__init__(Local(place, device, threads, prompts, limits.tokens), limits)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder of weights on this machine. part: its folder among others by task, if there are.

    name: as people know it. commit: of a hub's repository, empty for other folders.
    """

    folder: Path
    name: str
    commit: str = ""
    part: str = ""

    @property
    def comparing(self) -> Checkpoint:
        """The one beside it that was made to compare; itself where there is none."""
        beside = self.folder.parent / PARTS[1]
        if self.part != PARTS[0] or not _holds(beside):
            return self
        return Checkpoint(beside, self.name, self.commit, PARTS[1])


class Local:
    """A `Voice` on this machine."""

    def __init__(
        self, place: str, device: str, threads: int, prompts: Prompts | None, tokens: int
    ) -> None:
        if threads < 1:
            raise ScorerError(f"threads is {threads}; give at least 1")
        self._checkpoint = found(place)
        self.prompts = prompts or prompts_of(self._checkpoint.folder)
        self._device, self._threads, self._tokens = device, threads, tokens
        self._lock = threading.Lock()
        self._speaker: Speaker | None = Speaker(self._checkpoint, device, threads)
        self._comparer: Speaker | None = None
        self._name = f"{self._checkpoint.name}@{fingerprint(self._checkpoint)}"

    @property
    def model(self) -> str:
        return self._name

    @property
    def classes(self) -> Mapping[str, str]:
        return self.prompts.classes

    def say(self, task: Task, pictures: Sequence[Picture], until: Deadline) -> Said:
        """One answer; the comparison is another model's where the checkpoint has one for it."""
        with self._lock:
            speaker = self._for(task)
            with memory_of(speaker):
                return speaker.say(self.prompts, task, pictures, Bounds(until, self._tokens))

    def close(self) -> None:
        """Let go of the weights."""
        with self._lock:
            self._speaker = self._comparer = None

    def _for(self, task: Task) -> Speaker:
        if self._speaker is None:
            raise ScorerUnavailable(f"{self.model} has been closed")
        comparing = self._checkpoint.comparing
        if task != "comparison" or comparing == self._checkpoint:
            return self._speaker
        if self._comparer is None:
            self._comparer = Speaker(comparing, self._device, self._threads)
        return self._comparer


@dataclass(slots=True)
class Bounds:
    """What one answer may take."""

    until: Deadline
    tokens: int

    def passed(self, written: int) -> str:
        """Why to stop here; empty to go on."""
        if written >= self.tokens:
            return f"it was still writing after {self.tokens} tokens"
        if not self.until.left:
            return f"it was still writing after {self.until.seconds:g} seconds"
        return ""


class Speaker:
    """A model with its processor, on a device."""

    def __init__(self, checkpoint: Checkpoint, device: str, threads: int) -> None:
        torch = _required("torch")
        transformers = _required("transformers")
        _quiet(transformers)
        if adapted_base(checkpoint.folder):
            _required("peft")
        self.device = _device(torch, device)
        if self.device.type == "cpu":
            torch.set_num_threads(threads)
        self.processor = _loaded(checkpoint, load_processor)
        model = transformers.AutoModelForImageTextToText
        precision = torch.float32 if self.device.type == "cpu" else torch.bfloat16
        self.network = _loaded(checkpoint, model.from_pretrained, dtype=precision)
        with memory_of(self):
            self.network = self.network.to(self.device).eval()
        self.ends = _ends(self.network, self.processor.tokenizer)
        self.forbidden = _placeholders(self.network)

    def say(
        self, prompts: Prompts, task: Task, pictures: Sequence[Picture], bounds: Bounds
    ) -> Said:
        torch = _required("torch")
        with torch.inference_mode():
            speech = Speech(self, encode(self.processor, prompts, task, pictures))
            return _MANNERS[task](speech, bounds)

    @cached_property
    def tokens(self) -> list[str]:
        """The text of every token, by its number."""
        tokenizer = self.processor.tokenizer
        decode = tokenizer.batch_decode
        known: list[str] = decode(
            [[token] for token in range(len(tokenizer))], clean_up_tokenization_spaces=False
        )
        return known

    @cached_property
    def digits(self) -> dict[str, int]:
        """Tokens that a number may begin or go on with: digits, a point, spaces before it."""
        return self.those(lambda text: text.isspace() or text.lstrip()[:1] in "0123456789.")

    @cached_property
    def enders(self) -> list[int]:
        """Tokens that end a number."""
        return [
            number
            for number, text in enumerate(self.tokens)
            if number in self.ends or (ends(text) and text not in self.digits)
        ]

    @cached_property
    def words(self) -> dict[str, int]:
        """Tokens that the words of a comparison may begin or go on with."""
        return self.those(
            lambda text: text.isspace() or any(text.strip() in word for word in PREFERENCES)
        )

    def those(self, wanted: Callable[[str], bool]) -> dict[str, int]:
        special = set(self.processor.tokenizer.all_special_ids)
        return {
            text: number
            for number, text in enumerate(self.tokens)
            if text and number not in special and wanted(text)
        }


@dataclass
class Speech:
    """One answer while it is written: the tokens so far, the cache, and what may come next."""

    speaker: Speaker
    prompt: Mapping[str, Any]
    written: list[int] = field(default_factory=list)
    chances: list[float] = field(default_factory=list)
    ended: bool = False
    at_once: int = AT_ONCE

    def __post_init__(self) -> None:
        inputs = {name: value.to(self.speaker.device) for name, value in self.prompt.items()}
        said = self.speaker.network(**inputs, use_cache=True, logits_to_keep=1)
        self.cache, self.logits = said.past_key_values, said.logits[:, -1]

    @property
    def text(self) -> str:
        """Special tokens stay, so that they spoil the format; the end of sequence is left out."""
        decode = self.speaker.processor.tokenizer.decode
        found: str = decode(self.written, clean_up_tokenization_spaces=False)
        return found

    def go_on(self, bounds: Bounds, *, to: Callable[[str], bool] = lambda _text: False) -> str:
        """Write the likeliest tokens up to a text that `to` wants, or the end. Returns why it was
        cut off, empty when it was not.
        """
        while not self.ended and not to(self.text):
            why = bounds.passed(len(self.written))
            if why:
                return why
            self._write()
        return ""

    def skip_spaces(self, bounds: Bounds) -> None:
        """Write the likeliest tokens as long as they are spaces."""
        while not bounds.passed(len(self.written)):
            token = int(self._next(self.logits)[0].argmax())
            if token in self.speaker.ends or not self.speaker.tokens[token].isspace():
                return
            self._write()

    def _write(self) -> None:
        torch = _required("torch")
        chances = self._next(self.logits)[0]
        token = int(chances.argmax())
        if token in self.speaker.ends:
            self.ended = True
            return
        self.written.append(token)
        self.chances.append(float(chances[token]))
        following = torch.tensor([[token]], device=self.speaker.device)
        said = self.speaker.network(
            input_ids=following, past_key_values=self.cache, use_cache=True, logits_to_keep=1
        )
        self.cache, self.logits = said.past_key_values, said.logits[:, -1]

    def following(self, wanted: Mapping[str, int]) -> Callable[[Sequence[Tokens]], Any]:
        """What may come after each beginning: the tokens `wanted`, and END for all that end it."""

        def follow(beginnings: Sequence[Tokens]) -> list[dict[str, float]]:
            rows: list[dict[str, float]] = []
            while len(rows) < len(beginnings):
                rows += self._some(beginnings[len(rows) :], wanted)
            return rows

        return follow

    def _some(
        self, beginnings: Sequence[Tokens], wanted: Mapping[str, int]
    ) -> list[dict[str, float]]:
        """Of as many of the beginnings as there is memory for, at least one."""
        torch = _required("torch")
        count = min(self.at_once, len(beginnings))
        try:
            return list(self._after(beginnings[:count], wanted))
        except torch.OutOfMemoryError:
            if count == 1:
                raise
        self.at_once = count // 2
        return self._some(beginnings, wanted)

    def _after(
        self, beginnings: Sequence[Tokens], wanted: Mapping[str, int]
    ) -> Iterator[dict[str, float]]:
        torch = _required("torch")
        logits = self.logits
        if beginnings[0]:
            cache = copy.deepcopy(self.cache)
            cache.batch_repeat_interleave(len(beginnings))
            paths = [[wanted[text] for text in tokens] for tokens in beginnings]
            logits = self.speaker.network(
                input_ids=torch.tensor(paths, device=self.speaker.device),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
        chances = self._next(logits)
        ended = chances[:, self.speaker.enders].sum(-1).tolist()
        rows = chances[:, list(wanted.values())].tolist()
        for row, end in zip(rows, ended, strict=True):
            yield {**dict(zip(wanted, row, strict=True)), END: end}

    def _next(self, logits: Any) -> Any:
        """(n, V) probabilities; placeholders of pictures are never written."""
        torch = _required("torch")
        never = torch.tensor(self.speaker.forbidden, dtype=torch.long, device=logits.device)
        return logits.double().index_fill(-1, never, -torch.inf).softmax(-1)

    def confidence(self) -> float | None:
        """Probability of the values of the answer as they were written."""
        spans = [match.span(1) for match in _VALUES.finditer(_answer(self.text))]
        before = len(self.text) - len(_answer(self.text))
        if not spans:
            return None
        ends = self._ends_of_tokens()
        begins = [0, *ends[:-1]]
        return math.prod(
            chance
            for chance, begin, end in zip(self.chances, begins, ends, strict=True)
            if any(begin < before + stop and end > before + start for start, stop in spans)
        )

    def _ends_of_tokens(self) -> list[int]:
        """Where each token ends in the text."""
        decode = self.speaker.processor.tokenizer.decode
        counts = range(1, len(self.written) + 1)
        return [len(decode(self.written[:n], clean_up_tokenization_spaces=False)) for n in counts]


def _score(speech: Speech, bounds: Bounds) -> Said:
    cut = speech.go_on(bounds, to=_number_comes)
    expected = None
    if not cut and not speech.ended:
        speech.skip_spaces(bounds)
        expected = expect(speech.following(speech.speaker.digits))
        cut = speech.go_on(bounds)
    return Said(speech.text, expected=expected, cut=cut)


def _degradation(speech: Speech, bounds: Bounds) -> Said:
    cut = speech.go_on(bounds)
    return Said(speech.text, confidence=speech.confidence(), cut=cut)


def _comparison(speech: Speech, bounds: Bounds) -> Said:
    cut = speech.go_on(bounds, to=_choice_comes)
    choices: Mapping[str, float] = {}
    if not cut and not speech.ended:
        speech.skip_spaces(bounds)
        choices = choose(speech.following(speech.speaker.words), tuple(PREFERENCES))
        cut = speech.go_on(bounds)
    return Said(speech.text, choices=choices, cut=cut)


_MANNERS: Mapping[Task, Callable[[Speech, Bounds], Said]] = {
    "score": _score,
    "degradation": _degradation,
    "comparison": _comparison,
}


def _number_comes(text: str) -> bool:
    """The number of the answer is next; one that the reasoning names does not count."""
    return bool(_NUMBER_COMES.search(_answer(text)))


def _choice_comes(text: str) -> bool:
    return "</think>" in text and bool(_CHOICE_COMES.search(_answer(text)))


def _answer(text: str) -> str:
    """What stands behind the reasoning; all of it where none was begun."""
    _, closed, rest = text.rpartition("</think>")
    return rest if closed or "<think>" not in text else ""


def found(place: str) -> Checkpoint:
    """The checkpoint of a folder, or of a hub name (`owner/name`, `owner/name/part`).

    Weights that lie in folders by task, as those of Q-Insight do, are found in there. What was
    downloaded from a hub is used as a folder, so that nothing is ever fetched behind an operator's
    back. Raises ScorerError with the remedy when there is none.
    """
    folder = Path(place).expanduser()
    if folder.is_dir():
        whole, of_tasks = folder.absolute(), folder.absolute() / PARTS[0]
        if _holds(whole):
            return Checkpoint(whole, whole.name, part=whole.name if whole.name in PARTS else "")
        if _holds(of_tasks):
            return Checkpoint(of_tasks, whole.name, part=PARTS[0])
        raise ScorerError(f"{place} is no checkpoint: it holds no config.json")
    return _downloaded(place)


def _holds(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.json", "adapter_config.json"))


def _downloaded(place: str) -> Checkpoint:
    owner, name, part = (*place.split("/", 2), "", "")[:3]
    if not owner or not name or owner.startswith((".", "~")):
        raise ScorerError(
            f"no folder {place}: name a checkpoint folder, or a hub name such as "
            "ByteDance/Q-Insight"
        )
    hub = _required("huggingface_hub")
    for inside in (part,) if part else ("", PARTS[0]):
        file = f"{inside}/config.json" if inside else "config.json"
        config = hub.try_to_load_from_cache(f"{owner}/{name}", file)
        if isinstance(config, str):
            folder = Path(config).parent
            commit = (folder.parent if inside else folder).name
            return Checkpoint(folder, f"{owner}/{name}", commit, inside)
    raise ScorerError(
        f"{place} is not on this machine, and vqmon downloads no weights by itself: "
        f"hf download {owner}/{name}"
    )


def fingerprint(checkpoint: Checkpoint) -> str:
    """Eight digits that change with the weights; of large files, samples are read."""
    if checkpoint.commit:
        return checkpoint.commit[:8]
    digest = hashlib.sha256()
    names = ("*.safetensors", "*.bin", "config.json", "adapter_config.json")
    for path in sorted({path for name in names for path in checkpoint.folder.glob(name)}):
        digest.update(f"{path.name} {path.stat().st_size} ".encode())
        digest.update(_samples(path))
    return digest.hexdigest()[:8]


def _samples(path: Path) -> bytes:
    """All of a small file; of a large one, evenly spread pieces, its end among them."""
    size = path.stat().st_size
    if size <= _SMALL:
        return path.read_bytes()
    begins = [(size - _PIECE) * k // (_PIECES - 1) for k in range(_PIECES)]
    with path.open("rb") as file:
        return b"".join(_piece(file, begin) for begin in begins)


def _piece(file: Any, begin: int) -> bytes:
    file.seek(begin)
    found: bytes = file.read(_PIECE)
    return found


def _required(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ScorerError(
            f"a writing model on this machine needs {name}: pip install 'vqmon[writer]'; "
            "or name a server, as remote:URL"
        ) from error


def _quiet(transformers: Any) -> None:
    """No progress bars and no advice on standard error: errors are raised."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def _device(torch: Any, device: str) -> Any:
    named = re.fullmatch(r"cpu|cuda(?::(\d+))?", device)
    if named is None:
        raise ScorerError(f"unknown device {device!r}; use cpu, cuda or cuda:N")
    if device != "cpu":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(named[1] or 0) >= count:
            raise ScorerError(
                f"device {device} was asked for, but torch {torch.__version__} sees {count}: check "
                "nvidia-smi and that this torch is built for CUDA; or use device cpu"
            )
    return torch.device(device)


def _loaded(checkpoint: Checkpoint, load: Callable[..., Any], **how: Any) -> Any:
    try:
        return load(str(checkpoint.folder), local_files_only=True, **how)
    except ImportError as error:
        raise ScorerError(f"{checkpoint.name} needs a package that is missing: {error}") from error
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        base = adapted_base(checkpoint.folder)
        of = f" (an adapter of {base}, which must be on this machine too)" if base else ""
        raise ScorerError(
            f"{checkpoint.name} cannot be loaded{of}: {lines[0]}. Name a checkpoint that "
            "transformers' AutoModelForImageTextToText reads, with its processor beside it."
        ) from error


@contextmanager
def memory_of(speaker: Speaker) -> Iterator[None]:
    """A device without memory left is no mistake of the model: it may be free again later."""
    torch = _required("torch")
    try:
        yield
    except torch.OutOfMemoryError as error:
        if speaker.device.type == "cuda":
            torch.cuda.empty_cache()
        raise ScorerUnavailable(
            f"{speaker.device} has too little memory left for the writing model: end what else "
            "uses it, make `pixels.most` of the prompts smaller, or use a smaller model"
        ) from error


def _ends(network: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end an answer."""
    named = network.generation_config.eos_token_id
    several = [named] if isinstance(named, int) else list(named or ())
    return frozenset({*several, *([tokenizer.eos_token_id] if tokenizer.eos_token_id else [])})


def _placeholders(network: Any) -> list[int]:
    """Tokens that stand for pictures."""
    names = ("image_token_id", "video_token_id", "vision_start_token_id")
    found = [getattr(network.config, name, None) for name in names]
    return [token for token in found if token is not None]
