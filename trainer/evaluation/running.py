"""Runs the tables that were asked for, prints each when it is done, and keeps them all."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trainer import datasets
from trainer.asking import Asked
from trainer.datasets import clean_photographs
from trainer.evaluation import classes, clean, contests, opinions, rates, speed
from trainer.evaluation.asis import clean_at_all_sizes
from trainer.evaluation.asking import AskingJudge, answer_table
from trainer.evaluation.drawing import draw
from trainer.evaluation.judging import Judge
from trainer.evaluation.shelf import Shelf
from trainer.evaluation.tables import Table, printed, write
from vqmon.scorers.card import read_card

TABLES = (
    "opinions",
    "five",
    "nine",
    "clean",
    "ladders",
    "rates",
    "sizes",
    "speed",
    "contests",
    "leave-out",
    "cross",
    "answers",
)
POLICIES = ("writer", "remote", "backbone")
QUICK_EVERY, QUICK_OPINIONS, QUICK_FRAMES = 8, 400, 40
DESCRIPTION = "Every figure that a release must reach, for one model."


@dataclass(frozen=True, slots=True)
class Request:
    """What to judge, on what, and where to put it; see `options`.

    model: a model folder, or what `policy` takes: a checkpoint folder or hub name of a writer, the
    URL of a server.
    """

    model: str | Path
    out: Path
    cache: Path
    policy: str = ""
    device: str = "cpu"
    biq: Path | None = None
    clean: Path | None = None
    clips: Path | None = None
    views: Path | None = None
    tables: tuple[str, ...] = TABLES
    processes: int = 1
    quick: bool = False
    sets: Mapping[str, Path] | None = None
    contest: Mapping[str, tuple[Path, ...]] | None = None
    leave_out: Mapping[str, Mapping[str, tuple[Path, ...]]] | None = None


def run(request: Request) -> dict[str, Any]:
    """All tables, as kept in `evaluation.json`; tables of an earlier run on the same model, that
    were not asked for again, stay.
    """
    os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 says what it is for every sequence
    request.out.mkdir(parents=True, exist_ok=True)
    evaluation = _Evaluation(request)
    facts = _earlier(request, evaluation.judge)
    for name in request.tables:
        make = evaluation.makers.get(name)
        if make is None:
            continue
        begun = time.monotonic()
        table = make()
        kept = table.as_json() | {"seconds": round(time.monotonic() - begun, 1)}
        print(printed(kept["rows"], table.title), flush=True)
        draw(table, request.out)
        facts["tables"] = _in_order(facts["tables"] | {name: kept})
        write(facts, request.out)
    return facts


class _Evaluation:
    """makers: of the tables that the data given allows, and the kind of model."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.judge = judge_of(request)
        self.shelf = Shelf(request.cache, request.processes)
        self.makers = dict(self._makers())

    def _makers(self) -> Iterator[tuple[str, Callable[[], Table]]]:
        given = self.request
        if given.biq:
            yield "opinions", self._opinions
        if given.clean:
            yield "five", lambda: classes.five_table(self.judge, self.shelf, self._held_out())
            yield "nine", lambda: classes.nine_table(self.judge, self.shelf, self._held_out())
            yield "clean", lambda: clean.alarm_table(self.judge, self.shelf, self._clean())
            yield "ladders", lambda: classes.ladder_table(self.judge, self.shelf, self._held_out())
            yield "rates", lambda: rates.rate_table(self.judge, self.shelf, self._sequences())
            yield "sizes", lambda: clean.size_table(self.judge, self.shelf, self._clean())
            if not isinstance(self.judge, AskingJudge):
                yield "speed", self._speed
        if given.contest and given.biq:
            yield "contests", self._contests
        if given.leave_out and given.biq:
            yield "leave-out", self._leave_out
        if given.sets:
            yield "cross", self._cross
        if isinstance(self.judge, AskingJudge):
            yield "answers", partial(answer_table, self.judge)

    def _opinions(self) -> Table:
        assert self.request.biq
        return opinions.biq_table(
            self.judge,
            self.shelf,
            self.request.biq,
            limit=self._limit(),
            views=None if isinstance(self.judge, AskingJudge) else self.request.views,
        )

    def _cross(self) -> Table:
        sets = self.request.sets or {}
        return opinions.cross_table(self.judge, self.shelf, sets, limit=self._limit())

    def _speed(self) -> Table:
        large = sorted(self._held_out(whole=True), key=lambda it: -it.stat().st_size)
        frames = QUICK_FRAMES if self.request.quick else speed.FRAMES
        table = speed.speed_table(self.judge, large, frames=frames)
        some = self._clean()[:: max(1, len(self._clean()) // 24)]
        for kept in self.shelf.kept("clean", some, clean_at_all_sizes):
            speed.add_parity(table, self.judge, kept)
        return _worst_parity(table)

    def _contests(self) -> Table:
        said, subset = self._said()
        ways = self.request.contest or {}
        given = {name: self._predictions(places) for name, places in ways.items()}
        return contests.contest_table(given, said, subset)

    def _leave_out(self) -> Table:
        said, subset = self._said()
        ways = self.request.leave_out or {}
        given = {
            way: {name: self._predictions(places) for name, places in by_subset.items()}
            for way, by_subset in ways.items()
        }
        first, *others = given
        other = given[others[0]] if others else None
        names = (first, others[0] if others else "")
        return contests.leave_out_table(given[first], said, subset, other, names)

    def _predictions(self, places: Sequence[Path]) -> contests.Values:
        return contests.read_predictions(places, self._scored)

    def _scored(self, folder: Path) -> contests.Values:
        samples = self._test()
        found = opinions.biq_judged(Judge(folder), self.shelf, samples, self.request.views)
        return found.verdicts.quality

    def _said(self) -> tuple[contests.Values, Any]:
        samples = self._test()
        return np.array([it.quality for it in samples]), np.array([it.subset for it in samples])

    def _test(self) -> list[datasets.Sample]:
        assert self.request.biq
        return [it for it in datasets.biq2021(self.request.biq) if it.split == "test"]

    def _held_out(self, *, whole: bool = False) -> list[Path]:
        assert self.request.clean
        paths = list(clean_photographs(self.request.clean).held_out)
        return paths if whole else self._some(paths)

    def _clean(self) -> list[Path]:
        assert self.request.clean
        return self._some(clean.photographs(self.request.clean))

    def _sequences(self) -> list[Path]:
        assert self.request.clean
        return self._some(rates.sources(self.request.clean, self.request.clips))

    def _some(self, paths: list[Path]) -> list[Path]:
        return paths[::QUICK_EVERY] if self.request.quick else paths

    def _limit(self) -> int | None:
        return QUICK_OPINIONS if self.request.quick else None


def judge_of(request: Request) -> Judge:
    """Of a folder of its own inputs; else one that looks at whole pictures."""
    if not request.policy and read_card(Path(request.model)).kind == "onnx":
        return Judge(Path(request.model))
    spec = f"{request.policy}:{request.model}" if request.policy else str(request.model)
    return AskingJudge(Asked(spec, device=request.device), request.cache)


def _earlier(request: Request, judge: Judge) -> dict[str, Any]:
    scope = "Quick look: a part of the pictures." if request.quick else "All pictures."
    fresh = {
        "model": judge.model,
        "files": dict(judge.identity),
        "scope": scope,
        "tables": {},
    }
    path = request.out / "evaluation.json"
    if not path.is_file():
        return fresh
    stored = json.loads(path.read_text(encoding="utf-8"))
    same = all(stored.get(key) == fresh[key] for key in ("model", "files", "scope"))
    return fresh | {"tables": stored["tables"]} if same else fresh


def _in_order(tables: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tables[name] for name in TABLES if name in tables}


def _worst_parity(table: Table) -> Table:
    """One row of parity, the worst, for all the batches."""
    rows = [row for row in table.rows if row.goal is speed.PARITY]
    others = [row for row in table.rows if row.goal is not speed.PARITY]
    table.rows = others + ([max(rows, key=lambda row: row.value)] if rows else [])
    return table


def options(arguments: Sequence[str] | None) -> Request:
    parser = argparse.ArgumentParser(prog="python -m trainer.evaluate", description=DESCRIPTION)
    parser.add_argument(
        "--model", required=True, help="model folder; checkpoint, hub name or URL with --policy"
    )
    parser.add_argument(
        "--policy",
        choices=POLICIES,
        default="",
        help="how --model is asked; none: by the folder's card",
    )
    parser.add_argument("--device", default="cpu", help="of a policy: cpu, cuda, cuda:N")
    parser.add_argument("--biq", type=Path, help="BIQ2021 as published")
    parser.add_argument("--clean", type=Path, help="clean photographs, see README")
    parser.add_argument("--clips", type=Path, help="folder of real clips, for rate ladders")
    parser.add_argument("--views", type=Path, help="of trainer.views, saves reading BIQ2021 anew")
    parser.add_argument("--out", type=Path, required=True, help="folder for tables and figures")
    parser.add_argument("--cache", type=Path, default=Path("trainer/data/evaluation"))
    parser.add_argument("--tables", default=",".join(TABLES), help=f"some of {', '.join(TABLES)}")
    parser.add_argument("--processes", type=int, default=2, help="for making pictures; 0: in this")
    parser.add_argument("--quick", action="store_true", help="every eighth photograph only")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=PLACE", help="another set of opinions"
    )
    parser.add_argument(
        "--contest",
        action="append",
        default=[],
        metavar="WAY=PLACE,PLACE,...",
        help="model folders or .npy predictions of the test split, one a seed; the first way "
        "is compared with each other one",
    )
    parser.add_argument(
        "--leave-out",
        action="append",
        default=[],
        metavar="WAY/SUBSET=PLACE,...",
        help="the same, trained without a subset",
    )
    given = parser.parse_args(arguments)
    tables = tuple(name.strip() for name in given.tables.split(","))
    if unknown := set(tables) - set(TABLES):
        parser.error(f"unknown tables {', '.join(sorted(unknown))}; known: {', '.join(TABLES)}")
    return Request(
        model=given.model,
        out=given.out,
        cache=given.cache,
        policy=given.policy,
        device=given.device,
        biq=given.biq,
        clean=given.clean,
        clips=given.clips,
        views=given.views,
        tables=tables,
        processes=given.processes,
        quick=given.quick,
        sets={name: Path(place) for name, place in map(_pair, given.set)},
        contest={name: _places(place) for name, place in map(_pair, given.contest)},
        leave_out=_by_way(map(_pair, given.leave_out)),
    )


def _by_way(pairs: Iterator[tuple[str, str]]) -> dict[str, dict[str, tuple[Path, ...]]]:
    found: dict[str, dict[str, tuple[Path, ...]]] = {}
    for name, places in pairs:
        way, _, subset = name.rpartition("/")
        found.setdefault(way or "this", {})[subset] = _places(places)
    return found


def _pair(text: str) -> tuple[str, str]:
    name, equals, place = text.partition("=")
    if not equals or not name or not place:
        raise SystemExit(f"{text!r} is not NAME=PLACE")
    return name, place


def _places(text: str) -> tuple[Path, ...]:
    return tuple(Path(place) for place in text.split(","))
