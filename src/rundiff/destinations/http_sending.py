"""Send requests until their outcome is known, or can't be: retries, rate, redirects, signatures.

What an answer means (RFC 9110 section 15): 2xx is written; 408, 425, 429 and 5xx are worth a repeat, under
the same idempotency key; other 4xx refuse the record, but those that refuse Rundiff itself stop the
delivery. A request that may have arrived, and whose answer did not, has an unknown outcome.
"""

from __future__ import annotations

import contextlib
import email.utils
import logging
import ssl
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpcore
import httpx
import msgspec
import stamina

from rundiff.destinations.addresses import CheckedTransport
from rundiff.errors import ConfigurationError, DestinationError

if TYPE_CHECKING:
    from standardwebhooks import Webhook

__all__ = ["Answer", "Limits", "Request", "Sender", "Unknown"]

# Whoever configures logging sees the retries; without, nothing is printed beside the command's own words.
logging.getLogger("stamina").addHandler(logging.NullHandler())

_REPEATED = frozenset({408, 425, 429, 500, 502, 503, 504})
_NOT_NOW = frozenset({425, 429, 503})
"""The server says that it did nothing."""
_STOPPING = {
    401: "does not accept the credentials",
    405: "does not know the method",
    407: "wants a proxy's login",
}
_NOT_SENT = (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.PoolTimeout)
_PERHAPS_SENT = (httpcore.TimeoutException, httpcore.NetworkError, httpcore.RemoteProtocolError)
_LONGEST_WAIT = 300.0
"""Seconds that a Retry-After may ask for; for longer ones the run stops and a later one goes on."""
_LONGEST_ANSWER = 8 << 20
_REDIRECTS = 5
_SHORTEST_SECRET = 4
"""Shorter values would be found by chance."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How patiently and how fast to send."""

    timeout: float
    """Seconds for a connection, and between two signs of life of an answer."""
    attempts: int
    rate: float | None
    """Requests a second."""
    connections: int
    allow_private: bool


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request, the same on every repeat but for the time of its signature."""

    method: str
    url: str
    key: str
    """The idempotency key."""
    body: bytes | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the server said in the end."""

    status: int
    body: bytes = b""
    doubtful: bool = False
    """An earlier try may have been applied."""

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    @property
    def reason(self) -> str:
        """The status, with the server's own words where they are few and in a place of their own."""
        said = said_by(self.body)
        return f"the server answered {self.status}{': ' + said if said else ''}"


class Unknown(Exception):
    """All tries are over, and nobody knows what became of the request."""


class _Again(Exception):
    """A try failed that is worth a repeat."""

    def __init__(self, reason: str, *, unknown: bool, wait: float | None = None) -> None:
        super().__init__(reason)
        self.unknown = unknown
        self.wait = wait


def said_by(body: bytes) -> str:
    """Give the server's words on an error: a text under `error`, `message`, `detail` or `title`, cut at 200."""
    import msgspec

    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    for name in ("detail", "message", "error", "title", "message"):
        if isinstance(said, dict) and name in said:
            said = said[name]
            if isinstance(said, dict):
                continue
            break
    return " ".join(said.split())[:200] if isinstance(said, str) else ""


class _Pace(msgspec.Struct):
    """Spreads requests over time."""

    rate: float | None
    _next: float = 0.0
    _lock: threading.Lock = msgspec.field(default_factory=threading.Lock)

    def wait(self) -> None:
        with self._lock:
            now = time.monotonic()
            at = max(now, self._next)
            self._next = at + (1 / self.rate if self.rate else 0)
        if at > now:
            time.sleep(at - now)

    def pause(self, seconds: float) -> None:
        """Let nobody send for so long."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


class Sender:
    """Sends requests; thread-safe."""

    def __init__(
        self,
        limits: Limits,
        headers: dict[str, str],
        login: tuple[str, str] | None,
        secret: str | None,
    ) -> None:
        self._limits = limits
        self._headers = headers
        self._auth = None if login is None else httpx.BasicAuth(*login)
        self._webhook = None if secret is None else _webhook(secret)
        secrets = [*headers.values(), *(login or ())[1:]]
        self._secrets = [text.encode() for text in secrets if len(text) >= _SHORTEST_SECRET]
        self._pace = _Pace(limits.rate)
        self._client = httpx.Client(
            transport=CheckedTransport(limits.connections, allow_private=limits.allow_private),
            timeout=limits.timeout,
            trust_env=False,
        )

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def send(self, request: Request) -> Answer:
        """Send until there is an answer that a repeat would not change.

        Raises `Unknown`, and `DestinationError` where the server can't be reached or wants no requests now.
        """
        doubtful = False
        try:
            for attempt in stamina.retry_context(
                on=_backoff,
                attempts=self._limits.attempts,
                timeout=None,
                wait_initial=0.5,
                wait_max=30.0,
                wait_jitter=0.5,
            ):
                with attempt:
                    try:
                        answer = self._once(request)
                    except _Again as error:
                        doubtful = doubtful or error.unknown
                        raise
        except _Again as error:
            if error.unknown:
                raise Unknown(str(error)) from error
            raise DestinationError(
                f"{error}. Nothing is lost: run again, delivery goes on where it stopped"
            ) from error
        return Answer(status=answer.status, body=answer.body, doubtful=doubtful)

    def _once(self, request: Request) -> Answer:
        url, headers, auth = httpx.URL(request.url), dict(self._headers), self._auth
        for _ in range(_REDIRECTS + 1):
            answer, location = self._exchange(request, url, headers, auth)
            if not 300 <= answer.status < 400:
                return self._judged(answer)
            following = _followed(url, answer.status, location)
            if (following.scheme, following.host, following.port) != (url.scheme, url.host, url.port):
                # What lets Rundiff in here is nothing for another host to see.
                headers, auth = {}, None
            url = following
        raise DestinationError(f"{_shown(httpx.URL(request.url))} redirects more than {_REDIRECTS} times")

    def _exchange(
        self, request: Request, url: httpx.URL, headers: dict[str, str], auth: httpx.Auth | None
    ) -> tuple[Answer, str | None]:
        self._pace.wait()
        sent = {**headers, **self._own_headers(request)}
        place = _shown(url)
        try:
            with self._client.stream(
                request.method, url, content=request.body, headers=sent, auth=auth
            ) as response:
                body = b""
                for part in response.iter_bytes():
                    body += part
                    if len(body) > _LONGEST_ANSWER:
                        break
        except _NOT_SENT as error:
            if isinstance(error.__context__, ssl.SSLError):
                raise DestinationError(f"{place} has no certificate that can be trusted ({error})") from error
            raise _Again(f"{place} can't be reached ({_words(error)})", unknown=False) from error
        except _PERHAPS_SENT as error:
            raise _Again(f"{place} did not answer ({_words(error)})", unknown=True) from error
        except (httpx.DecodingError, httpx.InvalidURL, httpcore.ProtocolError) as error:
            raise DestinationError(f"{place} can't be talked to ({_words(error)})") from error
        if not response.is_success:
            # A server may repeat in its answer what it was sent.
            for secret in self._secrets:
                body = body.replace(secret, b"***")
        answer = Answer(status=response.status_code, body=body)
        if answer.status in _REPEATED or answer.status >= 500:
            wait = _retry_after(response.headers.get("retry-after"))
            if wait is not None:
                self._pace.pause(min(wait, _LONGEST_WAIT))
            if wait is not None and wait > _LONGEST_WAIT:
                raise DestinationError(
                    f"{place} answered {answer.status} and asks to wait {wait:,.0f} seconds: run again then, "
                    "delivery goes on where it stopped"
                )
            raise _Again(f"{place}: {answer.reason}", unknown=answer.status not in _NOT_NOW, wait=wait)
        return answer, response.headers.get("location")

    def _own_headers(self, request: Request) -> dict[str, str]:
        headers = {"Idempotency-Key": request.key, "User-Agent": "rundiff"}
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        if self._webhook is not None:
            # https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
            now = datetime.now(UTC)
            headers["webhook-id"] = request.key
            headers["webhook-timestamp"] = str(int(now.timestamp()))
            headers["webhook-signature"] = self._webhook.sign(
                request.key, now, (request.body or b"").decode()
            )
        return headers

    def _judged(self, answer: Answer) -> Answer:
        if answer.status in _STOPPING:
            raise DestinationError(
                f"the server {_STOPPING[answer.status]} ({answer.reason}). Mend the options of the destination, "
                "then run again: delivery goes on where it stopped"
            )
        return answer


def _backoff(error: Exception) -> bool | float:
    if not isinstance(error, _Again):
        return False
    return True if error.wait is None else error.wait


def _followed(url: httpx.URL, status: int, location: str | None) -> httpx.URL:
    """Give the address that a redirect leads to; only those that keep the method are followed."""
    if status not in (307, 308) or not location:
        raise DestinationError(
            f"{_shown(url)} answered {status}, a redirect that would change the request"
            + (f" (to {_shown(url.join(location))})" if location else "")
            + ": name the address that it leads to"
        )
    following = url.join(location)
    if following.scheme not in ("http", "https") or (url.scheme, following.scheme) == ("https", "http"):
        raise DestinationError(f"{_shown(url)} redirects to {_shown(following)}, which is not followed")
    return following


def _retry_after(value: str | None) -> float | None:
    """Read Retry-After: seconds or a date (RFC 9110 section 10.2.3)."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    with contextlib.suppress(ValueError, TypeError):
        at = email.utils.parsedate_to_datetime(value)
        return max(0.0, (at - datetime.now(UTC)).total_seconds())
    return None


def _shown(url: httpx.URL) -> str:
    """A URL without login and query, which may be secret."""
    return str(url.copy_with(userinfo=b"", query=None, fragment=None))


def _words(error: Any) -> str:
    return str(error) or type(error).__name__


def _webhook(secret: str) -> Webhook:
    from standardwebhooks import Webhook

    try:
        return Webhook(secret)
    except Exception as error:  # the package raises errors of several kinds
        raise ConfigurationError(
            "The webhook secret can't be used: it must be base64, optionally after whsec_."
        ) from error
