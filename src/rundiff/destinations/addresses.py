"""Connections to public addresses alone: the name is resolved once, and the checked address is used.

A name that leads to a private, loopback or link-local address could make Rundiff reach services that are
not meant for it (server-side request forgery). Since the address that was checked is the one that is
connected to, a name that resolves differently the second time gains nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from typing import Any

import httpcore
import httpx

from rundiff.errors import DestinationError

__all__ = ["CheckedTransport", "ForbiddenAddress", "addresses_of"]

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class ForbiddenAddress(DestinationError):
    """A host has an address that must not be connected to."""


def addresses_of(host: str, port: int, *, allow_private: bool) -> Sequence[str]:
    """Resolve a host; raises `ForbiddenAddress` if one of its addresses is not public, and `OSError`."""
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not allow_private:
        for address in found:
            if not _is_public(ipaddress.ip_address(address)):
                raise ForbiddenAddress(
                    f"{host} has the address {address}, which is not public. If it is meant, allow it with "
                    "--http-allow-private (in rundiff.toml: allow_private = true in the sync's table http)"
                )
    return list(dict.fromkeys(found))


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Follow the registries of special-purpose addresses (RFC 6890), also for IPv4 inside of IPv6."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return _is_public(inner)
    return address.is_global and not address.is_multicast


class _CheckedBackend(httpcore.NetworkBackend):
    """Opens connections to checked addresses; TLS still asks for the host's name."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            found = addresses_of(host, port, allow_private=self._allow_private)
        except OSError as error:
            raise httpcore.ConnectError(f"{host} can't be found ({error.strerror or error})") from error
        failure: httpcore.ConnectError | httpcore.ConnectTimeout | None = None
        for address in found:
            try:
                return self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError(f"{host} has no address")


class _Body(httpx.SyncByteStream):
    """The body of a response."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Any:
        return iter(self._stream)

    def close(self) -> None:
        self._stream.close()


class CheckedTransport(httpx.BaseTransport):
    """What httpx sends requests through; no proxy is used, for it would resolve names by itself.

    Errors of the connection come out as httpcore's.
    """

    def __init__(self, connections: int, *, allow_private: bool) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=5.0,
            network_backend=_CheckedBackend(allow_private=allow_private),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request."""
        url = request.url
        answer = self._pool.handle_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(
                    scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
                ),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(
            answer.status, headers=answer.headers, stream=_Body(answer.stream), extensions=answer.extensions
        )

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()
