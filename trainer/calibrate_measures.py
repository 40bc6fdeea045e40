"""How the limits of `vqmon.measures.findings` were chosen, and what they catch.

    python -m trainer.calibrate_measures --photographs DIR [--photographs DIR ...] --cache DIR

Takes clean photographs (CID22 training, BSDS500 train; never a picture that evaluation uses),
leaves them clean in several ways, damages them in known ways at known strengths, measures all,
and fits the four indexes of `vqmon/measures/calibrated.py`, which `--write` replaces:

    compression   ordinal regression on level 0..5: P(level >= j) = sigmoid(x.w - theta_j),
                  one w for all levels, so that severity rises with damage
    enlargement   the same on the level of upscaling; Gaussian blur is level 0, so that the two
                  are told apart by spectrum and interpolation period, not by softness
    softness      least squares on log sigma of the blur, clean pictures counting as 0.45 pixels
    enlarged_by   least squares on the log of the factor, on enlarged pictures alone

Photographs of every fifth fold are left out of a fit and judged by it: the printed shares of
false alarms and detections are of pictures that the fit never saw.
"""

from __future__ import annotations

import argparse
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, optimize

from trainer.degrade import through_h264, through_jpeg
from trainer.extract import JPEG_COLOUR, VIDEO_COLOUR, frame_of
from trainer.spreading import spread
from vqmon import measures, patches
from vqmon.measures import MEASURES, Measures, measure
from vqmon.measures import degradations as judged
from vqmon.measures.index import Index, Term

Picture = NDArray[np.uint8]
Values = NDArray[np.float64]
Change = Callable[[Picture, np.random.Generator], Picture]

FOLDS = 5
SHARP_SIGMA = 0.45
"""Blur in pixels that a sharp photograph already has, by lens and sampling."""

COMPRESSION = (
    "block_across", "block_down", "block_faint", "block_bands", "block_bands_high", "block_dead",
    "block_detail", "sharp4", "half_shape", "half_variance", "fine_side_shape",
    "fine_side_right", "fine_diagonal_shape", "period_4", "period_8_3", "period_2",
)  # fmt: skip
ENLARGEMENT = (
    "block_detail", "sharp1", "sharp2", "sharp4", "sharp_half1", "noise_high", "half_shape",
    "half_variance", "fine_side_left", "fine_diagonal_left", "fine_diagonal_shape",
    "half_diagonal_left", "period_8", "period_4", "period_8_3", "period_2", "period_3",
    "period_2.5",
)  # fmt: skip
SOFTNESS = ("sharp1", "sharp2", "sharp4", "sharp_half1")
"""What each index reads: what backward elimination by weight left over."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One thing done to a photograph. kind "clean..." must not be found damaged.

    finding: what must be found from the strength on that the brief calls clear, else "".
    """

    kind: str
    strength: float
    change: Change
    finding: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """Rows of all variants of all photographs. values (n, F); cells (n, maps, 3, 3)."""

    values: Values
    cells: NDArray[np.float32]
    kind: NDArray[np.str_]
    strength: Values
    fold: NDArray[np.int64]
    finding: NDArray[np.str_]

    def column(self, name: str) -> Values:
        return self.values[:, MEASURES.index(name)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photographs", type=Path, action="append", required=True)
    parser.add_argument("--cache", type=Path, required=True, help="folder to keep measures in")
    parser.add_argument("--every", type=int, default=1, help="take every n-th photograph")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="replace the calibration in vqmon")
    arguments = parser.parse_args()
    paths = sorted(p for folder in arguments.photographs for p in folder.iterdir())
    paths = [p for p in paths if p.suffix in {".png", ".jpg"}][:: arguments.every]
    rows = _cached(arguments.cache, paths, arguments.processes)
    report(rows)
    if arguments.write:
        write(fit(rows))


def variants() -> Iterator[Variant]:
    """What is measured of every photograph."""
    yield Variant("clean", 0, lambda p, _: p)
    yield Variant("clean jpeg 90", 0, lambda p, _: through_jpeg(p, 90))
    yield Variant("clean h264 crf 18", 0, lambda p, _: h264(p, 18))
    yield Variant("clean reduced 2:1", 0, lambda p, _: reduced(p))
    yield Variant("clean low key", 0, lambda p, _: curve(p, 1.5))
    yield Variant("clean high key", 0, lambda p, _: curve(p, 0.7))
    yield Variant("clean shallow focus", 0, lambda p, _: shallow(p))
    yield Variant("clean film grain", 0, grain)
    yield Variant("mild jpeg 75", 75, lambda p, _: through_jpeg(p, 75))
    for sigma in (0.6, 0.8, 1, 1.5, 2, 3, 5):
        found = "blur" if sigma >= 2 else ""
        yield Variant("blur", sigma, partial(blurred, sigma=sigma), found)
    for sigma in (1, 2, 3):
        change = _then_h264(partial(blurred, sigma=sigma))
        yield Variant("blur, h264 crf 23", sigma, change)
    for sigma in (0.01, 0.02, 0.04, 0.08, 0.12, 0.2):
        found = "noise" if sigma >= 0.08 else ""
        yield Variant("noise", sigma, partial(noisy, sigma=sigma), found)
    for quality in (70, 50, 30, 20, 15, 10, 5):
        found = "compression" if quality <= 15 else ""
        yield Variant("jpeg", quality, partial(_jpeg, quality=quality), found)
    for crf in (23, 28, 32, 36, 40, 44, 48):
        found = "compression" if crf >= 40 else ""
        yield Variant("h264", crf, partial(_h264, crf=crf), found)
    for scale in (6, 12, 24):
        yield Variant("mpeg2", scale, partial(mpeg2, scale=scale))
    for stops in (-3, -2, -1, 1, 2, 3):
        found = {-1: "underexposed", 1: "overexposed"}[stops // abs(stops)]
        change = partial(exposed, stops=stops)
        yield Variant("stops", stops, change, found if abs(stops) >= 2 else "")
    for factor in (1.5, 2, 2.5, 3, 4):
        change = partial(enlarged, factor=factor, method=Image.Resampling.BICUBIC)
        yield Variant("bicubic", factor, change, "upscaled" if factor >= 3 else "")
        if factor in {2, 3}:
            yield Variant("bicubic, h264 crf 23", factor, _then_h264(change))
    for factor in (1.5, 2, 3):
        change = partial(enlarged, factor=factor, method=Image.Resampling.BILINEAR)
        yield Variant("bilinear", factor, change, "upscaled" if factor >= 3 else "")
    for factor in (2, 3):
        change = partial(enlarged, factor=factor, method=Image.Resampling.LANCZOS)
        yield Variant("lanczos", factor, change, "upscaled" if factor >= 3 else "")
    for levels in (64, 32, 16, 8):
        found = "banding" if levels <= 32 else ""
        yield Variant("levels", levels, partial(banded, levels=levels), found)


def blurred(picture: Picture, _: np.random.Generator, *, sigma: float) -> Picture:
    return _rounded(ndimage.gaussian_filter(picture.astype(np.float32), (sigma, sigma, 0)))


def noisy(picture: Picture, rng: np.random.Generator, *, sigma: float) -> Picture:
    """sigma: of full scale, red, green and blue independent."""
    return _rounded(picture + 255 * sigma * rng.standard_normal(picture.shape, np.float32))


def grain(picture: Picture, rng: np.random.Generator) -> Picture:
    """Coarse, grey, of 3.5 levels: what film shows."""
    coarse = ndimage.gaussian_filter(rng.standard_normal(picture.shape[:2]), 0.6)
    return _rounded(picture + (3.5 * coarse / coarse.std())[..., None])


def shallow(picture: Picture) -> Picture:
    """Sharp in a disc of about a quarter of the picture, far out of focus elsewhere."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[:height, :width]
    radius = np.hypot((y - 0.55 * height) / height, (x - 0.4 * width) / width)
    away = np.clip((radius - 0.28) / 0.08, 0, 1)[..., None]
    soft = ndimage.gaussian_filter(picture.astype(np.float32), (5, 5, 0))
    return _rounded(picture * (1 - away) + soft * away)


def curve(picture: Picture, gamma: float) -> Picture:
    return _rounded(255 * (picture / 255.0) ** gamma)


def reduced(picture: Picture) -> Picture:
    height, width = (n // 2 * 2 for n in picture.shape[:2])
    pieces = picture[:height, :width].reshape(height // 2, 2, width // 2, 2, 3)
    return _rounded(pieces.mean((1, 3), dtype=np.float32))


def exposed(picture: Picture, _: np.random.Generator, *, stops: float) -> Picture:
    """Through linear light with a gamma of 2.2."""
    linear = np.clip((picture / 255.0) ** 2.2 * 2**stops, 0, 1)
    return _rounded(255 * linear ** (1 / 2.2))


def enlarged(
    picture: Picture, _: np.random.Generator, *, factor: float, method: Image.Resampling
) -> Picture:
    height, width = picture.shape[:2]
    small = Image.fromarray(picture).resize(
        (round(width / factor), round(height / factor)), Image.Resampling.LANCZOS
    )
    return np.asarray(small.resize((width, height), method))


def banded(picture: Picture, _: np.random.Generator, *, levels: int) -> Picture:
    step = 256 / levels
    return _rounded(np.floor(picture / step) * step + step / 2)


def h264(picture: Picture, crf: int) -> Picture:
    return through_h264(_pan(picture), crf)[-1]


def mpeg2(picture: Picture, _: np.random.Generator, *, scale: int) -> Picture:
    """MPEG-2 at a fixed quantiser scale: a codec that does not smooth its grid away."""
    frames = _pan(picture)
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.options = {"qmin": str(scale), "qmax": str(scale)}
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as decoded:
        last = list(decoded.decode(video=0))[-1]
        return np.asarray(last.to_ndarray(format="rgb24"), np.uint8)


def _jpeg(picture: Picture, _: np.random.Generator, *, quality: int) -> Picture:
    return through_jpeg(picture, quality)


def _h264(picture: Picture, _: np.random.Generator, *, crf: int) -> Picture:
    return h264(picture, crf)


def _then_h264(change: Change) -> Change:
    return lambda picture, rng: h264(change(picture, rng), 23)


def _pan(picture: Picture) -> list[Picture]:
    """Three frames of a slow pan, so that a codec predicts as in video."""
    height, width = ((n - m) // 2 * 2 for n, m in zip(picture.shape[:2], (4, 6), strict=True))
    return [picture[2 * i : 2 * i + height, 3 * i : 3 * i + width] for i in range(3)]


def _rounded(picture: NDArray[np.floating]) -> Picture:
    return np.asarray(np.clip(np.rint(picture), 0, 255), np.uint8)


def _cached(folder: Path, paths: list[Path], processes: int) -> Measured:
    """Measure all variants of all photographs, once for the same code of measuring."""
    folder = folder / _code_digest()
    folder.mkdir(parents=True, exist_ok=True)
    work = partial(_measured, folder=folder)
    for done, _ in enumerate(spread(work, paths, processes), 1):
        if done % 50 == 0 or done == len(paths):
            print(f"measured {done} of {len(paths)} photographs", flush=True)
    found = [np.load(_file(path, folder)) for path in paths]
    return _rows(*(np.concatenate([f[part] for f in found]) for part in ("values", "cells")))


def _code_digest() -> str:
    folders = [Path(module.__file__ or "").parent for module in (patches, measures)]
    code = [path for folder in folders for path in sorted(folder.glob("*.py"))]
    code = [path for path in code if path.stem not in {"degradations", "calibrated", "index"}]
    listed = repr([(v.kind, v.strength) for v in variants()]).encode()
    return hashlib.sha256(b"".join(p.read_bytes() for p in code) + listed).hexdigest()[:12]


def _file(path: Path, folder: Path) -> Path:
    return folder / f"{path.stem}.npz"


def _measured(path: Path, folder: Path) -> None:
    """Keep (variants, F) and (variants, maps, 3, 3) of one photograph, in the order of
    `variants`.
    """
    if _file(path, folder).exists():
        return
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(path.name.encode()).digest()[:8]))
    picture = np.asarray(Image.open(path).convert("RGB"))
    found = []
    for variant in variants():
        colour = JPEG_COLOUR if rng.random() < 0.5 else VIDEO_COLOUR
        found.append(measure(frame_of(variant.change(picture, rng), colour)))
    unfinished = folder / f"{path.stem}.part.npz"
    np.savez(
        unfinished,
        values=np.stack([m.values for m in found]),
        cells=np.stack([np.stack(list(m.cells.values())) for m in found]),
    )
    unfinished.replace(_file(path, folder))


def _rows(values: NDArray[np.float32], cells: NDArray[np.float32]) -> Measured:
    each = list(variants())
    photographs = len(values) // len(each)
    order = np.random.default_rng(0).permutation(photographs)
    return Measured(
        values=values.astype(np.float64),
        cells=cells,
        kind=np.tile([v.kind for v in each], photographs),
        strength=np.tile([float(v.strength) for v in each], photographs),
        finding=np.tile([v.finding for v in each], photographs),
        fold=np.repeat(order % FOLDS, len(each)),
    )


def fit(rows: Measured) -> dict[str, Index]:
    """The indexes, from all rows given."""
    return {
        "compression": ordinal(rows, COMPRESSION, compression_level(rows), 5, weights(rows)),
        "enlargement": ordinal(rows, ENLARGEMENT, enlargement_level(rows), 4, weights(rows)),
        "softness": softness(rows),
        "enlarged_by": enlarged_by(rows),
    }


LEVELS: Mapping[str, Mapping[float, int]] = {
    "jpeg": {50: 1, 30: 2, 20: 3, 15: 3, 10: 4, 5: 5},
    "h264": {32: 1, 36: 2, 40: 3, 44: 4, 48: 5},
    "mpeg2": {12: 2, 24: 4},
}
"""Severity of coding at each quality, crf and quantiser scale, as the ladders of
`trainer.degrade` count it."""


def compression_level(rows: Measured) -> NDArray[np.int64]:
    level = np.zeros(len(rows.kind), np.int64)
    for kind, levels in LEVELS.items():
        for strength, number in levels.items():
            level[(rows.kind == kind) & (rows.strength == strength)] = number
    return level


def enlargement_level(rows: Measured) -> NDArray[np.int64]:
    level = np.searchsorted((1.4, 1.9, 2.9, 3.9), rows.strength)
    return np.where(_enlarged_rows(rows), level, 0)


def _enlarged_rows(rows: Measured) -> NDArray[np.bool_]:
    scaled = [np.char.startswith(rows.kind, k) for k in ("bicubic", "bilinear", "lanczos")]
    return np.asarray(np.logical_or.reduce(scaled))


def weights(rows: Measured) -> Values:
    """Clean pictures and blur count more: what they are mistaken for costs most."""
    clean = np.char.startswith(rows.kind, "clean")
    blur = np.char.startswith(rows.kind, "blur")
    return np.where(clean, 3.0, np.where(blur, 2.0, 1.0))


def ordinal(
    rows: Measured, names: tuple[str, ...], level: NDArray[np.int64], levels: int, weight: Values
) -> Index:
    """Proportional odds with a ridge of 0.002 on standardised inputs."""
    z, low, high, centre, scale = _standard(rows, names)
    count = len(names)

    def loss(parameters: Values) -> tuple[float, Values]:
        score, total, gradient = z @ parameters[:count], 0.0, np.zeros_like(parameters)
        for j in range(levels):
            reached = level > j
            p = 1 / (1 + np.exp(-np.clip(score - parameters[count + j], -40, 40)))
            total -= (weight * np.log(np.where(reached, p, 1 - p) + 1e-9)).sum()
            error = weight * (p - reached)
            gradient[:count] += z.T @ error
            gradient[count + j] -= error.sum()
        ridge = 0.002 * (parameters[:count] ** 2).sum()
        slope = np.r_[0.004 * parameters[:count], np.zeros(levels)]
        return total / weight.sum() + ridge, gradient / weight.sum() + slope

    start = np.r_[np.zeros(count), np.linspace(0, 4, levels)]
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 3000})
    slopes, steps = found.x[:count] / scale, found.x[count:]
    terms = tuple(
        Term(n, float(lo), float(hi), float(s), 0.0)
        for n, lo, hi, s in zip(names, low, high, slopes, strict=True)
    )
    return Index(float(-(slopes * centre).sum()), terms, tuple(float(s) for s in steps))


def _standard(
    rows: Measured, names: tuple[str, ...]
) -> tuple[Values, Values, Values, Values, Values]:
    """Inputs clipped to their middle 99 %, standardised; limits, centre and scale."""
    x = np.stack([rows.column(name) for name in names], axis=1)
    low, high = np.percentile(x, (0.5, 99.5), axis=0)
    x = np.clip(x, low, high)
    centre, scale = x.mean(axis=0), x.std(axis=0) + 1e-9
    return (x - centre) / scale, low, high, centre, scale


def softness(rows: Measured) -> Index:
    """Log of the blur's sigma in pixels, the sharpness of a clean picture included."""
    blur = np.char.startswith(rows.kind, "blur")
    clean = np.char.startswith(rows.kind, "clean")
    target = np.log(np.where(blur, np.hypot(rows.strength, SHARP_SIGMA), SHARP_SIGMA))
    weight = np.where(blur, 1.0, np.where(clean, 0.35, 0.0))
    return _least_squares(rows, SOFTNESS, target, weight)


def enlarged_by(rows: Measured) -> Index:
    target = np.log(np.maximum(rows.strength, 0.1))
    return _least_squares(rows, SOFTNESS, target, _enlarged_rows(rows).astype(np.float64))


def _least_squares(rows: Measured, names: tuple[str, ...], target: Values, weight: Values) -> Index:
    used = weight > 0
    x = np.stack([rows.column(name) for name in names], axis=1)
    low, high = np.percentile(x[used], (0.5, 99.5), axis=0)
    x = np.clip(x, low, high)
    design = np.c_[np.ones(len(x)), x, x**2] * np.sqrt(weight)[:, None]
    found = np.linalg.lstsq(design, target * np.sqrt(weight), rcond=None)[0]
    count = len(names)
    terms = tuple(
        Term(n, float(low[i]), float(high[i]), float(found[1 + i]), float(found[1 + count + i]))
        for i, n in enumerate(names)
    )
    return Index(float(found[0]), terms, ())


def report(rows: Measured) -> None:
    """Print what is found of each variant, by fits that never saw the photograph."""
    found = np.empty(len(rows.kind), object)
    for fold in range(FOLDS):
        train, held_out = rows.fold != fold, np.flatnonzero(rows.fold == fold)
        indexes = fit(_taken(rows, train))
        for i in held_out:
            found[i] = _found(rows, int(i), indexes)
    _print_table(rows, found)


def _taken(rows: Measured, used: NDArray[np.bool_]) -> Measured:
    parts = ("values", "cells", "kind", "strength", "fold", "finding")
    return replace(rows, **{part: getattr(rows, part)[used] for part in parts})


def _found(rows: Measured, row: int, indexes: Mapping[str, Index]) -> dict[str, int]:
    maps = dict(zip(("blur", "noise", "blockiness", "luma", "black"), rows.cells[row], strict=True))
    measured = Measures(rows.values[row].astype(np.float32), maps)
    shown = judged.judge(measured, short_side=512, qp=None, indexes=indexes)
    return {verdict.name: verdict.severity for verdict in shown}


def _print_table(rows: Measured, found: NDArray[np.object_]) -> None:
    names = ("blur", "noise", "compression", "banding", "underexposed", "overexposed", "upscaled")
    print(f"{'variant':24}{'strength':>9}{'any':>7}" + "".join(f"{n[:9]:>15}" for n in names))
    order = dict.fromkeys(zip(rows.kind.tolist(), rows.strength.tolist(), strict=True))
    for kind, strength in order:
        here = list(found[(rows.kind == kind) & (rows.strength == strength)])
        line = f"{kind:24}{strength:9}{np.mean([bool(f) for f in here]):7.1%}"
        for name in names:
            severities = [f[name] for f in here if name in f]
            mean = f"{np.mean(severities):.1f}" if severities else "-"
            line += f"{len(severities) / len(here):9.1%}{mean:>6}"
        print(line)
    clean = np.char.startswith(rows.kind, "clean")
    print(f"false alarms, all clean variants: {np.mean([bool(f) for f in found[clean]]):.1%}")
    for name in names:
        due = rows.finding == name
        share = np.mean([name in f for f in found[due]])
        print(f"clear {name}: found {share:.1%} of {due.sum()}")


def write(indexes: Mapping[str, Index]) -> None:
    lines = [
        '"""Written by `python -m trainer.calibrate_measures --write`; do not edit."""',
        "",
        "from vqmon.measures.index import Index, Term",
        "",
        "INDEXES = {",
    ]
    for name, index in indexes.items():
        lines.append(f'    "{name}": Index(')
        lines.append(f"        {index.constant:.6g},")
        lines.append("        (")
        lines += [
            f'            Term("{t.name}", {t.low:.6g}, {t.high:.6g}, {t.slope:.6g}, {t.square:.6g}),'
            for t in index.terms
        ]
        lines.append("        ),")
        steps = "".join(f"{step:.6g}, " for step in index.steps).rstrip()
        lines.append(f"        ({steps}),")
        lines.append("    ),")
    target = Path(judged.__file__).with_name("calibrated.py")
    target.write_text("\n".join([*lines, "}", ""]), encoding="utf-8")
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
