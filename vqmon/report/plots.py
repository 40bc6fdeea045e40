"""SVG for the page. Colours are classes of the page's style, so that both themes work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby

from markupsafe import Markup, escape

from vqmon.domain import Alert, Decision
from vqmon.report.contents import Band, Point, Quality, StreamReport
from vqmon.report.words import GRADES, firing, grade, lasting, moment, named, severity, share

LEFT, RIGHT, TOP = 112, 10, 8
WIDTH, HEIGHT = 960, 168
LANE = 20
TICK_STEPS = (
    5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400,
    2 * 86_400, 5 * 86_400, 7 * 86_400, 30 * 86_400, 90 * 86_400, 365 * 86_400,
)  # fmt: skip
TICKS = 9


def timeline(stream: StreamReport, since: datetime, until: datetime) -> Markup:
    """Quality over time, a lane for each fault below it, and where nothing arrived."""
    names = [fault.name for fault in stream.faults]
    axis = _Axis(since, until)
    bottom = TOP + HEIGHT
    acted = bottom + LANE * len(names)
    end = acted + LANE * (bool(stream.alerts) + bool(stream.decisions))
    height = end + 24
    parts = [
        *_grid(axis, end),
        *_absent(axis, stream.timeline),
        *_worst_area(axis, stream.timeline),
        *_line(axis, stream.timeline),
        *_hover(axis, stream.timeline),
        *_lanes(axis, stream.bands, names, bottom),
        *_alerts(axis, stream.alerts, acted),
        *_decisions(axis, stream.decisions, end - LANE),
    ]
    told = f"Quality of {stream.name} over time, {_told(stream.quality)}"
    return _svg(WIDTH, height, "timeline", told, parts)


def sparkline(stream: StreamReport, since: datetime, until: datetime) -> Markup:
    """The same line, small, for the table of streams."""
    axis = _Axis(since, until, left=1, right=1, top=2, width=160, height=28)
    parts = [*_absent(axis, stream.timeline, tall=28), *_line(axis, stream.timeline)]
    told = f"Quality over time, {_told(stream.quality)}"
    return _svg(160, 32, "spark", told, parts)


def distribution(quality: Quality) -> Markup:
    """The share of scored time in each grade, as one bar."""
    total = sum(quality.histogram)
    x = 0.0
    parts = []
    for number, (_, word) in enumerate(reversed(GRADES)):
        seconds = sum(quality.histogram[2 * number : 2 * number + 2])
        width = 160 * seconds / total if total else 0.0
        if width > 0:
            parts.append(
                Markup('<rect class="grade-{}" x="{:.1f}" y="0" width="{:.1f}" height="12">{}</rect>')
                .format(word, x, width, _title(f"{word}: {share(seconds, total)}"))
            )  # fmt: skip
        x += width
    return _svg(160, 12, "bar", f"Share of time by grade: {_grades(quality)}", parts)


def histogram(quality: Quality) -> Markup:
    """Scored time in ten bins of ten points."""
    most = max(quality.histogram)
    total = sum(quality.histogram)
    parts = []
    for number, seconds in enumerate(quality.histogram):
        tall = 76 * seconds / most if most else 0
        low = 10 * number
        parts.append(
            Markup('<rect class="grade-{}" x="{}" y="{:.1f}" width="26" height="{:.1f}" rx="2">{}</rect>')
            .format(grade(low), 10 + 29 * number, 82 - tall, max(tall, 0.75),
                    _title(f"{low} to {low + 10}: {share(seconds, total)} of the time"))
        )  # fmt: skip
    parts += [_text(8 + 29 * n, 96, str(10 * n), "middle") for n in range(0, 11, 2)]
    return _svg(316, 100, "histogram", f"Distribution of quality: {_grades(quality)}", parts)


class _Axis:
    """Time to pixels across, quality to pixels down."""

    def __init__(
        self,
        since: datetime,
        until: datetime,
        *,
        left: float = LEFT,
        right: float = RIGHT,
        top: float = TOP,
        width: float = WIDTH,
        height: float = HEIGHT,
    ) -> None:
        self.since = since
        self.until = until
        self.left, self.right = left, width - right
        self.top, self.height = top, height
        self._scale = (self.right - left) / max(1e-6, (until - since).total_seconds())

    def x(self, at: datetime) -> float:
        exact = self.left + (at - self.since).total_seconds() * self._scale
        return min(max(exact, self.left), self.right)

    def y(self, quality: float) -> float:
        return self.top + self.height * (1 - quality / 100)

    def span(self, starts_at: datetime, seconds: float, least: float = 0.0) -> tuple[float, float]:
        """Left edge and width, at least `least` wide."""
        begin = self.x(starts_at)
        return begin, max(least, self.x(starts_at + timedelta(seconds=seconds)) - begin)


def _grid(axis: _Axis, bottom: float) -> Iterator[Markup]:
    for quality in (0, 20, 40, 60, 80, 100):
        y = axis.y(quality)
        yield Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
            axis.left, axis.right, y, y
        )
        yield _text(axis.left - 8, y + 4, str(quality), "end")
    for least, word in GRADES:
        yield _text(axis.left - 32, axis.y(least + 10) + 4, word, "end", "faint")
    for at, label in _ticks(axis.since, axis.until):
        x = axis.x(at)
        yield Markup('<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>').format(
            x, axis.top, bottom
        )
        if x < axis.right - 20:
            yield _text(x, bottom + 16, label, "middle")


def _ticks(since: datetime, until: datetime) -> Iterator[tuple[datetime, str]]:
    span = (until - since).total_seconds()
    step = next((s for s in TICK_STEPS if span / s <= TICKS), TICK_STEPS[-1])
    first = -(-int(since.timestamp()) // step) * step
    for second in range(first, int(until.timestamp()) + 1, step):
        at = datetime.fromtimestamp(second, UTC)
        midnight = at.hour == at.minute == at.second == 0
        if step >= 86_400 or (midnight and span > 3600):
            yield at, f"{at:%d %b}"
        else:
            yield at, f"{at:%H:%M:%S}" if step < 60 else f"{at:%H:%M}"


def _absent(axis: _Axis, points: Sequence[Point], tall: float = HEIGHT) -> Iterator[Markup]:
    """Where media did not arrive, and where it did but has no score."""
    for kind, some in groupby(points, key=_absence):
        stretch = list(some)
        if kind is None:
            continue
        end = stretch[-1].starts_at + timedelta(seconds=stretch[-1].seconds)
        seconds = (end - stretch[0].starts_at).total_seconds()
        x, width = axis.span(stretch[0].starts_at, seconds, least=1.5)
        word = "nothing arrived" if kind == "down" else "no score"
        yield Markup('<rect class="{}" x="{:.1f}" y="{}" width="{:.1f}" height="{}">{}</rect>').format(
            kind, x, axis.top, width, tall, _title(f"{word}: {_when(stretch[0].starts_at, seconds)}")
        )  # fmt: skip


def _absence(point: Point) -> str | None:
    if point.up < 0.5:
        return "down"
    return "unscored" if point.quality is None else None


def _runs(points: Iterable[Point]) -> Iterator[list[Point]]:
    """Stretches of scored points that touch; the line breaks between them."""
    run: list[Point] = []
    for point in points:
        touches = run and point.starts_at - run[-1].starts_at <= timedelta(
            seconds=1.6 * run[-1].seconds + 0.1
        )
        if run and (point.quality is None or not touches):
            yield run
            run = []
        if point.quality is not None:
            run.append(point)
    if run:
        yield run


def _line(axis: _Axis, points: Sequence[Point]) -> Iterator[Markup]:
    for run in _runs(points):
        path = " L".join(f"{x:.1f},{y:.1f}" for x, y in _stairs(axis, run, worst=False))
        yield Markup('<path class="quality" d="M{}"/>').format(path)


def _worst_area(axis: _Axis, points: Sequence[Point]) -> Iterator[Markup]:
    for run in _runs(points):
        there = _stairs(axis, run, worst=False)
        back = reversed(_stairs(axis, run, worst=True))
        path = " L".join(f"{x:.1f},{y:.1f}" for x, y in (*there, *back))
        yield Markup('<path class="worst" d="M{}Z"/>').format(path)


def _stairs(axis: _Axis, run: Sequence[Point], *, worst: bool) -> list[tuple[float, float]]:
    """Steps while they can be seen, else a point in the middle of each."""
    corners = []
    narrow = len(run) > 100
    for point in run:
        quality = point.worst if worst and point.worst is not None else point.quality
        x, width = axis.span(point.starts_at, point.seconds)
        y = axis.y(quality or 0.0)
        corners += [(x + width / 2, y)] if narrow else [(x, y), (x + width, y)]
    if narrow:
        last = axis.x(run[-1].starts_at + timedelta(seconds=run[-1].seconds))
        return [(axis.x(run[0].starts_at), corners[0][1]), *corners, (last, corners[-1][1])]
    return corners


def _hover(axis: _Axis, points: Sequence[Point]) -> Iterator[Markup]:
    """Invisible bars that tell their point; a browser shows the title."""
    for point in points:
        if point.quality is None:
            continue
        x, width = axis.span(point.starts_at, point.seconds, least=1.0)
        worst = "" if point.worst is None else f", worst frame {point.worst:.0f}"
        told = f"{moment(point.starts_at)} UTC: {point.quality:.1f}{worst}"
        yield Markup('<rect class="hover" x="{:.1f}" y="{}" width="{:.1f}" height="{}">{}</rect>').format(
            x, axis.top, width, axis.height, _title(told)
        )  # fmt: skip


def _lanes(
    axis: _Axis, bands: Sequence[Band], names: Sequence[str], top: float
) -> Iterator[Markup]:
    for number, name in enumerate(names):
        y = top + LANE * number + 5
        yield from _lane(axis, named(name), y)
        for band in bands:
            if band.name == name:
                yield _band(axis, band, y)


def _lane(axis: _Axis, label: str, y: float) -> Iterator[Markup]:
    yield _text(axis.left - 8, y + 11, label, "end")
    yield Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
        axis.left, axis.right, y + 7, y + 7
    )


def _alerts(axis: _Axis, alerts: Sequence[Alert], top: float) -> Iterator[Markup]:
    """From raising to clearing, or to the end of the plot."""
    if alerts:
        yield from _lane(axis, "alerts", top + 5)
    for alert in alerts:
        begin = max(alert.opened_at, axis.since)
        seconds = ((alert.closed_at or axis.until) - begin).total_seconds()
        x, width = axis.span(begin, seconds, least=2.5)
        told = f"{alert.rule}: {moment(alert.opened_at)} UTC, {firing(alert)}"
        yield Markup(
            '<rect class="alert" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="14" rx="2">{}</rect>'
        ).format(x, top + 5, width, _title(told))


def _decisions(axis: _Axis, decisions: Sequence[Decision], top: float) -> Iterator[Markup]:
    """A mark for each; several of one moment lie on each other and say so one by one."""
    if decisions:
        yield from _lane(axis, "decisions", top + 5)
    for decision in decisions:
        x, y = axis.x(decision.at), top + 12
        told = f"{named(decision.kind)}: {moment(decision.at)} UTC, {decision.reason}"
        yield Markup(
            '<path class="decision" d="M{0:.1f},{1:.1f}l5,6l-5,6l-5,-6z">{2}</path>'
        ).format(x, y - 6, _title(told))


def _band(axis: _Axis, band: Band, y: float) -> Markup:
    x, width = axis.span(band.starts_at, band.seconds, least=2.5)
    level = "any" if band.severity is None else str(band.severity)
    word = "" if band.severity is None else f" ({severity(band.severity)})"
    told = f"{named(band.name)}{word}: {_when(band.starts_at, band.seconds)}"
    if band.severity is None:
        told += f", {share(band.share, 1)} of the time"
    return Markup(
        '<rect class="sev-{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="14" rx="2" '
        'opacity="{:.2f}">{}</rect>'
    ).format(level, x, y, width, 1.0 if band.severity else 0.3 + 0.7 * band.share, _title(told))


def _when(starts_at: datetime, seconds: float) -> str:
    return f"{moment(starts_at)} UTC, {lasting(seconds)}"


def _told(quality: Quality | None) -> str:
    if quality is None:
        return "never scored"
    return f"mean {quality.mean:.0f}, worst frame {quality.worst:.0f} of 100"


def _grades(quality: Quality) -> str:
    """In words, best first, what is not zero."""
    total = sum(quality.histogram)
    found = []
    for least, word in GRADES:
        first = int(least // 10)
        seconds = sum(quality.histogram[first : first + 2])
        if seconds:
            found.append(f"{word} {share(seconds, total)}")
    return ", ".join(found)


def _text(x: float, y: float, text: str, anchor: str, kind: str = "label") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        kind, x, y, anchor, text
    )


def _title(text: str) -> Markup:
    return Markup("<title>{}</title>").format(text)


def _svg(width: float, height: float, kind: str, told: str, parts: Iterable[Markup]) -> Markup:
    return Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        kind, width, height, told, Markup("").join(escape(part) for part in parts)
    )
