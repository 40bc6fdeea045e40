"""The words for every finding and every reason without a score: closed, like the vocabulary."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Words:
    """How a finding is spoken of.

    seen: what it is, as a clause. viewer: what people notice of it, completing "viewers ...".
    check: what is likely behind it and what to look at, as sentences.
    """

    seen: str
    viewer: str
    check: str


FINDINGS: dict[str, Words] = {
    "blur": Words(
        "fine detail is missing",
        "see a soft picture",
        "Detail is lost before or in the encoder: check focus and lens, denoising and scaling.",
    ),
    "noise": Words(
        "grain lies over the picture",
        "see grain that flickers",
        "The source is noisy: check light and camera gain, or an analogue part of the chain.",
    ),
    "compression": Words(
        "block edges and smeared texture show",
        "see blocks, most of all where things move",
        "The encoder has too few bits for this content: check its bitrate, its preset and whether "
        "an earlier generation was already compressed hard.",
    ),
    "banding": Words(
        "smooth shades fall into steps",
        "see contours in skies and walls",
        "Gradients are quantised too coarsely: check for a rate that is too low in flat areas, or "
        "a reduction of bit depth without dithering.",
    ),
    "underexposed": Words(
        "the picture is too dark",
        "miss what lies in the shadows",
        "The camera gets too little light, or video ranges are confused: check light and exposure at "
        "the camera, and that full and limited range are told apart on the way.",
    ),
    "overexposed": Words(
        "bright parts are burnt out",
        "miss what lies in the highlights",
        "The camera gets too much light, or video ranges are confused: check exposure at the camera, "
        "and that limited and full range are told apart on the way.",
    ),
    "upscaled": Words(
        "there is less detail than the picture has lines",
        "see a picture that was enlarged",
        "A smaller picture was enlarged on the way: check scalers and the rung that the encoder "
        "or player was fed from.",
    ),
    "corrupted": Words(
        "parts of pictures are damaged",
        "see smears, wrong blocks or torn pictures",
        "Data is missing or wrong when it is decoded: check the way from the encoder to here, and "
        "the encoder itself when no packet is lost.",
    ),
    "black": Words(
        "the picture is black",
        "see nothing",
        "Data still arrives, so the connection works: check the camera, the playout or the input "
        "that feeds the encoder.",
    ),
    "freeze": Words(
        "the picture stands still although it moved before",
        "see one picture and no motion",
        "Data still arrives, so the connection works: check what feeds the encoder (cable, camera, "
        "player, capture card), not the network.",
    ),
    "stutter": Words(
        "motion halts and jumps",
        "see motion that is not smooth",
        "Pictures are missing or repeated: check the encoder's load, its input rate and drops on "
        "the way.",
    ),
    "slate": Words(
        "a drawn picture that does not change stands for the programme",
        "see a caption or bars in place of the programme",
        "Somebody or something upstream switched to a slate: check the playout and the source "
        "behind it.",
    ),
    "no_signal": Words(
        "no media arrives",
        "see nothing at all, or the player's own error",
        "The source gives nothing: check that it runs and can be reached from here.",
    ),
    "underfed": Words(
        "less media arrives than time passes",
        "wait while the player fills its buffer",
        "The way here is too slow, or the encoder does not keep up: check the uplink, the server's "
        "load and the encoder's speed.",
    ),
    "bitrate_collapse": Words(
        "the video's bitrate is far below what is usual for this stream",
        "see a coarser picture",
        "The encoder gives the picture far fewer bits than usual: check its rate control, its "
        "limits and the uplink that it adapts to.",
    ),
    "timestamp_jump": Words(
        "the stream's clock jumped",
        "may see a hiccup, and sound may run apart from the picture",
        "The encoder restarted or two recordings were joined: check its log at this time.",
    ),
    "format_changed": Words(
        "the stream changed its format",
        "may see a change of sharpness, and some players stop",
        "Somebody changed the encoder, or it switched to another rung or input: check its log at this "
        "time.",
    ),
    "packet_loss": Words(
        "packets are damaged or missing",
        "see smears and hear clicks until the next keyframe",
        "Data is lost on the way: check the network, use TCP or SRT with more latency, or add "
        "error correction.",
    ),
    "audio_silence": Words(
        "there is no sound",
        "hear nothing",
        "The sound is muted or lost before it is encoded: check its source, its routing and mute "
        "switches; if it is meant, declare `expect: [no_audio]` for this stream.",
    ),
    "audio_loudness": Words(
        "the sound is far from usual loudness",
        "reach for the volume control",
        "The sound was mixed for another level: check the mixer's output or the loudness normaliser "
        "(EBU R128: -23 LUFS; streaming usually -16 to -14).",
    ),
    "audio_clipping": Words(
        "the sound is cut off at full scale",
        "hear distortion",
        "A level before the encoder is too high: lower the gain where the peaks are cut.",
    ),
    "overload": Words(
        "vqmon left pictures undecoded because it was behind",
        "notice nothing of it",
        "This machine has too much to do: watch fewer streams on it, by keyframes or by schedule, "
        "or give it more cores.",
    ),
    "storage_low": Words(
        "vqmon's disk is nearly full",
        "notice nothing of it",
        "Free disk space, or shorten the retention of pictures and rows.",
    ),
}


@dataclass(frozen=True, slots=True)
class Reason:
    """Why there is no score, as a clause, and what to do about it, as a sentence."""

    because: str
    remedy: str


REASONS: dict[str, Reason] = {
    "refused": Reason(
        "the server refused the connection",
        "Check that it runs and listens on this port, and that no firewall stands between.",
    ),
    "dns": Reason(
        "the host name could not be resolved",
        "Check the spelling of the host in the URL and this machine's DNS.",
    ),
    "auth": Reason(
        "access was denied",
        "Check user name, password or token of this stream.",
    ),
    "not_found": Reason(
        "the server or disk has nothing under this address",
        "Check the path in the URL, and that the publisher is sending to it.",
    ),
    "timeout_open": Reason(
        "the source could not be opened in time",
        "Check that the server answers; a slow one needs a longer `open_timeout`.",
    ),
    "timeout_read": Reason(
        "data stopped coming",
        "Check the encoder and the way here; sources with long pauses need a longer "
        "`read_timeout`.",
    ),
    "protocol_missing": Reason(
        "this installation cannot speak the protocol of the URL",
        "`vqmon doctor` lists the protocols and what to install for the others.",
    ),
    "invalid_data": Reason(
        "what arrived is no media that can be read",
        "Check that the address leads to the stream itself and not to a web page, and that it is "
        "neither cut off nor scrambled.",
    ),
    "eof": Reason(
        "the stream ended",
        "Check whether the publisher stopped; vqmon opens a live stream again by itself.",
    ),
    "decoder_missing": Reason(
        "there is no decoder for this codec",
        "`vqmon doctor` lists the decoders; have the encoder send H.264, HEVC, VP9 or AV1.",
    ),
    "bridge_missing": Reason(
        "the helper program for this protocol is not installed",
        "Install ffmpeg or srt-live-transmit (Debian: `apt install ffmpeg` or `srt-tools`).",
    ),
    "no_video": Reason(
        "the stream has no video track",
        "Check the publisher's video input; a stream of sound alone cannot be scored.",
    ),
    "no_frames": Reason(
        "no picture could be decoded",
        "Check for long distances between keyframes, scrambling or heavy packet loss.",
    ),
    "black": Reason(
        "every picture that was looked at is black, which says nothing about quality",
        "Check the camera, the playout or the input that feeds the encoder.",
    ),
    "unsupported_picture": Reason(
        "pictures of this kind cannot be scored",
        "The model judges SDR pictures from 32 to 16384 pixels a side: watch an SDR rendition.",
    ),
    "scorer_unavailable": Reason(
        "the scoring process was away",
        "It is being replaced; if this lasts, see the log of the daemon.",
    ),
    "scorer_failed": Reason(
        "the model failed on these pictures",
        "See the log for its message, and check the model folder with `vqmon doctor`.",
    ),
    "overload": Reason(
        "this machine was too busy to look at any picture",
        "Watch fewer streams on it, by keyframes or by schedule, or give it more cores.",
    ),
    "process_restarted": Reason(
        "vqmon's own ingest process was replaced",
        "The gap is ours and no fault of the stream; if it recurs, see the log of the daemon.",
    ),
    "visit_missed": Reason(
        "a scheduled visit could not take place in time",
        "Raise the cap on concurrent visits, lengthen `every`, or watch fewer streams.",
    ),
    "stopped": Reason(
        "vqmon was stopped",
        "Nothing to do: watching goes on when it runs again.",
    ),
}

SCORE_WORDS = ((80, "excellent"), (60, "good"), (40, "fair"), (20, "poor"), (0, "bad"))
"""From this quality on."""


def score_word(quality: float) -> str:
    """Excellent from 80 on, good from 60, fair from 40, poor from 20, else bad."""
    return next((word for least, word in SCORE_WORDS if quality >= least), "bad")


NOUNS = {
    "corrupted": "damaged pictures",
    "underexposed": "underexposure",
    "overexposed": "overexposure",
    "upscaled": "upscaling",
    "black": "black picture",
    "format_changed": "format change",
    "audio_silence": "silence",
    "audio_loudness": "loudness",
    "audio_clipping": "clipped sound",
    "storage_low": "lack of storage",
}


def title(name: str) -> str:
    """A noun: `corrupted` -> `damaged pictures`, `packet_loss` -> `packet loss`."""
    return NOUNS.get(name, name.replace("_", " "))


def number(value: float) -> str:
    """Without an exponent, without trailing zeros, three decimals (small ones two figures)."""
    if value and abs(value) < 0.1:
        return f"{value:.2g}" if abs(value) >= 1e-4 else f"{value:.6f}".rstrip("0").rstrip(".")
    return f"{value:.3f}".rstrip("0").rstrip(".")


def region_words(region: tuple[str, ...] | None) -> str:
    """Where, as in "in the top third"; the whole picture for none and for all nine."""
    cells = set(region or ())
    if not cells or len(cells) == 9:
        return "in the whole picture"
    for name, third in THIRDS.items():
        if cells == third:
            return f"in {name}"
    return f"at {listed(list(region or ()))}"


THIRDS = {
    "the top third": frozenset(("top-left", "top", "top-right")),
    "the middle third": frozenset(("left", "centre", "right")),
    "the bottom third": frozenset(("bottom-left", "bottom", "bottom-right")),
    "the left third": frozenset(("top-left", "left", "bottom-left")),
    "the right third": frozenset(("top-right", "right", "bottom-right")),
    "the corners": frozenset(("top-left", "top-right", "bottom-left", "bottom-right")),
}


def listed(names: list[str]) -> str:
    """a; a and b; a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
