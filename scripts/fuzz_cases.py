"""Bad requests, each made of a seed and its number alone: files of every format, bodies, headers, ids, paths, HTTP.

In: seed, number, ids of documents that are there. Out: the bytes that go over the wire, and what kind they are of.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from random import Random
from typing import Any

from bench_common import ROOT

sys.path.insert(0, str(ROOT))

from tests.lift_server import made_files

MODEL = "smollm2-135m-instruct"
TEXT = "The lighthouse at Varn Point was built in 1874. Its lamp burns oil. The keeper's dog is called Brisket. "
UNKNOWN = "doc_" + "f" * 24
ODD_IDS = (
    UNKNOWN, "doc_", "..", "%2e%2e%2f", "a%00b", "x" * 10_000, "%ff", "%F0%9F%94%A5", "*", "DOC_" + "0" * 24, "-1",
)  # fmt: skip
HOSTILE: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 2**70, -(2**70), 1e308, float("nan"), float("inf"), "", "\0", "\ud800", "\u202e",
    "x" * 5000, [], {}, [[]], [None] * 50, {"": ""}, "../../etc/passwd", UNKNOWN, "%s%n", "' OR 1=1 --", "1e999",
)  # fmt: skip
QUESTIONS = ("/v1/chat/completions", "/v1/completions", "/v1/responses")
OFFERED = ("/v1/embeddings", "/v1/score", "/v1/rerank", "/tokenize", "/detokenize", "/pooling", "/classify")
OTHERS = (
    "/v1/documents", "/v1/files", "/v1/uploads", "/v1/models", "/ready", "/metrics", "/openapi.json", "/",
    "/page/main.js",
)  # fmt: skip
HEADERS = (
    ("Content-Encoding", "gzip"), ("Content-Type", "text/plain"), ("Content-Type", "multipart/form-data"),
    ("Content-Type", "application/json; charset=utf-16"), ("X-Document-Id", "{doc}"), ("X-Document-Id", UNKNOWN),
    ("X-Document-Id", "\xff\xfe"), ("X-Request-Id", "x" * 3000), ("X-Request-Id", "\x01"),
    ("Origin", "http://evil.example"), ("Origin", "null"), ("Host", "evil.example"), ("Host", "["),
    ("Authorization", "Bearer \xff"), ("Authorization", "x"),
    ("traceparent", "00-zz"), ("Accept", "text/html"), ("Range", "bytes=0-0"), ("Expect", "nothing"),
    ("Transfer-Encoding", "chunked"), ("Content-Length", "-1"), ("Content-Length", "99999999999"),
    ("X-Forwarded-For", "::"), ("Cookie", "a" * 4000),
)  # fmt: skip
ODD_LENGTHS = (b"\r\nTransfer-Encoding: ", b"\r\nContent-Length: -1", b"\r\nContent-Length: 99999999999")
MAGIC = (
    b"%PDF-1.7\n",
    b"PK\x03\x04",
    b"{\\rtf1",
    b"\xff\xfe",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    b"\0",
    b"\x89PNG\r\n",
)


@dataclass(frozen=True)
class Case:
    """`sent`: a whole HTTP request, or what is left of one; one that may be cut off need not be answered."""

    number: int
    kind: str
    sent: bytes

    @property
    def is_whole(self) -> bool:
        return self.kind != "broken HTTP" and not any(odd in self.sent for odd in ODD_LENGTHS)


def case(seed: int, number: int, documents: tuple[str, ...]) -> Case:
    random = Random(f"{seed} {number}")
    kind = random.choices(tuple(KINDS), weights=[share for share, _ in KINDS.values()])[0]
    return Case(number, kind, KINDS[kind][1](random, random.choice(documents)))


# ---- kinds --------------------------------------------------------------------------------------------------------


def _question(random: Random, document: str) -> bytes:
    path = random.choice(QUESTIONS)
    content: Any = "Who built it?"
    if random.random() < 0.3:
        data = f"data:text/plain;base64,{base64.b64encode(TEXT.encode()).decode()}"
        part = random.choice(
            [{"file_id": document}, {"file_data": data, "filename": "a.txt"}, {"file_url": "http://a"}]
        )
        text = "input_text" if path == QUESTIONS[2] else "text"
        file = {"type": "input_file", **part} if path == QUESTIONS[2] else {"type": "file", "file": part}
        content = [file, {"type": text, "text": content}]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}]
    asked: dict[str, dict[str, Any]] = {
        QUESTIONS[0]: {"messages": messages},
        QUESTIONS[1]: {"prompt": "It was"},
        QUESTIONS[2]: {"input": messages},
    }
    body: dict[str, Any] = asked[path] | {
        "model": random.choice((MODEL, f"{MODEL}:{document}", "other")),
        "stream": random.random() < 0.4,
        "temperature": 0,
        "stop": ["\n"],
        "metadata": {"document_id": document},
        "lift": {"mode": random.choice(("adapter", "auto", "context", "hybrid")), "max_wait_s": 0.2},
    }
    if random.random() < 0.5:
        body["document_id"] = document
    if random.random() < 0.2:
        body["lift"] |= random.choice(({"recipe": "fast"}, {"ttft_budget_s": 0.1}, {"evidence": True}))
    return _posted(random, path, _mutated_json(random, body))


def _upload_text(random: Random, _: str) -> bytes:
    body = {"text": TEXT * random.randint(0, 3), "title": "Log", "recipe": "fast", "metadata": {"a": "b"}}
    body |= {"expires_after": {"anchor": "created_at", "seconds": 3600}}
    return _posted(random, "/v1/documents", _mutated_json(random, body))


def _upload_file(random: Random, _: str) -> bytes:
    name, content = random.choice(list(SAMPLES.items()))
    content = _mutated_bytes(random, content) if random.random() < 0.9 else content
    name = random.choice((f"a.{name}", "../../a", "\u202ea.pdf", "", "a" * 3000, "a.docx"))
    path = random.choice(("/v1/documents", "/v1/files"))
    fields = {"purpose": random.choice(("user_data", "assistants", "x", "")), "title": str(random.choice(HOSTILE))}
    if path == "/v1/documents":
        del fields["purpose"]
    return _form(random, path, "file", name, content, fields)


def _parts(random: Random, _: str) -> bytes:
    if random.random() < 0.5:
        body = {"filename": "a.txt", "purpose": "user_data", "bytes": 10, "mime_type": "text/plain"}
        return _posted(random, "/v1/uploads", _mutated_json(random, body))
    upload = random.choice(("upload_" + "0" * 24, *ODD_IDS))
    if random.random() < 0.5:
        return _form(random, f"/v1/uploads/{upload}/parts", "data", "a", _mutated_bytes(random, b"abc"), {})
    action = random.choice(("complete", "cancel"))
    return _posted(
        random, f"/v1/uploads/{upload}/{action}", _mutated_json(random, {"part_ids": ["part_1"], "md5": "0"})
    )


def _path(random: Random, document: str) -> bytes:
    base = random.choice(("/v1/documents", "/v1/files", "/v1/models", "/v1/responses", "/v1/uploads", "/page", ""))
    one, method = (
        random.choice(ODD_IDS),
        random.choice(("GET", "DELETE", "POST", "PUT", "PATCH", "HEAD", "OPTIONS", "TRACE")),
    )
    if method in ("GET", "HEAD", "OPTIONS") and random.random() < 0.5:
        one = document
    tail = random.choice(
        ("", "", "/content", "/adapter", "/events", "/cancel", "/complete", "/..", "//", "/input_items")
    )
    return _request(random, method, f"{base}/{one}{tail}{_query(random)}")


def _look(random: Random, _: str) -> bytes:
    return _request(random, random.choice(("GET", "GET", "HEAD", "DELETE")), random.choice(OTHERS) + _query(random))


def _passed(random: Random, document: str) -> bytes:
    body = {"model": random.choice((MODEL, document)), "input": ["a"], "prompt": "a", "text_1": "a", "text_2": ["b"]}
    return _posted(random, random.choice(OFFERED), _mutated_json(random, body))


def _http(random: Random, document: str) -> bytes:
    """A request that is hardly one any more."""
    return _mutated_bytes(random, random.choice((_question, _look, _path))(random, document))


KINDS: dict[str, tuple[float, Callable[[Random, str], bytes]]] = {
    "question": (40, _question),
    "text upload": (12, _upload_text),
    "file upload": (4, _upload_file),
    "upload in parts": (8, _parts),
    "path and id": (14, _path),
    "list and look": (8, _look),
    "passed on": (6, _passed),
    "broken HTTP": (8, _http),
}

SAMPLES: dict[str, bytes] = {
    "txt": TEXT.encode(),
    "utf16.txt": TEXT.encode("utf-16"),
    "latin.txt": "Das Licht am Fjord wurde für die Möwen größer gebaut. Ça va là-bas.".encode("latin-1"),
    "md": f"# Log\n\n- {TEXT}\n".encode(),
    "csv": b"Year;Keeper\n1874;Holm\n1901;Brand\n",
    "html": f"<html><nav>x</nav><h1>Log</h1><p>{TEXT}<table><tr><td>1</table></html>".encode(),
    "rtf": b"{\\rtf1\\ansi " + TEXT.encode() + b"\\par}",
    "eml": b"From: a@b.c\nTo: d@e.f\nSubject: Log\nMIME-Version: 1.0\nContent-Type: text/plain\n\n" + TEXT.encode(),
    "srt": b"1\n00:00:01,000 --> 00:00:02,000\n" + TEXT.encode() + b"\n",
    "vtt": b"WEBVTT\n\n00:01.000 --> 00:02.000\n" + TEXT.encode() + b"\n",
    "pdf": made_files.pdf([made_files.lines([TEXT])]),
    "locked.pdf": made_files.pdf([], made_files.ENCRYPTED),
    "docx": made_files.docx(made_files.paragraph(TEXT)),
    "pptx": made_files.pptx([made_files.shape(TEXT)], {}),
    "xlsx": made_files.xlsx({"A": [["Year", "Keeper"], [1874, "Holm"]]}),
    "epub": made_files.epub({"one.xhtml": f"<p>{TEXT}</p>"}),
}


# ---- mutations ----------------------------------------------------------------------------------------------------


def _mutated_json(random: Random, body: Any) -> bytes:
    """A few of its values replaced, dropped or joined by others; then, now and then, its bytes too."""
    for _ in range(random.choice((0, 1, 1, 2, 3))):
        _mutate(random, body)
    sent = json.dumps(body).encode()
    if random.random() < 0.15:
        sent = random.choice(
            (_mutated_bytes(random, sent), b"[" * 50_000, b'{"a":' * 20_000, b"", b"null", b"\xff\xfe{}")
        )
    return sent


def _mutate(random: Random, node: Any) -> None:
    """One place below `node`."""
    keys = list(node) if isinstance(node, dict) else list(range(len(node)))
    if not keys:
        return
    key = random.choice(keys)
    inner, way = node[key], random.random()
    if isinstance(inner, dict | list) and way < 0.6:
        _mutate(random, inner)
    elif way < 0.75:
        node[key] = deepcopy(random.choice(HOSTILE))
    elif way < 0.85:
        del node[key]
    elif way < 0.93 and isinstance(node, dict):
        node[random.choice(("document_ids", "n", "extra", "max_tokens", "file_id", ""))] = deepcopy(
            random.choice(HOSTILE)
        )
    else:
        node[key] = [inner] * random.choice((0, 2, 100))


def _mutated_bytes(random: Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(random.randint(1, 4)):
        at, length = random.randrange(len(changed) + 1), random.choice((1, 1, 4, 64, 1000))
        way = random.randrange(5)
        if way == 0:
            changed[at : at + length] = random.randbytes(length)
        elif way == 1:
            del changed[at : at + length]
        elif way == 2:
            changed[at:at] = changed[at : at + length] * random.choice((1, 50))
        elif way == 3:
            changed[at:at] = random.choice(MAGIC)
        else:
            del changed[at:]
    return bytes(changed)


# ---- HTTP ---------------------------------------------------------------------------------------------------------


def _query(random: Random) -> str:
    if random.random() < 0.6:
        return ""
    name = random.choice(("limit", "after", "order", "version", "purpose", "x"))
    return f"?{name}={random.choice(('0', '-1', '100000', 'NaN', '%00', '%ff', 'asc', '9' * 5000, *ODD_IDS[:3]))}"


def _posted(random: Random, path: str, body: bytes) -> bytes:
    return _request(random, "POST", path, body, "application/json")


def _form(random: Random, path: str, part: str, name: str, content: bytes, fields: dict[str, str]) -> bytes:
    """Of the form's own bytes some are changed now and then."""
    edge = "edge"
    written = "".join(
        f'--{edge}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n' for key, value in fields.items()
    ).encode("utf-8", "replace")
    head = f'--{edge}\r\nContent-Disposition: form-data; name="{part}"; filename="{name}"\r\n\r\n'
    body = written + head.encode("utf-8", "replace") + content + f"\r\n--{edge}--\r\n".encode()
    if random.random() < 0.1:
        body = _mutated_bytes(random, body)
    return _request(random, "POST", path, body, f"multipart/form-data; boundary={edge}")


def _request(random: Random, method: str, path: str, body: bytes | None = None, kind: str = "") -> bytes:
    headers = {"Host": "127.0.0.1", "Connection": "close"}
    if body is not None:
        headers |= {"Content-Type": kind, "Content-Length": str(len(body))}
    if random.random() < 0.15:
        name, value = random.choice(HEADERS)
        headers[name] = value
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + (body or b"")
