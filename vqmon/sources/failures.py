"""Why a source gives nothing: FFmpeg's many errors become one of a closed set of reasons.

The class of an error alone does not tell (a timeout comes as five different ones), so the
elapsed time, the scheme and what FFmpeg logged count too. Messages name the remedy and never
carry credentials.
"""

from __future__ import annotations

import errno
import re

import av
import av.error

from vqmon.errors import SourceError, SourceRejected, SourceUnavailable
from vqmon.sources.addresses import Opening

USELESS = frozenset({"auth", "not_found", "protocol_missing", "decoder_missing", "bridge_missing"})
"""Reasons that do not go away within minutes."""

REMEDIES = {
    "refused": "cannot connect; is the server running, and are address, port and firewall right?",
    "dns": "the host name cannot be resolved; check its spelling and this machine's DNS",
    "auth": "access denied; check user, password or token in the URL, and rights on the server",
    "not_found": "the server knows no such stream or file; check the path",
    "timeout_open": "no answer within {open:g} s; check address and port, or raise `open_timeout`",
    "timeout_read": "nothing came for {read:g} s; the sender stalls (limit: `read_timeout`)",
    "protocol_missing": "this FFmpeg cannot speak {scheme}; `vqmon doctor` lists what it can",
    "invalid_data": "this is not a video that FFmpeg understands; check that it is complete, and "
    "a video at all",
    "eof": "the sender ended the stream",
    "decoder_missing": "no decoder for this codec; `vqmon doctor` lists what there is",
    "bridge_missing": "SRT needs a helper program; install one: apt install ffmpeg (or srt-tools)",
}
_NO_FILE = "there is no such file; check the path"

_SILENT_PIPE = "nothing comes out of this pipe; does a program write into it?"
_CERTIFICATE = "the server's certificate is not trusted; set `ca_file`, or `tls_verify: no`"
_OTHER_PROTOCOL = (
    "it leads on to an address of another protocol, which is not followed; name that one itself"
)
_NO_SEGMENT = "the playlist can be read, but not its first segment; is the server able to send it?"
_NO_TRANSPORT = "the server refuses this transport; set the option `transport` to the other one"
_ERROR_ANSWER = "the server answers with an error; see its log, and check path and parameters"
_NO_ANSWER = (
    "the server hung up without a proper answer; is it the right port, and does it speak {scheme}?"
)
_NO_WAY_ON = "the server redirects in a circle, or hangs up; try the address in a browser"

_TOLD = (
    ("auth", r"certificate|TLS fatal alert|verif", _CERTIFICATE),
    ("invalid_data", r"Error when loading first segment", _NO_SEGMENT),
    ("auth", r"(?<![\w:./-])40[13]\b|unauthori[sz]ed|forbidden|authori[sz]ation", None),
    ("not_found", r"(?<![\w:./-])(404|410|454)\b|no such stream|StreamNotFound", None),
    ("refused", r"method SETUP failed: 461", _NO_TRANSPORT),
    ("refused", r"HTTP error [45]\d\d|method \w+ failed: \d", _ERROR_ANSWER),
    ("invalid_data", r"not on whitelist", _OTHER_PROTOCOL),
    ("refused", r"Connection refused|Network is unreachable|No route to host", None),
)
"""What FFmpeg logs when opening fails: reason, sign, and a message where there is a better one
than the remedy of the reason. The first that matches counts.
"""
_TALKING = frozenset({"rtsp", "rtsps", "rtmp", "rtmps"})
"""Media comes only after a conversation: without it, nothing can be said of the media."""

_UNREACHABLE = frozenset(
    {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL}
)
_GONE = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.ENOTCONN, errno.EIO})


def failure(
    opening: Opening, error: BaseException, *, elapsed: float, opened: bool, said: str = ""
) -> SourceError:
    """What to raise for an error that FFmpeg gave after `elapsed` seconds.

    opened: the error came while reading. said: FFmpeg's last log lines, credentials removed.
    """
    reason, message = classify(opening, error, elapsed=elapsed, opened=opened, said=said)
    message = message.format(scheme=opening.scheme) if message else remedy(opening, reason)
    detail = _detail(opening, error, said)
    if message == _NO_SEGMENT:  # a live playlist moves on, so soon it may be able to
        return SourceUnavailable(opening.shown, reason, _joined(message, detail))
    if reason in USELESS or (reason == "invalid_data" and not opening.retried):
        return rejected(opening, reason, message, detail)
    return SourceUnavailable(opening.shown, reason, _joined(message, detail))


def ended(opening: Opening) -> SourceUnavailable:
    """A live stream came to an end."""
    return SourceUnavailable(opening.shown, "eof", remedy(opening, "eof"))


def rejected(opening: Opening, reason: str, message: str, detail: str = "") -> SourceRejected:
    return SourceRejected(opening.shown, reason, _joined(message, detail))


def remedy(opening: Opening, reason: str) -> str:
    return REMEDIES[reason].format(
        open=opening.open_timeout, read=opening.read_timeout, scheme=opening.scheme
    )


def classify(
    opening: Opening, error: BaseException, *, elapsed: float, opened: bool, said: str = ""
) -> tuple[str, str | None]:
    """One of DOWN_REASONS; and what to tell where its remedy would not help."""
    if isinstance(error, av.error.ProtocolNotFoundError):
        return "protocol_missing", None
    if isinstance(error, av.error.DecoderNotFoundError):
        return "decoder_missing", None
    if isinstance(error, av.error.HTTPUnauthorizedError | av.error.HTTPForbiddenError):
        return "auth", None
    if isinstance(error, av.error.HTTPNotFoundError):
        return "not_found", None
    if opening.scheme == "file":
        return _of_file(error, opened=opened)
    if "Failed to resolve hostname" in said:
        return "dns", None
    if not opened and (told := _told(said)):
        return told
    if _timed_out(opening, error, elapsed, opened=opened):
        return "timeout_read" if opened else "timeout_open", None
    return _by_number(opening, error, opened=opened, said=said)


def _of_file(error: BaseException, *, opened: bool) -> tuple[str, str | None]:
    if isinstance(error, FileNotFoundError):
        return "not_found", _NO_FILE
    if isinstance(error, TimeoutError):
        return ("timeout_read" if opened else "timeout_open"), _SILENT_PIPE
    return ("auth" if isinstance(error, PermissionError) else "invalid_data"), None


def _told(said: str) -> tuple[str, str | None] | None:
    for reason, sign, message in _TOLD:
        if re.search(sign, said, re.IGNORECASE):
            return reason, message
    return None


def _by_number(
    opening: Opening, error: BaseException, *, opened: bool, said: str
) -> tuple[str, str | None]:
    number = getattr(error, "errno", None)
    if number in _UNREACHABLE:
        return "refused", None
    if isinstance(error, EOFError) or number in _GONE:
        if opened:
            return "eof", None
        web = opening.scheme in {"http", "https"}
        return "refused", _NO_WAY_ON if web and number == errno.EIO and not said else _NO_ANSWER
    if not opened and not said and opening.scheme in _TALKING:
        return "refused", _NO_ANSWER
    return "invalid_data", None


def _timed_out(opening: Opening, error: BaseException, elapsed: float, *, opened: bool) -> bool:
    if isinstance(error, TimeoutError | av.error.ExitError):
        return True
    limit = opening.read_timeout if opened else min(opening.open_timeout, opening.read_timeout)
    return elapsed >= 0.9 * limit


def _detail(opening: Opening, error: BaseException, said: str) -> str:
    text = str(getattr(error, "strerror", None) or error or type(error).__name__)
    return said.rpartition("; ")[2] or opening.clean(text)


def _joined(message: str, detail: str) -> str:
    return f"{message} ({detail.strip().rstrip('.')})" if detail.strip() else message
