"""The benchmarks' own command line; what they measure is for `make bench`."""

from __future__ import annotations

import pytest

from benchmarks.__main__ import NAMES, main


def test_an_unknown_benchmark_is_answered_with_those_that_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A typing error is no traceback."""
    with pytest.raises(SystemExit) as stopped:
        main(["startpu"])

    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert all(name in said for name in NAMES)


def test_help_names_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])

    assert not stopped.value.code
    said = capsys.readouterr().out
    assert all(name in said for name in NAMES)
