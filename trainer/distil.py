"""What a large model says of pictures that nobody judged, as lessons for a small one.

    python -m trainer.distil --teacher SPEC --pictures FOLDER --out targets.jsonl

asks any scorer (a model folder, `writer:PLACE`, `remote:URL`) about every picture below FOLDER and
writes a line of JSON for each as soon as it has been answered:

    path, bytes           the picture, as FOLDER was named, and its size
    quality, uncertainty  0..100 and one standard deviation, null where there is no score
    levels                of the eight degradations: 0 absent, 1 to 5, -1 where the teacher is
                          not able to name it, or did not say
    model                 name@version of the teacher
    no_score_reason, message   why there is no score

A run that was interrupted goes on behind the last whole line. `trainer.warmup --targets` and
`trainer.supervised --targets` take the file as a third kind of lesson, beside people's opinions
and made damage: half as heavy, and never to choose by.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer import views
from trainer.asking import Asked, levels
from trainer.datasets import PICTURES
from trainer.extract import read_picture
from trainer.groups import UNKNOWN
from trainer.views import Views
from vqmon.domain import DEGRADATIONS
from vqmon.errors import ScorerUnavailable, VqmonError

TRANSIENT = ("scorer_unavailable", "overload")
"""Reasons for no score that may be gone when the picture is asked about again."""

PATIENCE = 5
"""Pictures in a row without an answer after which the teacher is taken to be away."""


class TargetsUnusable(ValueError):
    """The file of targets cannot be used; the text names file, line and remedy."""


@dataclass(frozen=True, slots=True)
class Target:
    """One line of a file of targets; see above."""

    path: str
    bytes: int
    quality: float | None
    uncertainty: float | None
    levels: tuple[int, ...]
    model: str
    no_score_reason: str | None = None
    message: str = ""

    @property
    def scored(self) -> bool:
        return self.quality is not None


@dataclass(frozen=True, slots=True)
class Lessons:
    """What a teacher says of n pictures. quality, uncertainty: (n,) points; levels: (n, 8), -1
    where it says nothing.
    """

    quality: NDArray[np.float32]
    uncertainty: NDArray[np.float32]
    levels: NDArray[np.int8]

    def rows(self, rows: NDArray[Any]) -> Lessons:
        return Lessons(self.quality[rows], self.uncertainty[rows], self.levels[rows])


@dataclass(frozen=True, slots=True)
class Taught:
    """Pictures as the network reads them, and what `teacher` (name@version) says of each."""

    views: Views
    lessons: Lessons
    teacher: str

    def __len__(self) -> int:
        return len(self.views)


def pictures_below(folder: Path) -> list[Path]:
    """All of them, sorted. Raises TargetsUnusable when there is none."""
    found = sorted(it for it in folder.rglob("*") if it.suffix.lower() in PICTURES)
    if not found:
        raise TargetsUnusable(
            f"{folder} holds no picture ({', '.join(PICTURES)}): name the folder they lie in"
        )
    return found


def distil(teacher: Asked, paths: Sequence[Path], out: Path) -> Iterator[Target]:
    """Ask about every picture that `out` holds no answer of; each target is on disk before it is
    given. Raises TargetsUnusable when `out` holds another teacher's answers, and ScorerUnavailable
    when the teacher has left PATIENCE pictures in a row without one.
    """
    answered = {(it.path, it.bytes) for it in _begun(teacher, out)}
    out.parent.mkdir(parents=True, exist_ok=True)
    unanswered = 0
    with out.open("a", encoding="utf-8") as file:
        for path in paths:
            if (str(path), path.stat().st_size) in answered:
                continue
            target = _target(teacher, path)
            file.write(_line(target))
            file.flush()
            yield target
            unanswered = unanswered + 1 if target.no_score_reason in TRANSIENT else 0
            if unanswered == PATIENCE:
                raise ScorerUnavailable(
                    f"{teacher.model} left {PATIENCE} pictures in a row without an answer "
                    f"({target.no_score_reason}): see to it, then run again to go on"
                )


def read(file: Path) -> list[Target]:
    """Every whole line. Raises TargetsUnusable naming what is wrong."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    except OSError as error:
        raise TargetsUnusable(
            f"{file} cannot be read ({error.strerror}): make it with python -m trainer.distil"
        ) from error
    return [
        _parsed(file, number, line) for number, line in enumerate(lines, 1) if line.endswith("\n")
    ]


def taught(file: Path, *, draws: int, processes: int = 2) -> Taught:
    """The scored pictures of a file of targets, as the network reads them; prepared ones are kept
    beside the file. Raises TargetsUnusable when a picture is gone or has changed, or none has a
    score.
    """
    scored = [it for it in read(file) if it.scored]
    if not scored:
        raise TargetsUnusable(f"{file}: the teacher gave no picture a score")
    for it in scored:
        _check_picture(file, it)
    paths = [Path(it.path) for it in scored]
    kept = file.with_suffix(".views")
    return Taught(
        views.views(paths, kept, draws=draws, processes=processes),
        Lessons(
            np.array([it.quality for it in scored], np.float32),
            np.array([it.uncertainty or 0.0 for it in scored], np.float32),
            np.array([it.levels for it in scored], np.int8),
        ),
        scored[0].model,
    )


def _begun(teacher: Asked, out: Path) -> list[Target]:
    """What is answered already. A line that was cut off is taken away, and so are those whose
    reason for no score may be gone.
    """
    if not out.is_file():
        return []
    found = [it for it in read(out) if it.no_score_reason not in TRANSIENT]
    others = sorted({it.model for it in found} - {teacher.model})
    if others:
        raise TargetsUnusable(
            f"{out} holds answers of {', '.join(others)}, and {teacher.model} is asked now: "
            "name another --out, since lessons of two teachers differ"
        )
    unfinished = out.with_name(out.name + ".part")
    unfinished.write_text("".join(map(_line, found)), encoding="utf-8")
    unfinished.replace(out)
    return found


def _target(teacher: Asked, path: Path) -> Target:
    """A picture that cannot be read, or is not answered, costs itself only."""
    size = path.stat().st_size
    silent = (UNKNOWN,) * len(DEGRADATIONS)
    try:
        frame = read_picture(path)
    except (VqmonError, ValueError) as error:
        reason = "unsupported_picture"
        return Target(str(path), size, None, None, silent, teacher.model, reason, str(error))
    (said,) = teacher.of([frame])
    if said.quality is None:
        why = said.explanation.strip("()")
        reason = said.no_score_reason or "scorer_failed"
        return Target(str(path), size, None, None, silent, teacher.model, reason, why)
    spread = None if said.uncertainty is None else round(said.uncertainty, 3)
    return Target(str(path), size, round(said.quality, 3), spread, levels(said), teacher.model)


def _line(target: Target) -> str:
    return json.dumps(asdict(target), ensure_ascii=False) + "\n"


def _parsed(file: Path, number: int, line: str) -> Target:
    try:
        raw: Mapping[str, Any] = json.loads(line)
        target = Target(**{**raw, "levels": tuple(map(int, raw["levels"]))})
    except (ValueError, TypeError, KeyError) as error:
        raise TargetsUnusable(f"{file}, line {number} is no target: {error}") from error
    if len(target.levels) != len(DEGRADATIONS):
        raise TargetsUnusable(
            f"{file}, line {number} has {len(target.levels)} levels, not {len(DEGRADATIONS)}"
        )
    if target.quality is not None and not 0 <= target.quality <= 100:
        raise TargetsUnusable(f"{file}, line {number}: quality {target.quality} is not 0 to 100")
    return target


def _check_picture(file: Path, target: Target) -> None:
    path = Path(target.path)
    if not path.is_file():
        raise TargetsUnusable(
            f"{file} names {path}, which is not there: run from where it was made, or ask again"
        )
    if path.stat().st_size != target.bytes:
        raise TargetsUnusable(
            f"{path} has changed since the teacher saw it: delete {file} and ask again"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trainer.distil", description=__doc__)
    parser.add_argument("--teacher", required=True, help="model folder, writer:PLACE, remote:URL")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--out", type=Path, required=True, help="file of targets to write")
    parser.add_argument("--device", default="cpu", help="of the teacher: cpu, cuda, cuda:N")
    given = parser.parse_args(arguments)
    try:
        paths = pictures_below(given.pictures)
        return _run(Asked(given.teacher, device=given.device), paths, given.out)
    except (VqmonError, TargetsUnusable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(teacher: Asked, paths: Sequence[Path], out: Path) -> int:
    """0; 1 when no picture at all has a score."""
    count = 0
    for count, target in enumerate(distil(teacher, paths, out), 1):
        if not target.scored:
            print(f"  {target.path}: no score, {target.no_score_reason} {target.message}")
        if count % 50 == 0:
            print(f"  {count} asked", flush=True)
    found = read(out)
    silent = sum(not it.scored for it in found)
    print(f"{teacher.model}: {count} asked now, {len(found)} in {out}, {silent} without a score")
    return 0 if len(found) > silent else 1


if __name__ == "__main__":
    sys.exit(main())
