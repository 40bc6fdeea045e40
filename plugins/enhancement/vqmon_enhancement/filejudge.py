"""The judge of files: vqmon's own line from source to scorer, with what it said kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vqmon import (
    Assessment,
    Comparison,
    Finding,
    Recording,
    Scorer,
    Stream,
    VqmonError,
    monitor,
    open_source,
)

BATCH = 8


class FileJudge:
    """`vqmon_enhancement.judging.Judge` with a scorer of this process."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    def score(self, path: Path, *, every: float = 1.0) -> list[Assessment]:
        """One assessment per sampled picture."""
        return self.seen(path, every=every)[0]

    def seen(self, path: Path, *, every: float = 1.0) -> tuple[list[Assessment], list[Finding]]:
        """What the model said of the pictures, and all that is wrong with the file.

        Raises SourceError for a file that cannot be read.
        """
        recording = Recording(self._scorer)
        stream = Stream(path.name, str(path.absolute()), sampling="every", sample_every=every)
        segments = list(monitor(stream, open_source(stream), recording, batch=BATCH))
        if not segments:
            raise VqmonError(f"{path}: holds no media")
        return recording.said, [it for segment in segments for it in segment.findings]

    def compare(
        self, a: Sequence[Assessment], b: Sequence[Assessment], *, same_content: bool = False
    ) -> Comparison:
        return self._scorer.compare(a, b, same_content=same_content)
