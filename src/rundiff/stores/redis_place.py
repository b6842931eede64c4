"""Where a Redis or Valkey is, read off its URL; no driver is needed for that.

```
redis://[USER[:PASSWORD]@]HOST[:PORT][/DB]          rediss:// with TLS
unix://[USER[:PASSWORD]@]/PATH/TO/SOCKET[?db=DB]
redis+cluster://HOST[:PORT],HOST[:PORT]             rediss+cluster:// with TLS; also redis://…?cluster=true
redis+sentinel://HOST[:PORT],HOST[:PORT]/SERVICE[/DB]    rediss+sentinel:// with TLS
```

Options behind the `?`: `prefix`, `timeout` (seconds), `db`, `username`, `password`; with TLS `ca_certs`, `certfile`,
`keyfile` (paths), `cert_reqs` (`required`, `optional`, `none`), `check_hostname`; for sentinels that ask for another
login `sentinel_username`, `sentinel_password`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

from rundiff.errors import ConfigurationError
from rundiff.settings import without_secrets

__all__ = ["Place", "read_place"]

_PORT = 6379
_SENTINEL_PORT = 26379
_TLS_OPTIONS = (
    "ca_certs",
    "ca_path",
    "certfile",
    "keyfile",
    "keyfile_password",
    "cert_reqs",
    "check_hostname",
)
_OPTIONS = (
    "prefix",
    "timeout",
    "db",
    "username",
    "password",
    "cluster",
    "sentinel_username",
    "sentinel_password",
    *_TLS_OPTIONS,
)
_YES = {
    "true": True,
    "yes": True,
    "1": True,
    "on": True,
    "false": False,
    "no": False,
    "0": False,
    "off": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A server, a cluster, or what sentinels watch; may hold passwords."""

    kind: str
    """`server`, `socket`, `cluster` or `sentinel`."""
    shown: str
    """The URL without secrets."""
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    service: str = ""
    db: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    prefix: str = "rundiff"
    timeout: float = 30.0
    tls: Mapping[str, Any] | None = field(default=None, repr=False)
    """The client's `ssl_…` options; None without TLS."""
    sentinel: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Login of the sentinels, where it is another."""


def read_place(url: str) -> Place:
    """Read a URL; raises `ConfigurationError`, which never repeats a value of it that may be secret."""
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower().replace("valkey", "redis")
    shown = without_secrets(url)
    given = _options(rest.partition("?")[2], shown)
    base, _, flavour = scheme.partition("+")
    kind = {"": "server", "cluster": "cluster", "sentinel": "sentinel"}[flavour]
    if base == "unix":
        kind = "socket"
    elif _switch(given, "cluster", shown):
        kind = "cluster"
    login, _, place = rest.partition("?")[0].rpartition("@")
    user, _, password = login.partition(":")
    where, _, path = place.partition("/")
    common: dict[str, Any] = {
        "kind": kind,
        "shown": shown,
        "username": given.get("username") or unquote(user) or None,
        "password": given.get("password") or unquote(password) or None,
        "timeout": _seconds(given, shown),
        "prefix": _prefix(given, shown),
        "tls": _tls(given, shown) if base == "rediss" else None,
    }
    if base != "rediss" and any(name in given for name in _TLS_OPTIONS):
        raise ConfigurationError(
            f"The signature store {shown} has options of TLS: begin its URL with rediss."
        )
    if kind == "socket":
        return Place(**common, path="/" + unquote(path), db=_database(given.get("db", "0"), shown))
    port = _SENTINEL_PORT if kind == "sentinel" else _PORT
    common["hosts"] = (
        tuple(_host(each, port, shown) for each in where.split(",")) if where else (("localhost", port),)
    )
    if kind == "sentinel":
        service, _, number = path.strip("/").partition("/")
        if not service:
            raise ConfigurationError(
                f"The signature store {shown} needs the name of the service that the sentinels watch: "
                "redis+sentinel://HOST,HOST/SERVICE."
            )
        logins = {
            name: given[f"sentinel_{name}"]
            for name in ("username", "password")
            if f"sentinel_{name}" in given
        }
        return Place(
            **common,
            service=unquote(service),
            sentinel=logins,
            db=_database(given.get("db") or number or "0", shown),
        )
    db = _database(given.get("db") or path.strip("/") or "0", shown)
    if kind == "cluster" and db:
        raise ConfigurationError(f"The signature store {shown} is a cluster, which has only database 0.")
    if kind == "server" and len(common["hosts"]) > 1:
        raise ConfigurationError(
            f"The signature store {shown} names several hosts: begin its URL with redis+cluster or redis+sentinel."
        )
    return Place(**common, db=db)


def _options(query: str, shown: str) -> dict[str, str]:
    given = {
        name.lower().removeprefix("ssl_"): value for name, value in parse_qsl(query, keep_blank_values=True)
    }
    for name in given:
        if name not in _OPTIONS:
            raise ConfigurationError(
                f"The signature store {shown} has an unknown option {name[:40]!r}: known are {', '.join(_OPTIONS)}."
            )
    return given


def _switch(given: Mapping[str, str], name: str, shown: str) -> bool:
    value = given.get(name, "false").lower()
    if value not in _YES:
        raise ConfigurationError(f"The option {name} of the signature store {shown} must be true or false.")
    return _YES[value]


def _seconds(given: Mapping[str, str], shown: str) -> float:
    try:
        seconds = float(given.get("timeout", "30"))
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise ConfigurationError(
            f"The option timeout of the signature store {shown} must be a number of seconds."
        )
    return seconds


def _prefix(given: Mapping[str, str], shown: str) -> str:
    prefix = given.get("prefix", "rundiff")
    if not prefix or any(letter in prefix for letter in "{}*?[]\\") or not prefix.isprintable():
        raise ConfigurationError(
            f"The option prefix of the signature store {shown} must be a text without braces, brackets and wildcards."
        )
    return prefix


def _tls(given: Mapping[str, str], shown: str) -> dict[str, Any]:
    options: dict[str, Any] = {
        f"ssl_{name}": given[name] for name in _TLS_OPTIONS if name in given and name != "keyfile_password"
    }
    if "keyfile_password" in given:
        options["ssl_password"] = given["keyfile_password"]
    if given.get("cert_reqs", "required") not in ("required", "optional", "none"):
        raise ConfigurationError(
            f"The option cert_reqs of the signature store {shown} must be required, optional or none."
        )
    options.setdefault("ssl_cert_reqs", "required")
    # Without certificates there is no name to check either, and the driver would refuse the pair.
    checked = options["ssl_cert_reqs"] != "none"
    options["ssl_check_hostname"] = (
        _switch(given, "check_hostname", shown) if "check_hostname" in given else checked
    )
    return options


def _database(text: str, shown: str) -> int:
    if not text.isdigit():
        raise ConfigurationError(f"The database of the signature store {shown} must be a whole number.")
    return int(text)


def _host(text: str, port: int, shown: str) -> tuple[str, int]:
    host, colon, number = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, number = text, str(port)
    if not number.isdigit() or not 0 < int(number) < 1 << 16:
        raise ConfigurationError(f"The port in the signature store {shown} must be a number up to 65535.")
    return host.strip("[]") or "localhost", int(number)
