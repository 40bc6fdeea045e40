"""Test pictures, made and prepared once and kept, whatever models are judged on them.

A recipe takes a source (a photograph, a clip) and gives shots: a frame and what is known of it.
Its shots are prepared as serving prepares them and kept in one file a source, so that a run that
was interrupted goes on where it stopped and a second model costs only its own inference.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.extract import JPEG_COLOUR, frame_of, made_up, probe_measures
from trainer.spreading import LEAN
from vqmon.domain import DEGRADATIONS, Frame
from vqmon.measures import MEASURES, Measures, findings
from vqmon.preprocess import Prepared, prepare

Facts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shot:
    """A frame, facts about it (JSON values) and numbers that go with it, of one size in a set."""

    frame: Frame
    facts: Facts
    numbers: NDArray[np.floating] = field(default_factory=lambda: np.zeros(0))


Recipe = Callable[[Path], Iterable[Shot]]


@dataclass(frozen=True, slots=True)
class Kept:
    """Prepared shots of one source: n of them.

    measured, measured_confidence: (n, 8) severity 0..5 and confidence of each of DEGRADATIONS as
    `vqmon.measures.findings` finds them, for models that name nothing themselves.
    key: of the file that holds them, the same as long as the pictures are. again: makes the
    shots anew, the same ones in the same order, for models that look at whole pictures; None
    where only inputs are known.
    """

    facts: list[Facts]
    inputs: Mapping[str, NDArray[Any]]
    measured: NDArray[np.int8]
    measured_confidence: NDArray[np.float32]
    numbers: NDArray[np.float64]
    key: str = ""
    again: Callable[[], Iterable[Shot]] | None = None

    def pictures(self) -> list[Prepared]:
        """As a scorer takes them; nothing is measured beside the inputs."""
        nothing = Measures(values=np.zeros(len(MEASURES), np.float32), cells={})
        return [
            Prepared(0.0, nothing, {name: rows[i] for name, rows in self.inputs.items()})
            for i in range(len(self.facts))
        ]


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where prepared pictures are kept, and with how many processes they are made."""

    folder: Path
    processes: int = 1

    def kept(
        self, name: str, sources: Sequence[Path], recipe: Recipe, also: Sequence[Path] = ()
    ) -> Iterator[Kept]:
        """The shots of every source, in order, made where they are not there yet.

        also: files beside the recipe's own whose text decides what it makes; a change in one of
        them makes all anew.
        """
        place = self.folder / f"{name}-{_code([Path(inspect.getfile(recipe)), *also])}"
        place.mkdir(parents=True, exist_ok=True)
        files = [place / f"{_key(source)}.npz" for source in sources]
        missing = [it for it, file in zip(sources, files, strict=True) if not file.is_file()]
        if missing:
            self._make(name, missing, partial(_make, recipe=recipe, place=place))
        for source, file in zip(sources, files, strict=True):
            key = f"{place.name}/{file.stem}"
            yield replace(_load(file), key=key, again=partial(recipe, source))

    def _make(
        self, name: str, sources: Sequence[Path], work: Callable[[Path], dict[str, Any]]
    ) -> None:
        print(f"{name}: preparing {len(sources)} sources", flush=True)
        done = map(work, sources) if self.processes < 1 else self._spread(work, sources)
        for count, _ in enumerate(done, 1):
            if count % max(5, len(sources) // 20) == 0 or count == len(sources):
                print(f"  {count} of {len(sources)}", flush=True)

    def _spread(
        self, work: Callable[[Path], dict[str, Any]], sources: Sequence[Path]
    ) -> Iterator[dict[str, Any]]:
        """In order, over several processes. Raises BrokenProcessPool when one of them dies."""
        for name, value in LEAN.items():
            os.environ.setdefault(name, value)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(self.processes, mp_context=context) as pool:
            yield from pool.map(work, sources)


def _make(source: Path, recipe: Recipe, place: Path) -> dict[str, Any]:
    """Makes a source's file, unless another run has done so meanwhile."""
    if (place / f"{_key(source)}.npz").is_file():
        return {}
    rows: list[dict[str, Any]] = [_row(shot) for shot in recipe(source)]
    facts = json.dumps([row.pop("facts") for row in rows])
    stacked = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    file = place / f"{_key(source)}.npz"
    unfinished = file.with_suffix(f".{os.getpid()}.unfinished.npz")
    np.savez(unfinished, allow_pickle=False, facts=np.array(facts), **stacked)
    unfinished.replace(file)
    return {"shots": len(rows)}


def _row(shot: Shot) -> dict[str, Any]:
    prepared = prepare(shot.frame)
    severity = np.zeros(len(DEGRADATIONS), np.int8)
    confidence = np.zeros(len(DEGRADATIONS), np.float32)
    for found in findings(shot.frame, prepared.measures):
        place = DEGRADATIONS.index(found.name)
        severity[place], confidence[place] = found.severity, found.confidence
    inputs = {f"input {name}": np.array(value) for name, value in prepared.inputs.items()}
    return {
        "facts": shot.facts,
        "measured": severity,
        "measured_confidence": confidence,
        "numbers": np.asarray(shot.numbers, np.float64),
        **inputs,
    }


def _load(file: Path) -> Kept:
    with np.load(file) as stored:
        return Kept(
            json.loads(str(stored["facts"])),
            {
                name.removeprefix("input "): stored[name]
                for name in stored.files
                if name.startswith("input ")
            },
            stored["measured"],
            stored["measured_confidence"],
            stored["numbers"],
        )


def seed_of(source: Path, *more: int) -> np.random.Generator:
    """The same draws for the same file, whatever the order of work."""
    name = int.from_bytes(hashlib.sha256(source.name.encode()).digest()[:8])
    return np.random.default_rng((name, *more))


def _key(source: Path) -> str:
    digest = hashlib.sha256(f"{source.name} {source.stat().st_size}".encode())
    return digest.hexdigest()[:16]


def _code(files: Sequence[Path]) -> str:
    digest = hashlib.sha256(_preparing().encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:10]


@cache
def _preparing() -> str:
    """The same for any code that prepares and measures the same."""
    frame = frame_of(made_up(np.random.default_rng(5), 360, 640), JPEG_COLOUR)
    inputs = prepare(frame).inputs
    digest = hashlib.sha256(inputs["patches"].tobytes() + inputs["view"].tobytes())
    digest.update(" ".join(f"{value:.4g}" for value in probe_measures().ravel()).encode())
    found = findings(frame, prepare(frame).measures)
    digest.update(str([(it.name, it.severity) for it in found]).encode())
    return digest.hexdigest()
