"""Enhanced segments beside their originals on disk, never more than fits.

kept/SEGMENT.original.mkv   kept/SEGMENT.enhanced.mp4   kept/SEGMENT.json
"""

from __future__ import annotations

from pathlib import Path


class Shelf:
    """Keeps whole sets of files; the oldest sets go when more than `most` bytes are used."""

    def __init__(self, folder: Path, most: int) -> None:
        self._folder = folder
        self._most = most

    def place(self, segment: str, kind: str) -> Path:
        """Where a file of a segment lies; kind: `original.mkv`, `enhanced.mp4`, `json`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / f"{segment}.{kind}"

    def discard(self, segment: str) -> None:
        """All files of one segment."""
        for path in self._folder.glob(f"{segment}.*"):
            path.unlink(missing_ok=True)

    def make_room(self) -> list[str]:
        """Delete the oldest sets until the rest fits; return their segments."""
        sets: dict[str, list[Path]] = {}
        for path in self._folder.glob("*.*"):
            sets.setdefault(path.name.partition(".")[0], []).append(path)
        by_age = sorted(sets, key=lambda it: max(file.stat().st_mtime for file in sets[it]))
        used = {it: sum(file.stat().st_size for file in sets[it]) for it in sets}
        gone = []
        for segment in by_age:
            if sum(used.values()) <= self._most:
                break
            self.discard(segment)
            used.pop(segment)
            gone.append(segment)
        return gone
