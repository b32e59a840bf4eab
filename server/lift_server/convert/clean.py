"""Text as a reader gives it → as it is kept: no control characters, no runs of blank lines, words whole."""

from __future__ import annotations

import re

CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef\ufff9-\uffff\ud800-\udfff]")
INVISIBLE = re.compile(r"[\u00ad\u200b\u2060\ufeff]")  # soft hyphens, spaces without width
LINE_ENDS = re.compile(r"\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
TRAILING = re.compile(r"[^\S\n]+$", re.MULTILINE)
BLANK_LINES = re.compile(r"\n{3,}")
LIGATURES = str.maketrans({"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"})


def cleaned(text: str) -> str:
    text = LINE_ENDS.sub("\n", text)
    text = INVISIBLE.sub("", CONTROL.sub("", text)).translate(LIGATURES)
    return BLANK_LINES.sub("\n\n", TRAILING.sub("", text)).strip("\n")
