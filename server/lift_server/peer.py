"""Where a request comes from: this machine, or elsewhere. Asked only while there are no API keys."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

from starlette.requests import Request

# What a proxy adds. None is ever believed: each only shows that somebody else may be behind a local connection.
PROXY_HEADERS = frozenset({"forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"})


def is_local(request: Request) -> bool:
    """From this machine to a loopback address of it, by no proxy that tells, nor by a web page of another site.

    The last is why Host and Origin are looked at: a browser on this machine sends what a page elsewhere wants, to a
    name of that page which was made to mean 127.0.0.1 even with leave to read the answer.
    """
    server: tuple[str, int | None] | None = request.scope.get("server")
    if request.client is None or server is None:
        return False
    if not is_loopback(request.client.host) or not is_loopback(server[0]):
        return False
    headers = request.headers
    if PROXY_HEADERS & set(headers.keys()):
        return False
    return _names_loopback("//" + headers.get("host", "localhost")) and _names_loopback(
        headers.get("origin", "//localhost")
    )


def _names_loopback(url: str) -> bool:
    try:
        name = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return name == "localhost" or name.endswith(".localhost") or is_loopback(name)


def is_loopback(address: str) -> bool:
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    return (ip.ipv4_mapped or ip).is_loopback if isinstance(ip, IPv6Address) else ip.is_loopback
