"""The reference is complete and true: what the program knows, `docs/reference.md` tells."""

from __future__ import annotations

import base64
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from vqmon import config, domain
from vqmon.alerting import RULES
from vqmon.cli import program
from vqmon.config import Settings, load
from vqmon.files import CSV_COLUMNS, merged_facts
from vqmon.metrics import COUNTER, FAMILIES, GAUGE, HISTOGRAM, INFO
from vqmon.pipeline import monitor
from vqmon.quantities import format_duration
from vqmon.sources import OPTIONS, SCHEMES, open_source
from vqmon.sources.recipe import TEXT
from vqmon.testing import FakeScorer

ROOT = Path(__file__).parent.parent
A_SECRET = base64.b64encode(b"long enough to sign with").decode()
REFERENCE = (ROOT / "docs" / "reference.md").read_text()
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted(ROOT.glob("plugins/*/README.md")),
]
PROGRAMS = {
    name.removeprefix("vqmon-")
    for path in ROOT.glob("plugins/*/pyproject.toml")
    for name in tomllib.loads(path.read_text())["project"].get("scripts", {})
}
"""Commands that plugins of this repository add."""


def rows(text: str = REFERENCE) -> Iterator[list[str]]:
    """The cells of all table rows."""
    for line in text.splitlines():
        if line.startswith("| "):
            yield re.split(r"(?<!\\)\s*\|\s*", line.strip("| "))


def words_in_first_cells(text: str = REFERENCE) -> set[str]:
    return {word for cells in rows(text) for word in re.findall(r"`([^`]+)`", cells[0])}


def part(heading: str) -> str:
    """The text from a heading to the next of the same or a higher level."""
    level = len(heading) - len(heading.lstrip("#"))
    begin = REFERENCE.index(f"\n{heading}") + 1
    rest = REFERENCE[begin + len(heading) :]
    end = re.search(rf"\n#{{2,{level}}} ", rest)
    return heading + (rest[: end.start()] if end else rest)


# Settings


def leaves() -> list[str]:
    """Every setting that is no section; what a stream only inherits stands under defaults."""
    paths = config.setting_paths()
    shared = [it for it in paths if it.startswith("defaults.")]
    inherited = {it.replace("defaults.", "streams.NAME.") for it in shared}
    inherited |= {f"streams.NAME.{it}" for it in paths if it.startswith("rules.")}
    above = {it.rpartition(".")[0] for it in paths} - {"defaults.schedule"}
    sections = above | {it.removesuffix(".NAME") for it in above} - {"streams.NAME.rules"}
    return [it for it in paths if it not in sections | inherited]


@pytest.mark.parametrize("path", leaves())
def test_every_setting_is_documented(path: str) -> None:
    """A setting that nobody can find is not there."""
    description = config.description(path)

    [row] = [cells for cells in rows() if cells[0] == f"`{path}`"]

    assert row[3] == description


def test_every_documented_setting_exists() -> None:
    """A setting that was removed must not live on in the text."""
    told = {it for it in words_in_first_cells(part("## Configuration")) if "." in it}

    assert told <= set(config.setting_paths())


def test_documented_defaults_are_the_real_ones() -> None:
    """An operator who relies on a default reads it here."""
    name = {"streams": {"NAME": {"url": "x.mp4"}}, "plugins": {"NAME": {}}}
    name["notifiers"] = {"NAME": {"type": "log"}}
    effective = json.loads(Settings.model_validate(name).model_dump_json(by_alias=True))
    checked = 0

    for cells in rows(part("## Configuration")):
        written = re.fullmatch(r"`(.*)`|none", cells[1])
        if written and "." in cells[0] and not cells[0].endswith("NAME`"):
            expected = None if cells[1] == "none" else written[1]
            assert _as_written(_at(effective, cells[0].strip("`"))) == expected, cells[0]
            checked += 1

    assert checked > 25


def _at(value: Any, path: str) -> Any:
    for key in path.split("."):
        value = value[key]
    return value


def _as_written(value: Any) -> str | None:
    if isinstance(value, float) and value == int(value):
        value = int(value)
    return value if value is None or isinstance(value, str) else json.dumps(value)


def test_shipped_rules_are_documented() -> None:
    """Whoever is woken by one looks it up."""
    told = {cells[0].strip("`"): cells[1:] for cells in rows(part("### Alerts")) if len(cells) == 7}

    for rule in RULES.values():
        times = (rule.raise_seconds, rule.clear_seconds, rule.pause)
        limits = [f"{rule.limit:g}", f"{rule.clear_limit:g}"]
        assert told[rule.name] == [rule.severity, *limits, *map(format_duration, times)]
    assert told.keys() - {"rule", "---"} == RULES.keys()


# Commands


def commands(group: click.Group = program, above: str = "vqmon") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{above} {name}")
        else:
            yield f"{above} {name}", command


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=str)
def test_every_command_and_option_is_documented(name: str, command: click.Command) -> None:
    """In the section of the command, not just anywhere."""
    group = "### `vqmon config`" if name.startswith("vqmon config") else f"### `{name}"
    section = part(group)
    if group.endswith("config`"):
        section = next(line for line in section.splitlines() if f"`{name}" in line)

    options = [it for it in command.params if isinstance(it, click.Option)]

    assert all(spelling in section for it in options for spelling in it.opts)


def test_every_documented_option_exists() -> None:
    """An option that was renamed must not live on in the text."""
    real = {s for _, it in commands() for option in it.params for s in option.opts}
    real |= {s for option in program.params for s in option.opts} | {"--help", "-h"}

    assert set(re.findall(r"`(--[a-z-]+)", REFERENCE)) <= real


def test_commands_in_the_documentation_exist() -> None:
    """A command line is copied before it is read."""
    code = r"^```(?:sh|console|bash)?\n(.*?)^```|`([^`\n]+)`"
    for page in PAGES:
        for block, inline in re.findall(code, page.read_text(), re.MULTILINE | re.DOTALL):
            lines = re.findall(r"(?:^|bin/|\$ )vqmon ([a-z][a-z-]*)", block or inline, re.MULTILINE)
            for name in lines:
                assert name in {*program.commands, *PROGRAMS}, f"{page.name}: vqmon {name}"


def test_the_columns_of_csv_are_documented() -> None:
    """Scripts depend on them."""
    assert f"`{','.join(CSV_COLUMNS)}`" in part("### `vqmon score")


# Words


@pytest.mark.parametrize(
    ("heading", "known"),
    [
        ("## Findings", domain.FINDING_NAMES),
        ("## Reasons for no score", domain.NO_SCORE_REASONS),
    ],
)
def test_closed_vocabularies_are_documented_whole(heading: str, known: tuple[str, ...]) -> None:
    """Alerts and scripts name these words."""
    assert words_in_first_cells(part(heading)) == set(known)


def test_schemes_their_options_and_the_generator_are_documented() -> None:
    """What `options:` and `--option` take, scheme by scheme."""
    section = part("## Sources")
    told = {cells[0].strip("`"): set(re.findall(r"`(\w+)`", cells[-1])) for cells in rows(section)}

    for name, scheme in SCHEMES.items():
        assert told[name] == scheme.options
    assert OPTIONS.keys() | TEXT.keys() <= told.keys()


def test_every_fact_is_documented() -> None:
    """Facts are what plugins and reports read."""
    stream = domain.Stream(
        "x", "synthetic:?seconds=12&size=128x128&faults=black@2-4", sampling="every"
    )

    facts = merged_facts(list(monitor(stream, open_source(stream), FakeScorer())))

    assert len(facts) > 20
    assert facts.keys() <= words_in_first_cells(part("## Facts"))


def test_every_metric_is_documented_as_it_is() -> None:
    """Dashboards and alert rules are written from this table."""
    told = [cells for cells in rows(part("## Health and metrics")) if len(cells) == 4][1:]

    kinds = {GAUGE: "gauge", COUNTER: "counter", HISTOGRAM: "histogram", INFO: "info"}
    assert told == [
        [f"`{it.name}`", kinds[it.kind], " ".join(f"`{label}`" for label in it.labels), it.text]
        for it in FAMILIES
    ]


# Examples


def examples() -> Iterator[tuple[str, str]]:
    """Configurations in the pages, and parts of them: YAML that begins with one of our keys."""
    for page in PAGES:
        blocks = re.findall(r"^```ya?ml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
        for number, block in enumerate(blocks, start=1):
            keys = set(re.findall(r"^(\w+):", block, re.MULTILINE))
            if keys & Settings.model_fields.keys():
                whole = block if "streams" in keys else f"{block}\nstreams: {{a: {{url: a.mp4}}}}"
                yield f"{page.name}-{number}", whole


@pytest.mark.parametrize(("where", "text"), list(examples()))
def test_configurations_in_the_documentation_work(where: str, text: str, tmp_path: Path) -> None:
    """An example is copied before it is read."""
    path = tmp_path / "vqmon.yaml"
    path.write_text(text)
    variables = dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), A_SECRET)

    assert load(path, variables).streams, where
