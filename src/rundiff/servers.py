"""URLs of database servers, read without their drivers, what of them may be shown, and what a server says it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from rundiff.errors import ConfigurationError

if TYPE_CHECKING:
    import psycopg

__all__ = ["Server", "parse_server", "server_version"]

Role = Literal["source", "destination"]

_SHOWN = {"source": "might be shown", "destination": "would be stored and shown"}
_SECRETS = ("password", "passwd", "sslpassword", "ssl_key_password")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One database of a server, and how to log in to it."""

    scheme: str
    host: str | None
    """None: what the driver takes by default."""
    port: int
    database: str
    user: str | None
    password: str | None = field(repr=False)
    options: Mapping[str, str]
    """What follows the `?`."""

    @property
    def address(self) -> str:
        """The database for people and for the stored identity: without user, password and options.

        A socket's folder or path stands where the host would, since it tells servers apart.
        """
        host = (self.host or self.options.get("host") or self.options.get("unix_socket") or "").lower()
        shown = f"[{host}]" if ":" in host else host
        return f"{self.scheme}://{shown}:{self.port}/{self.database}"

    def hushed(self, text: str) -> str:
        """Bring a driver's message to one line without the password."""
        line = " ".join(text.split()).removesuffix(".")
        return line.replace(self.password, "…") if self.password else line


def parse_server(
    url: str, scheme: str, port: int, role: Role, options: Collection[str] | None = None
) -> Server:
    """Read `scheme://user:password@host:port/database?option=value`; parts are percent-decoded.

    `options` are the only ones that are known; None takes any. Raises `ConfigurationError`, whose
    message never repeats the URL.
    """
    try:
        split = urlsplit(url)
        given = dict(parse_qsl(split.query, keep_blank_values=True, strict_parsing=bool(split.query)))
        chosen = split.port or port
    except ValueError:
        raise ConfigurationError(
            f"The {role}'s URL can't be read: write it as {scheme}://USER:PASSWORD@HOST:{port}/DATABASE, with "
            "other characters than letters, digits and -._~ percent-encoded."
        ) from None
    secret = next((name for name in given if name.lower() in _SECRETS), None)
    if secret is not None:
        raise ConfigurationError(
            f"The {role}'s URL holds {secret} behind the question mark, where it {_SHOWN[role]}: "
            f"write it before the host, as in {scheme}://USER:PASSWORD@HOST/DATABASE."
        )
    unknown = [] if options is None else [name for name in given if name not in options]
    if unknown:
        raise ConfigurationError(
            f"A {role} {scheme}:// knows no option {unknown[0]}: use one of {', '.join(sorted(options or ()))}."
        )
    database = unquote(split.path.removeprefix("/"))
    if not database or split.fragment:
        raise ConfigurationError(
            f"A {role} {scheme}:// needs the name of a database: {scheme}://USER:PASSWORD@HOST/DATABASE."
        )
    return Server(
        scheme=scheme,
        host=unquote(split.hostname) if split.hostname else None,
        port=chosen,
        database=database,
        user=None if split.username is None else unquote(split.username),
        password=None if split.password is None else unquote(split.password),
        options=given,
    )


def server_version(connection: psycopg.Connection[Any]) -> str:
    """Name a PostgreSQL server's version, and say so where a pooler of connections stands before it.

    A pooler makes up the process number that it gives its clients, so it is not that of any session.
    """
    with connection.cursor(row_factory=_first_of_row) as cursor:
        version, process = (
            cursor.execute(query).fetchone() for query in ("SHOW server_version", "SELECT pg_backend_pid()")
        )
    pooled = process != connection.pgconn.backend_pid
    return f"PostgreSQL {str(version).split()[0]}{', through a pooler' * pooled}"


def _first_of_row(_: Any) -> Any:
    return lambda values: values[0]
