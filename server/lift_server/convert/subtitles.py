"""Subtitles, SRT or WebVTT → what is said: no cue numbers, times, styles; sentences on lines of their own."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from lift_server.convert import legacy

TIMES = re.compile(r"\s*(?:\d+:)?\d+:\d\d[,.]\d+ --> ")
MARKUP = re.compile(r"<[^<>]{1,200}>|\{\\[^{}]{1,200}\}")
SPEAKER = re.compile(r"<v(?:\.[^ >]*)? ([^<>]{1,100})>")
SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’»)\]♪]*$")


def read(content: bytes) -> str:
    paragraphs: list[list[str]] = [[]]
    last = ""
    for said in _said(legacy.read(content).splitlines()):
        if said == last:  # captions that roll show each line twice
            continue
        paragraphs[-1].append(said)
        if SENTENCE_END.search(said):
            paragraphs.append([])
        last = said
    return "\n".join(" ".join(lines) for lines in paragraphs if lines)


def _said(lines: list[str]) -> Iterator[str]:
    """Lines below a cue's times, up to a blank one; all else is the format's."""
    is_cue = False
    for line in lines:
        if TIMES.match(line):
            is_cue = True
        elif not line.strip():
            is_cue = False
        elif is_cue and (said := _plain(line)):
            yield said


def _plain(line: str) -> str:
    return html.unescape(MARKUP.sub("", SPEAKER.sub(r"\1: ", line))).strip()
