"""The command line: reads arguments, calls one function, prints. No work is done here.

Results go to standard output, everything else to standard error.
Exit codes: 0 done, 1 could not be done or a limit that the caller set was broken, 2 wrong usage
or configuration; 130 after Ctrl-C, 141 when the reader of the output went away.
Everything heavy is imported inside commands, so that ``vqmon --help`` is instant.
"""

from __future__ import annotations

import difflib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from vqmon import __version__, arguments
from vqmon.errors import ConfigError, VqmonError

if TYPE_CHECKING:
    from datetime import datetime

    from vqmon.domain import Segment
    from vqmon.files import FileResult
    from vqmon.settings import Settings
    from vqmon.store import SqlStore

DONE, FAILED, MISUSED, INTERRUPTED, NO_READER = 0, 1, 2, 130, 141

CONFIG_FILE = Path("vqmon.yaml")

ORDER = (
    *("probe", "score", "compare", "run", "report", "explain", "streams", "alerts", "replay"),
    *("webhooks", "plugins", "config", "doctor", "db", "demo"),
)
"""Commands as `--help` lists them; others follow as they were added."""


def run_program(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code; only VQMON_DEBUG=1 lets a traceback out."""
    try:
        code = program.main(list(argv), prog_name="vqmon", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except (_ReaderLeft, BrokenPipeError):
        _drop_output()
        return NO_READER
    except Exception as error:
        return _failed(error)
    return code if isinstance(code, int) else DONE


def _failed(error: Exception) -> int:
    if os.environ.get("VQMON_DEBUG"):
        raise error
    if isinstance(error, VqmonError):
        _complain(str(error))
        return MISUSED if isinstance(error, ConfigError) else FAILED
    if isinstance(error, OSError):  # a full disk behind `>`, mostly; whatever it is, no bug
        _drop_output()
        _complain(f"{error.filename or 'output'}: {error.strerror or error}")
        return FAILED
    _complain(
        f"unexpected {type(error).__name__}: {error}\n"
        "This is a bug in vqmon. VQMON_DEBUG=1 in front of the same command shows where."
    )
    return FAILED


def _drop_output() -> None:
    """Nobody can take the rest; without this Python would complain again when it ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(message: str) -> None:
    click.secho("error: ", fg="red", err=True, nl=False)
    click.echo(message, err=True)


class _ReaderLeft(Exception):
    """Says what click and rich would each turn into exit code 1."""


class _Program(click.Group):
    """Runs the program ``vqmon-NAME`` for a command that is not built in, as git does."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        """In the order in which a newcomer needs them."""
        return sorted(self.commands, key=lambda it: ORDER.index(it) if it in ORDER else len(ORDER))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderLeft from error
        except SystemExit as error:
            if isinstance(error.__context__, BrokenPipeError):
                raise _ReaderLeft from error
            raise

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            _become(name, args[1:])
            self._unknown(name, ctx)
        return super().resolve_command(ctx, args)

    def _unknown(self, name: str, ctx: click.Context) -> NoReturn:
        near = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise click.UsageError(
            f"no command {name!r}; {hint}`vqmon --help` lists all (a program vqmon-{name} on PATH "
            "would be run).",
            ctx,
        )


def _become(name: str, argv: Sequence[str]) -> None:
    """Become the program ``vqmon-NAME``; return when there is none."""
    if "/" in name:
        return
    # Beside the interpreter too: of an environment that is used without being activated.
    beside = os.pathsep.join((os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)))
    path = shutil.which(f"vqmon-{name}", path=beside)
    if path is None:
        return
    sys.stdout.flush()
    try:
        os.execv(path, [path, *argv])  # noqa: S606  what git does; no shell
    except OSError as error:
        raise VqmonError(f"{path}: cannot be run: {error.strerror}") from error


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", message="vqmon %(version)s")
@click.option("-v", "--verbose", is_flag=True, help="Write log lines of all levels.")
@click.pass_context
def program(ctx: click.Context, verbose: bool) -> None:
    """Watch live video the way a careful viewer would: score it, explain it, say what is wrong.

    Exit codes: 0 done, 1 could not be done or a limit was broken, 2 wrong usage or configuration.
    """
    from vqmon.logs import to_stderr

    ctx.obj = verbose
    to_stderr("debug" if verbose else "error")


_config = arguments.config


def _settings(
    path: Path | None, data_dir: Path | None = None, *, plugins: bool = False
) -> Settings:
    """plugins: whether these check their own settings, too."""
    from vqmon.config import load

    return load(_found(path), os.environ, data_dir=data_dir, plugins=plugins)


def _found(path: Path | None) -> Path | None:
    """The configuration to use, None where there is none."""
    return path or (CONFIG_FILE if CONFIG_FILE.exists() else None)


def _existing(path: Path | None) -> Path:
    found = _found(path)
    if found is None:
        raise click.UsageError(
            "no configuration: give -c FILE, or write one: vqmon config init URL > vqmon.yaml"
        )
    return found


@program.command()
@click.argument("url", required=False)
@click.option(
    "--duration",
    type=arguments.DURATION,
    default=30.0,
    show_default="30s",
    help="How long to watch.",
)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="Option of the URL's scheme, such as transport=udp; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@arguments.limits
@arguments.model
def probe(
    *,
    url: str | None,
    duration: float,
    options: Sequence[str],
    as_json: bool,
    min_quality: float | None,
    fail_on: Sequence[str],
    **model: Any,
) -> int:
    """Watch URL for a moment and say how good it is, what is wrong and why.

    Needs no configuration and no database. Without URL it looks at a generated sample.
    """
    from vqmon import probe as probing
    from vqmon import terminal
    from vqmon.scorers import load_scorer

    scorer = load_scorer(model["model"], device=model["device"], threads=model["threads"])
    with terminal.watching(duration) as watched:
        found = probing.probe(
            url or probing.SAMPLE,
            scorer,
            duration=duration,
            options=_pairs(options),
            watched=watched,
        )
    if as_json:
        _print_json(probing.as_json(found))
    else:
        terminal.print_probe(found)
    return _verdict([found.result], min_quality, fail_on)


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if wrong := [name for name, sign, _ in pairs if not sign]:
        raise click.BadParameter(f"{wrong[0]!r} must be NAME=VALUE", param_hint="--option")
    return {name: value for name, _, value in pairs}


def _print_json(value: Any) -> None:
    from vqmon import terminal

    click.echo(terminal.as_json(value))


def _verdict(
    results: Sequence[FileResult], min_quality: float | None, fail_on: Sequence[str]
) -> int:
    """0 when everything was scored and keeps the limits; says on standard error what does not."""
    broken = [line for it in results for line in _breaches(it, min_quality, fail_on)]
    for line in broken:
        _complain(line)
    return FAILED if broken else DONE


def _breaches(it: FileResult, min_quality: float | None, fail_on: Sequence[str]) -> Iterator[str]:
    from vqmon.terminal import visible

    source = visible(it.source)
    if it.quality is None:
        yield f"{source}: {it.message or it.sentence}"
    elif min_quality is not None and it.quality < min_quality:
        yield f"{source}: quality {it.quality:.1f} is below {min_quality:g}"
    for name in dict.fromkeys(finding.name for finding in it.findings):
        if name in fail_on:
            yield f"{source}: {name} was found"


@program.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--json", "form", flag_value="json", help="Print a JSON array, an object per file.")
@click.option("--csv", "form", flag_value="csv", help="Print CSV, a row per file.")
@click.option(
    "--every",
    type=arguments.DURATION,
    default=1.0,
    show_default="1s",
    help="Time between scored frames.",
)
@arguments.limits
@arguments.model
def score(
    *,
    files: Sequence[str],
    form: str | None,
    every: float,
    min_quality: float | None,
    fail_on: Sequence[str],
    **model: Any,
) -> int:
    """Score video files and pictures.

    A file that cannot be scored is reported with its reason; the others are scored all the same.
    """
    from vqmon import terminal
    from vqmon.files import score_file
    from vqmon.scorers import load_scorer

    scorer = load_scorer(model["model"], device=model["device"], threads=model["threads"])
    results = []
    with terminal.scoring(len(files), form) as (printed, watched):
        for path in files:
            result = score_file(path, scorer, sample_every=every, watched=watched(path))
            results.append(result)
            printed(result)
    return _verdict(results, min_quality, fail_on)


@program.command()
@click.argument("urls", nargs=-1, metavar="[URL...]")
@_config
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for database and pictures, instead of the configured one.",
)
@click.option(
    "--standby",
    is_flag=True,
    help="Wait while another daemon is active on this database, then take over.",
)
@click.option("--duration", type=arguments.DURATION, help="Stop after this time.")
@click.pass_obj
def run(
    verbose: bool,
    *,
    urls: Sequence[str],
    path: Path | None,
    data_dir: Path | None,
    standby: bool,
    duration: float | None,
) -> int:
    """Watch streams until stopped: those of a configuration, or the URLs given."""
    from vqmon import daemon
    from vqmon.config import watching
    from vqmon.logs import to_stderr

    to_stderr("debug" if verbose else "info")
    if urls and path:
        raise click.UsageError("give -c FILE or URLs, not both")
    if urls:
        settings = watching(urls, os.environ, data_dir=data_dir)
    else:
        path = _existing(path)
        settings = _settings(path, data_dir, plugins=True)
    to_stderr("debug" if verbose else settings.logging.level, settings.logging.format)
    return daemon.run(
        settings, standby=standby, config_path=path, data_dir=data_dir, duration=duration
    )


REPORT_FORMATS = {"html": "html", "htm": "html", "json": "json", "csv": "csv", "txt": "text"}


@program.command()
@_config
@click.option(
    "--since",
    type=arguments.MOMENT,
    default="24h",
    show_default=True,
    help="Begin: 24h (that long ago), or 2026-03-01T08:00.",
)
@click.option("--until", type=arguments.MOMENT, help="End, written like --since; now without it.")
@click.option("--stream", help="Only this stream.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["html", "json", "csv", "text"]),
    help="Without it what the name of --output says, else text.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write instead of standard output.",
)
def report(
    *,
    path: Path | None,
    since: datetime,
    until: datetime | None,
    stream: str | None,
    form: str | None,
    output: Path | None,
) -> int:
    """Sum up what was seen: availability, quality, faults, and the worst moments with pictures."""
    from datetime import UTC, datetime

    from vqmon import report as reporting

    until = until or datetime.now(UTC)
    if since >= until:
        raise click.UsageError("--since must be earlier than --until")
    settings = _settings(path)
    form = form or REPORT_FORMATS.get(output.suffix[1:].lower() if output else "", "text")
    with _store(settings) as store:
        _known_stream(stream, settings, store)
        built = reporting.build(store, since, until, stream, evidence_folder=settings.evidence_dir)
    text = getattr(reporting, f"to_{form}")(built)
    if output is None:
        click.echo(text.removesuffix("\n"))
        return DONE
    _write(output, text)
    click.echo(f"{output} written", err=True)
    return DONE


def _known_stream(name: str | None, settings: Settings, store: SqlStore) -> None:
    known = sorted({*settings.streams, *store.streams()})
    if name is not None and name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise click.UsageError(f"no stream {name!r}; {hint}known: {', '.join(known) or 'none'}")


@contextmanager
def _store(settings: Settings) -> Iterator[SqlStore]:
    """The database for reading; it is neither made nor upgraded."""
    from vqmon.store import open_store

    if _nothing_stored(settings):
        raise VqmonError(f"{_shown_database(settings)}: empty so far; `vqmon run` fills it")
    with open_store(settings.database, migrate=False) as store:
        yield store


def _nothing_stored(settings: Settings) -> bool:
    """Whether there is no SQLite file yet, or no table in the database."""
    from vqmon.store import schema_version

    file = settings.database_file
    missing = file is not None and not file.exists()
    return missing or schema_version(settings.database) is None


def _shown_database(settings: Settings) -> str:
    from vqmon.sources import redact

    return redact(settings.database)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise VqmonError(f"{path}: cannot be written: {error.strerror or error}") from error


@program.command()
@_config
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, an object per stream.")
def streams(path: Path | None, as_json: bool) -> int:
    """List streams with what was last seen of them."""
    from vqmon import terminal

    settings = _settings(path)
    rows = terminal.stream_rows(settings, _last_segments(settings))
    if as_json:
        _print_json(rows)
    else:
        terminal.print_streams(rows)
    return DONE


def _last_segments(settings: Settings) -> dict[str, Segment | None]:
    """The newest segment by stream; empty while nothing has been stored."""
    if _nothing_stored(settings):
        return {}
    with _store(settings) as store:
        return {name: store.last(name) for name in {*settings.streams, *store.streams()}}


@program.group()
def config() -> None:
    """Check, show and begin configurations."""


@config.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@_config
def check(file: Path | None, path: Path | None) -> int:
    """Read a configuration and tell every mistake in it; exit with 2 when there are any."""
    from vqmon.logs import to_stderr

    to_stderr("warning")
    path = _existing(file or path)
    settings = _settings(path, plugins=True)
    count = len(settings.streams)
    click.echo(f"{path}: no mistakes, {count} stream{'' if count == 1 else 's'}")
    return DONE


@config.command()
@_config
def show(path: Path | None) -> int:
    """Print the settings as they take effect, without passwords."""
    from vqmon.config import shown

    click.echo(shown(_settings(path)), nl=False)
    return DONE


@config.command()
def schema() -> int:
    """Print the JSON Schema of the configuration, for editors."""
    from vqmon.config import json_schema

    _print_json(json_schema())
    return DONE


@config.command()
@click.argument("urls", nargs=-1, metavar="[URL...]")
def init(urls: Sequence[str]) -> int:
    """Print a commented configuration that watches the URLs given."""
    from vqmon.config import commented_example

    click.echo(commented_example(urls), nl=False)
    return DONE


@program.command()
@_config
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, an object per check.")
def doctor(path: Path | None, as_json: bool) -> int:
    """Examine this machine; exit with 1 when something that is needed is missing."""
    from vqmon import doctor as doctoring
    from vqmon import terminal

    checks = []
    for checked in doctoring.examine(_settings(path)):
        checks.append(checked)
        if not as_json:
            terminal.print_check(checked)
    if as_json:
        _print_json(doctoring.as_json(checks))
    return FAILED if any(it.status == "fail" for it in checks) else DONE


@program.group()
def db() -> None:
    """Look after the database."""


@db.command("upgrade")
@_config
def db_upgrade(path: Path | None) -> int:
    """Bring the tables up to date; safe at any time, and done by `vqmon run` too."""
    from vqmon.store import upgrade

    settings = _settings(path)
    version = upgrade(settings.database)
    click.echo(f"{_shown_database(settings)}: schema {version}")
    return DONE


@program.command()
@click.option(
    "--duration",
    type=arguments.DURATION,
    default=60.0,
    show_default="60s",
    help="How long to watch.",
)
@click.option(
    "--loop",
    is_flag=True,
    help="Show the closed loop instead: an encoder that vqmon makes better; takes two minutes.",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("vqmon-demo"),
    show_default=True,
    help="Where database, pictures and report go.",
)
@click.option("--open", "open_browser", is_flag=True, help="Show the report in a browser.")
def demo(*, duration: float, loop: bool, folder: Path, open_browser: bool) -> int:
    """Watch a live stream made on this machine, with faults on purpose, and write a report."""
    if loop:
        given = click.get_current_context().get_parameter_source("duration")
        if given is not click.core.ParameterSource.DEFAULT:
            raise click.UsageError("--loop takes as long as it takes: leave --duration out")
        from vqmon.demo import loop as closed_loop

        return closed_loop.run(folder, open_browser=open_browser)
    from vqmon import demo as demonstration

    return demonstration.run(duration, folder, open_browser=open_browser)


from vqmon.cli.alerts import alerts  # noqa: E402  the families need what stands above
from vqmon.cli.compare import compare  # noqa: E402
from vqmon.cli.explain import explain  # noqa: E402
from vqmon.cli.plugins import plugins  # noqa: E402
from vqmon.cli.replay import replay  # noqa: E402
from vqmon.cli.webhooks import webhooks  # noqa: E402

program.add_command(alerts)
program.add_command(compare)
program.add_command(explain)
program.add_command(plugins)
program.add_command(replay)
program.add_command(webhooks)
