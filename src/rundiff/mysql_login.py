"""Connections to MySQL and MariaDB, by PyMySQL, for sources and destinations alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rundiff.errors import MissingDriver

if TYPE_CHECKING:
    from rundiff.errors import DestinationError, SourceError
    from rundiff.servers import Server

__all__ = ["OPTIONS", "connect"]

OPTIONS = ("unix_socket", "connect_timeout", "ssl_ca", "ssl_cert", "ssl_key", "ssl_verify_identity")
"""What a URL may hold behind the question mark."""
_CONNECT_SECONDS = 15


def connect(
    server: Server, failure: type[SourceError | DestinationError], *, count_met_rows: bool = False
) -> Any:
    """Log in to a server, in autocommit and UTF-8; gives a connection of PyMySQL.

    With `count_met_rows` an update counts the rows that it met, changed or not. Raises `MissingDriver`, and
    `failure` where the server can't be reached, in a sentence without the password.
    """
    try:
        import pymysql  # type: ignore[import-untyped]  # it ships no type information
        from pymysql.constants import CLIENT  # type: ignore[import-untyped]  # as above
    except ImportError:
        raise MissingDriver(
            "MySQL needs the package PyMySQL: install it with `pip install 'rundiff[mysql]'`."
        ) from None
    options: dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS, **server.options}
    options["connect_timeout"] = int(options["connect_timeout"])
    if "ssl_verify_identity" in options:
        options["ssl_verify_identity"] = options["ssl_verify_identity"].lower() in ("1", "true", "yes")
    known = {"user": server.user, "password": server.password, "host": server.host}
    try:
        return pymysql.connect(
            port=server.port,
            database=server.database,
            charset="utf8mb4",
            autocommit=True,
            client_flag=CLIENT.FOUND_ROWS if count_met_rows else 0,
            **{name: value for name, value in known.items() if value is not None},
            **options,
        )
    except RuntimeError:  # the way a server of MySQL 8 wants passwords over a plain connection
        raise MissingDriver(
            f"The MySQL database {server.address} wants a password in a way that needs the package cryptography: "
            "install it with `pip install 'pymysql[rsa]'`, or connect by TLS (ssl_ca)."
        ) from None
    except (pymysql.err.Error, OSError) as error:
        reason = server.hushed(str(error.args[1] if len(error.args) > 1 else error))
        raise failure(
            f"The MySQL database {server.address} can't be reached: {reason}. Mend it, then run again."
        ) from None
