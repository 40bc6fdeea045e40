"""Which filters mend what, and how hard. Pure.

A `Step` is a remedy at a strength; a `Recipe` is a few of them in the order in which they must
come: fields first, then what coding and noise left, then light, then sharpness, which would
enlarge all of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from vqmon import Finding

STRENGTHS = range(1, 6)

_SMOOTHS, _SHARPENS = (1, 2), 5

Filters = tuple[tuple[str, str], ...]
"""(name, arguments) of FFmpeg filters, in their order."""


def _steps(*values: float) -> Callable[[int], float]:
    return lambda strength: values[strength - 1]


_DEBLOCK = _steps(0.05, 0.098, 0.15, 0.22, 0.32)
_SMOOTH = _steps(1.0, 1.6, 2.4, 3.4, 5.0)
_NLMEANS = _steps(1.5, 2.5, 4.0, 7.0, 11.0)
_BM3D = _steps(2.0, 4.0, 7.0, 12.0, 18.0)
_OVER_TIME = _steps(0.01, 0.02, 0.035, 0.06, 0.09)
_GRADFUN = _steps(0.8, 1.2, 2.0, 3.5, 6.0)
_DEBAND = _steps(0.01, 0.015, 0.022, 0.03, 0.042)
_CAS = _steps(0.2, 0.35, 0.5, 0.7, 0.9)
_UNSHARP = _steps(0.3, 0.6, 0.9, 1.3, 1.8)
_LIFT = _steps(0.55, 0.6, 0.66, 0.72, 0.78)
_WHITE = _steps(0.85, 0.7, 0.58, 0.46, 0.36)
_LOWER = _steps(0.46, 0.42, 0.38, 0.34, 0.3)


def _deblock(strength: int) -> Filters:
    alpha = _DEBLOCK(strength)
    kind = "weak" if strength < 3 else "strong"
    rest = f"beta={alpha / 2:.3f}:gamma={alpha / 2:.3f}:delta={alpha / 2:.3f}"
    return (("deblock", f"filter={kind}:block=8:alpha={alpha:.3f}:{rest}"),)


def _dering(strength: int) -> Filters:
    """Blocks first, then what rings around edges."""
    sigma = _SMOOTH(strength)
    return (*_deblock(strength), ("nlmeans", f"s={sigma}:p=5:r=5"))


def _nlmeans(strength: int) -> Filters:
    return (("nlmeans", f"s={_NLMEANS(strength)}:p=5:r=7"),)


def _bm3d(strength: int) -> Filters:
    return (("bm3d", f"sigma={_BM3D(strength)}:block=8:bstep=8:group=1"),)


def _over_time(strength: int) -> Filters:
    """Where nothing moves, the mean of five pictures."""
    low = _OVER_TIME(strength)
    planes = ":".join(f"{plane}a={low:.3f}:{plane}b={2 * low:.3f}" for plane in ("0", "1", "2"))
    return (("atadenoise", f"{planes}:s=5"),)


def _gradfun(strength: int) -> Filters:
    return (("gradfun", f"strength={_GRADFUN(strength)}:radius=16"),)


def _deband(strength: int) -> Filters:
    threshold = _DEBAND(strength)
    each = ":".join(f"{plane}thr={threshold}" for plane in (1, 2, 3))
    return (("deband", f"{each}:range=16:blur=1"),)


def _cas(strength: int) -> Filters:
    return (("cas", f"strength={_CAS(strength)}:planes=1"),)


def _unsharp(strength: int) -> Filters:
    return (("unsharp", f"lx=5:ly=5:la={_UNSHARP(strength)}:cx=5:cy=5:ca=0"),)


def _in_rgb(name: str, arguments: str) -> Filters:
    """Light is changed in deep R'G'B', so that hues stay and no steps appear."""
    return (("format", "gbrp16le"), (name, arguments), ("format", "yuv420p"))


def _lift(strength: int) -> Filters:
    """The midtones rise; black and white stay."""
    return _in_rgb("curves", f"master='0/0 0.35/{_LIFT(strength)} 1/1'")


def _stretch(strength: int) -> Filters:
    """The brightest becomes white."""
    top = _WHITE(strength)
    return _in_rgb("colorlevels", f"rimax={top}:gimax={top}:bimax={top}")


def _lower(strength: int) -> Filters:
    """The midtones sink; what is burnt out stays so."""
    return _in_rgb("curves", f"master='0/0 0.55/{_LOWER(strength)} 1/1'")


def _stops(strength: int) -> Filters:
    """As if the lens had been closed a little."""
    return (
        ("format", "gbrpf32le"),
        ("exposure", f"exposure={-0.2 * strength:.1f}"),
        ("format", "yuv420p"),
    )


def _bwdif(strength: int) -> Filters:  # noqa: ARG001  fields are there or not
    return (("bwdif", "mode=send_frame:parity={fields}:deint=all"),)


def _yadif(strength: int) -> Filters:  # noqa: ARG001  fields are there or not
    return (("yadif", "mode=send_frame:parity={fields}:deint=all"),)


@dataclass(frozen=True, slots=True)
class Remedy:
    """stage: its place in a recipe. filters: by strength, 1 to 5."""

    name: str
    does: str
    stage: int
    filters: Callable[[int], Filters]


REMEDIES = {
    it.name: it
    for it in (
        Remedy("bwdif", "joins the fields", 0, _bwdif),
        Remedy("yadif", "joins the fields", 0, _yadif),
        Remedy("deblock", "smooths the edges of coding blocks", 1, _deblock),
        Remedy("dering", "smooths block edges and the ringing beside outlines", 1, _dering),
        Remedy("nlmeans", "averages like patches of one picture", 2, _nlmeans),
        Remedy("bm3d", "filters each block in its frequencies", 2, _bm3d),
        Remedy("atadenoise", "averages over time where nothing moves", 2, _over_time),
        Remedy("gradfun", "dithers steps in soft gradients", 3, _gradfun),
        Remedy("deband", "blends steps in soft gradients", 3, _deband),
        Remedy("lift", "raises the midtones", 4, _lift),
        Remedy("stretch", "raises the brightest to white", 4, _stretch),
        Remedy("lower", "lowers the midtones", 4, _lower),
        Remedy("stops", "darkens as a smaller aperture would", 4, _stops),
        Remedy("cas", "sharpens where contrast is low", 5, _cas),
        Remedy("unsharp", "sharpens edges", 5, _unsharp),
    )
}

MENDS = {
    "compression": ("deblock", "dering", "atadenoise"),
    "noise": ("nlmeans", "atadenoise", "bm3d"),
    "banding": ("gradfun", "deband"),
    "blur": ("cas", "unsharp"),
    "underexposed": ("lift", "stretch"),
    "overexposed": ("lower", "stops"),
}
"""What may help against what, the likeliest first."""

ENLARGED = {"compression": "deblock", "noise": "nlmeans"}
"""Damage that sharpening would sharpen too, and what must come before it."""

GENTLY = 2
"""The most that may be sharpened then."""

LOST = {
    "overexposed": (4, "so much is burnt out that no filter can bring the detail back"),
    "underexposed": (5, "there is too little light in it to raise"),
    "blur": (5, "too much detail is gone to sharpen what is left"),
}
"""From which severity on a finding is past mending, and why."""

UNMENDABLE = {
    "upscaled": "the detail was never there, and no filter invents it",
    "corrupted": "parts of the pictures are missing",
    "black": "there is no picture",
    "freeze": "the pictures in between are missing",
    "stutter": "the pictures in between are missing",
    "slate": "it is a still picture in place of the programme",
    "no_signal": "there is no picture",
    "underfed": "media came too slowly; the pictures are as they are",
    "bitrate_collapse": "only the encoder can give it more bits; see its other findings",
    "timestamp_jump": "it is a fault of time, not of pictures",
    "format_changed": "it is a change, not a damage",
    "packet_loss": "parts of the pictures are missing",
    "audio_silence": "it is about the sound, which is left as it is",
    "audio_loudness": "it is about the sound, which is left as it is",
    "audio_clipping": "it is about the sound, which is left as it is",
    "overload": "it is about the watching, not about the pictures",
    "storage_low": "it is about the watching, not about the pictures",
}
"""Why no filter mends it."""


@dataclass(frozen=True, slots=True)
class Step:
    """One remedy. strength: 1 (hardly visible) to 5."""

    remedy: str
    strength: int

    def __str__(self) -> str:
        return f"{self.remedy} {self.strength}"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Remedies in the order in which they are applied; no remedy twice."""

    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return " + ".join(str(it) for it in self.steps)

    def filters(self, fields: str = "") -> Filters:
        """For FFmpeg. fields: which one of a picture is earlier, tff or bff."""
        return tuple(
            (name, arguments.replace("{fields}", fields or "auto"))
            for step in self.steps
            for name, arguments in REMEDIES[step.remedy].filters(step.strength)
        )

    @property
    def does(self) -> str:
        """In words."""
        return ", and ".join(REMEDIES[it.remedy].does for it in self.steps)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What can be tried and what cannot be mended.

    mendable: severity by finding, the gravest first; `interlaced` (severity 3) is one here.
    beyond: by finding, why nothing is tried.
    """

    mendable: dict[str, int] = field(default_factory=dict)
    beyond: dict[str, str] = field(default_factory=dict)

    @property
    def first(self) -> tuple[Step, ...]:
        """What must come before any sharpening."""
        return tuple(
            Step(remedy, self.mendable[name])
            for name, remedy in ENLARGED.items()
            if name in self.mendable
        )


def diagnosed(findings: Iterable[Finding], *, interlaced: bool = False) -> Diagnosis:
    """Sort findings into those that filters mend and those that they do not."""
    worst: dict[str, int] = {}
    for it in findings:
        worst[it.name] = max(it.severity, worst.get(it.name, 0))
    beyond, mendable = {}, {"interlaced": 3} if interlaced else {}
    for name, severity in sorted(worst.items(), key=lambda it: (-it[1], it[0])):
        lost_from, why = LOST.get(name, (6, ""))
        if name in MENDS and severity < lost_from:
            mendable[name] = severity
        else:
            beyond[name] = why or UNMENDABLE.get(name, "no filter is known for it")
    return Diagnosis(dict(sorted(mendable.items(), key=lambda it: -it[1])), beyond)


def singles(diagnosis: Diagnosis) -> list[tuple[str, list[Recipe]]]:
    """By finding: each remedy against it alone, as strong as the finding is grave."""
    always = [Step("bwdif", 1)] if "interlaced" in diagnosis.mendable else []
    groups = []
    for name, severity in diagnosis.mendable.items():
        if name == "interlaced":
            groups.append((name, [recipe(always), recipe([Step("yadif", 1)])]))
        else:
            options = [
                _allowed(recipe([*always, Step(it, severity)]), diagnosis) for it in MENDS[name]
            ]
            groups.append((name, options))
    return groups


def _allowed(one: Recipe, diagnosis: Diagnosis) -> Recipe:
    """Sharpened gently, and not before the damage is smoothed that it would sharpen too."""
    if not diagnosis.first or all(REMEDIES[it.remedy].stage < _SHARPENS for it in one.steps):
        return one
    smoothed = any(REMEDIES[it.remedy].stage in _SMOOTHS for it in one.steps)
    steps = [
        Step(it.remedy, min(GENTLY, it.strength)) if REMEDIES[it.remedy].stage == _SHARPENS else it
        for it in one.steps
    ]
    return recipe([*(() if smoothed else diagnosis.first), *steps])


def recipe(steps: Iterable[Step]) -> Recipe:
    """In the right order, each remedy once (the stronger one)."""
    strongest: dict[str, int] = {}
    for it in steps:
        strongest[it.remedy] = max(it.strength, strongest.get(it.remedy, 0))
    if "dering" in strongest:
        strongest.pop("deblock", None)
    ordered = sorted(strongest, key=lambda name: (REMEDIES[name].stage, name))
    return Recipe(tuple(Step(it, strongest[it]) for it in ordered))


def together(recipes: Sequence[Recipe]) -> Recipe:
    """All of them at once."""
    return recipe(step for it in recipes for step in it.steps)


def neighbours(around: Recipe, diagnosis: Diagnosis) -> list[Recipe]:
    """Each of its remedies a little weaker or stronger, then without one of them, then with
    sharpening, which gives back what smoothing took.
    """
    found = []
    graded = [it for it in around.steps if REMEDIES[it.remedy].stage > 0]
    for step in graded:
        rest = [it for it in around.steps if it is not step]
        found += [
            recipe([*rest, Step(step.remedy, strength)])
            for strength in (step.strength - 1, step.strength + 1)
            if strength in STRENGTHS
        ]
        if len(around.steps) > 1:
            found.append(recipe(rest))
    if all(REMEDIES[it.remedy].stage < 4 for it in around.steps):
        found.append(recipe([*around.steps, Step("cas", 1)]))
    return list(dict.fromkeys(_allowed(it, diagnosis) for it in found))
