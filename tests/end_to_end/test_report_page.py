"""The page as a browser shows it, drawn by a real one."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vqmon import report
from vqmon.domain import Finding, Segment
from vqmon.store import open_store

BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
BEGAN = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
WIDTH = 1280

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium: apt install chromium")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of two hours of two streams, with a red evidence picture, from a real database."""
    folder = tmp_path_factory.mktemp("page")
    Image.new("RGB", (640, 360), (255, 0, 0)).save(folder / "worst.jpg")
    with open_store(f"sqlite:///{folder}/vqmon.db") as store:
        store.add(_segment(stream, n) for stream in ("news", "sports") for n in range(720))
        built = report.build(store, BEGAN, BEGAN + timedelta(hours=2), evidence_folder=folder)
    path = folder / "report.html"
    path.write_text(report.to_html(built), encoding="utf-8")
    return path


def _segment(stream: str, n: int) -> Segment:
    broken = 300 <= n < 330
    freeze = Finding("freeze", 4, 0.9, 12.0, 2.0, "s", None, 10.0 * n, 10.0)
    return Segment(
        stream,
        BEGAN + timedelta(seconds=10 * n),
        10.0 * n,
        10.0,
        5,
        30.0 if broken else 75.0,
        20.0 if broken else 70.0,
        4.0,
        (freeze,) if broken else (),
        "1. The picture stands still.",
        model="signals@1",
        evidence=("worst.jpg",) if broken else (),
    )


def drawn(page: Path, width: int, height: int, *, dark: bool = False) -> np.ndarray:
    """RGB pixels of the top of the page in a window of this size."""
    assert BROWSER is not None
    picture = page.parent / f"{width}-{dark}.png"
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={page.parent / 'profile'}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        f"--screenshot={picture}",
        f"--window-size={width},{height}",
        page.as_uri(),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=100)
    with Image.open(picture) as shown:
        return np.asarray(shown.convert("RGB")).astype(int)


def test_the_page_is_drawn_with_plots_and_evidence(page: Path) -> None:
    """Valid HTML can still be an empty window: this looks at the pixels."""
    pixels = drawn(page, WIDTH, 2400)

    red = (pixels[..., 0] > 200) & (pixels[..., 1] < 60) & (pixels[..., 2] < 60)
    blue = (pixels[..., 2] - pixels[..., 0] > 90) & (pixels[..., 2] > 150)
    assert pixels[5, 5].min() > 235
    assert red.sum() > 20_000
    assert blue.sum() > 1_000


def test_the_page_follows_the_dark_theme(page: Path) -> None:
    """A white page at night is the first complaint about any dashboard."""
    pixels = drawn(page, WIDTH, 800, dark=True)

    assert pixels[5, 5].max() < 40
    assert np.median(pixels) < 60
    assert pixels.max() > 200


def test_the_page_fits_a_narrow_window(page: Path) -> None:
    """Nothing may stick out sideways on a telephone; wide tables and plots scroll in themselves."""
    pixels = drawn(page, 500, 2400)

    background = pixels[5, 5]
    margin = np.abs(pixels[:, -6:] - background).max()
    assert margin <= 3
