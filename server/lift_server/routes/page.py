"""`/`, the page for people, and `/docs`, the API to be read and tried: the same bytes for everybody, without a key.

In: a path. Out: a file, and the policy under which nothing else runs, loads or is reached.
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from lift_server.page import FILES

router = APIRouter()

# Nothing but these files runs, loads or is reached; a title or an answer that got into the page could still do nothing.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # asked for each time, by its ETag: a new version's files never mix with an old one's
}


async def page(request: Request) -> Response:
    file = FILES[request.scope["path"]]
    headers = HEADERS | {"ETag": file.etag}
    if _is_known(request.headers.get("if-none-match", ""), file.etag):
        return Response(status_code=304, headers=headers)
    return Response(file.body, headers=headers | {"Content-Type": file.kind})


def _is_known(given: str, etag: str) -> bool:
    """Whether the browser has it already; a proxy that compressed it marked the ETag as weak."""
    return etag in (one.strip().removeprefix("W/") for one in given.split(","))


for _path in FILES:  # a route each: any other path is as unknown as everywhere else
    router.add_api_route(_path, page, methods=["GET", "HEAD"], include_in_schema=False)
