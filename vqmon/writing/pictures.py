"""Pictures for a writing model, from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vqmon.errors import PictureUnsupported
from vqmon.writing.prompts import Picture


def read_picture(path: Path) -> Picture:
    """A JPEG or PNG, as training reads it and as servers do. PictureUnsupported when it is none."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            return np.asarray(opened.convert("RGB"), np.uint8)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise PictureUnsupported(f"{path} is no picture that can be read: {error}") from error
