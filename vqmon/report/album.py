"""Evidence pictures made small enough to travel inside the page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from vqmon.domain import Segment

WIDTH = 640
QUALITY = 78
PICTURE_LIMIT_PIXELS = 100_000_000


class Album:
    """Embeds pictures until the page has grown by `limit` bytes; then it says no, and counts.

    Pictures are always decoded and written again, so that nothing but a picture gets into the
    page, and never from outside the evidence folder.
    """

    def __init__(self, folder: Path | None, limit: int) -> None:
        self._folder = folder.resolve() if folder else None
        self._left = limit
        self._made: dict[tuple[str, int], str | None] = {}
        self.left_out = 0

    def show(self, segment: Segment, *, width: int = WIDTH) -> str | None:
        """A data URI of what shows a segment best, or None when there is no such picture."""
        for path in _candidates(segment):
            uri = self._embed(path, width)
            if uri:
                return uri
        return None

    def _embed(self, relative: str, width: int) -> str | None:
        if (relative, width) not in self._made:
            self._made[relative, width] = self._uri(relative, width)
        uri = self._made[relative, width]
        if uri is None:
            return None
        if len(uri) > self._left:
            self.left_out += 1
            return None
        self._left -= len(uri)
        return uri

    def _uri(self, relative: str, width: int) -> str | None:
        path = self._inside(relative)
        jpeg = _reduced(path, width) if path else None
        return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode() if jpeg else None

    def _inside(self, relative: str) -> Path | None:
        if self._folder is None:
            return None
        path = (self._folder / relative).resolve()
        return path if path.is_relative_to(self._folder) and path.is_file() else None


def _candidates(segment: Segment) -> list[str]:
    """The worst moment first, then any other, then the thumbnail."""
    worst = [path for path in segment.evidence if "worst" in path.rpartition("/")[2]]
    thumbnail = [segment.thumbnail] if segment.thumbnail else []
    return [*worst, *segment.evidence[:1], *thumbnail]


def _reduced(path: Path, width: int) -> bytes | None:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > PICTURE_LIMIT_PIXELS:
                return None
            picture.draft("RGB", (width, width))
            shown = picture.convert("RGB")
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError):
        return None
    if shown.width > width:
        shown = shown.resize((width, max(1, round(shown.height * width / shown.width))))
    out = io.BytesIO()
    shown.save(out, "JPEG", quality=QUALITY, optimize=True)
    return out.getvalue()
