"""Web pages as clients (CORS): a browser asks before a page's request, and shows the page what the answer allows.

Any page may try, since a key is sent by the page itself and never by the browser on its own. Whether it is let in is
decided as for everybody (access.py); without keys a page of another site is not (peer.py).
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope

API = "/v1/"  # not the operator's routes, which are open to whoever reaches them
ANSWER = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "*"}
METHODS = "GET, POST, DELETE"
KNOWN_S = 600


def cors_headers(scope: Scope) -> dict[str, str]:
    """What an answer has besides where a page asks."""
    return ANSWER if scope["path"].startswith(API) and "origin" in Headers(scope=scope) else {}


def preflight(scope: Scope) -> Response | None:
    """The answer to a browser's question whether a page may; None where this is none. It comes without the key."""
    headers = Headers(scope=scope)
    if scope["method"] != "OPTIONS" or "access-control-request-method" not in headers or not cors_headers(scope):
        return None
    allowed = {"Access-Control-Allow-Methods": METHODS, "Access-Control-Max-Age": str(KNOWN_S)}
    if wanted := headers.get("access-control-request-headers"):  # a `*` would not include Authorization
        allowed["Access-Control-Allow-Headers"] = wanted
    return Response(status_code=204, headers=allowed)
