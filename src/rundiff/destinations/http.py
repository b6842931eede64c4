"""HTTP APIs and webhooks: create is POST, update PATCH or PUT, delete DELETE; at least once, with a key.

One request carries one record, or, with `http_batch`, a JSON array of them that is sent by POST. Changes
are upserts by primary key: an update that meets 404 is sent as a create, a create that meets 409 as an
update, and a delete of what is gone (404, 410) is done.
"""

# ruff: noqa: ARG002  # the contract fixes the arguments, whether a backend needs them or not
from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec
import pyarrow as pa

from rundiff.destinations.contract import Capabilities, ChangeBatch, Delivered, NotWritten, Position, Target
from rundiff.destinations.http_answers import GONE, outcomes
from rundiff.destinations.http_bodies import Maker, Unfit, body_maker, path_maker
from rundiff.destinations.kinds import kind_of
from rundiff.destinations.markless import Markless
from rundiff.destinations.objects import write_records
from rundiff.destinations.render import change_lines, json_text
from rundiff.errors import ConfigurationError, DestinationError, MissingDriver
from rundiff.model import Action
from rundiff.settings import DestinationOptions

__all__ = ["HttpDestination", "open_api"]

_LEAST_BATCH = 200
"""Records between two acknowledgements, which are what a broken delivery repeats at most."""
_UNKNOWN_IN_A_ROW = 3
"""So many requests without a known outcome say that it is the server, and not the record."""


def open_api(options: DestinationOptions) -> HttpDestination:
    """Open the API at `options.url`; nothing is sent before a method is called."""
    try:
        from rundiff.destinations import http_sending  # noqa: F401 -- asked for early, with its hint
    except ModuleNotFoundError as error:
        raise MissingDriver(
            f"A destination http(s):// needs the package {error.name}: install it with `pip install 'rundiff[http]'`."
        ) from error
    return HttpDestination(options)


class _Piece(msgspec.Struct):
    """Some records that go out in one request."""

    first: int
    bodies: list[bytes | None]
    paths: list[str]
    unfit: dict[int, str] = msgspec.field(default_factory=dict)

    def part(self, start: int, stop: int) -> _Piece:
        return _Piece(self.first + start, self.bodies[start:stop], self.paths[start:stop])


class _Outcome(msgspec.Struct):
    """What became of some records."""

    aside: list[NotWritten] = msgspec.field(default_factory=list)
    silent: bool = False
    """No request of it had a known outcome."""
    stopped: str | None = None


class HttpDestination(Markless):
    """An API at one address."""

    def __init__(self, options: DestinationOptions) -> None:
        split = urlsplit(options.url or "")
        if not split.hostname:
            raise ConfigurationError("The destination has no host: write it as https://HOST/PATH.")
        self._options = options
        self._login = (
            (unquote(split.username), unquote(split.password or "")) if split.username is not None else None
        )
        self._split = split._replace(netloc=split.netloc.rpartition("@")[2], fragment="")
        self._body = body_maker(options.http_body)
        self._sender: Any = None
        if options.http_batch < 1 or options.http_concurrency < 1 or options.http_attempts < 1:
            raise ConfigurationError("http_batch, http_concurrency and http_attempts must be 1 or more.")
        self.capabilities = Capabilities(
            new_action=Action.CREATE,
            transactional=False,
            upserts=True,
            wants_previous=True,
            batch_records=max(_LEAST_BATCH, options.http_batch * options.http_concurrency),
        )
        """APIs take creates, at least once."""

    @property
    def identity(self) -> str:
        """The URL without login and query."""
        return urlunsplit(self._split._replace(query=""))

    def check(self, target: Target, fields: Mapping[str, pa.DataType] | None) -> None:
        """Refuse private addresses, secrets that are missing, and templates of fields that are not there."""
        if fields is None:
            self._check_address(target)
        self._open()
        makers = [
            path_maker(self._options.http_item, target.primary_key),
            *([self._body] if self._body else []),
        ]
        if fields is None:
            return
        for arrow_type in fields.values():
            kind_of(arrow_type)
        unknown = sorted({name for maker in makers for name in maker.fields} - set(fields))
        if unknown:
            raise ConfigurationError(
                f"sync {target.sync}: a template of the destination names the field {unknown[0]}, which the source "
                "does not have"
            )

    def _check_address(self, target: Target) -> None:
        from rundiff.destinations.addresses import ForbiddenAddress, addresses_of

        host = self._split.hostname or ""
        port = self._split.port or (443 if self._split.scheme == "https" else 80)
        try:
            addresses_of(host, port, allow_private=self._options.http_allow_private)
        except ForbiddenAddress as error:
            raise ConfigurationError(f"sync {target.sync}: {error}") from error
        except OSError as error:
            raise DestinationError(f"{host} can't be found ({error.strerror or error})") from error

    def close(self) -> None:
        """Close all connections."""
        sender, self._sender = self._sender, None
        if sender is not None:
            sender.close()

    def deliver(self, target: Target, batch: ChangeBatch, expected: Position) -> Position:
        """Send the records, some requests side by side, and tell what became of each."""
        self._open()  # here, before several threads ask for it
        options, rows = self._options, int(batch.records.num_rows)
        reached, aside, silent = batch.first_sequence - 1, list[NotWritten](), 0
        stopped: str | None = None
        wave = options.http_batch * options.http_concurrency
        for start in range(0, rows, wave):
            part = batch.slice(start, min(wave, rows - start))
            for piece, outcome in self._wave(target, part):
                aside += outcome.aside
                if outcome.stopped is not None:
                    stopped = stopped or outcome.stopped
                elif stopped is None:
                    reached = piece.first + len(piece.paths) - 1
                silent = silent + 1 if outcome.silent else 0
                if silent >= _UNKNOWN_IN_A_ROW and stopped is None:
                    stopped = (
                        f"{silent} requests in a row to {self.identity} have no known outcome; the last one: "
                        f"{outcome.aside[-1].error}"
                    )
            if stopped is not None:
                break
        else:
            reached = batch.last_sequence
        return Delivered(
            run=batch.run,
            sequence=reached,
            # What is behind the place of the stop is sent again, and its outcome is told then.
            not_written=tuple(item for item in aside if item.sequence <= reached),
            stopped=stopped,
        )

    def _wave(self, target: Target, batch: ChangeBatch) -> Iterator[tuple[_Piece, _Outcome]]:
        """Send as many requests as may go out side by side."""
        whole = self._piece(target, batch)
        size = self._options.http_batch
        pieces = [whole.part(at, at + size) for at in range(0, len(whole.paths), size)]
        for piece in pieces:
            last = piece.first + len(piece.paths)
            piece.unfit = {n: why for n, why in whole.unfit.items() if piece.first <= n < last}
        run = f"{target.sync_id}/{batch.run}"

        def send(piece: _Piece) -> _Outcome:
            return self._send(piece, run, batch.action)

        if len(pieces) == 1:
            # In this thread, where Ctrl-C arrives.
            yield pieces[0], send(pieces[0])
            return
        with ThreadPoolExecutor(len(pieces), thread_name_prefix="rundiff-http") as pool:
            yield from zip(pieces, pool.map(send, pieces), strict=True)

    def _piece(self, target: Target, batch: ChangeBatch) -> _Piece:
        """Render all records of a batch."""
        rows, records = int(batch.records.num_rows), batch.records
        path = path_maker(self._options.http_item, target.primary_key)
        piece = _Piece(batch.first_sequence, [None] * rows, [""] * rows)
        many = self._options.http_batch > 1
        objects = None
        if path.from_record or (self._body and self._body.from_record):
            objects = list(write_records(batch, target.sync_id, batch.sealed_at or datetime.now(UTC)))
        fields = _fields(records) if path.from_fields or (self._body and self._body.from_fields) else []
        if self._body is None and many:
            lines = change_lines(target, batch).to_pylist()
        elif self._body is None and batch.action is not Action.DELETE:
            lines = json_text(records.column("data")).to_pylist()
        else:
            lines = []

        def made(maker: Maker, row: int) -> Any:
            if maker.from_record is not None and objects is not None:
                return maker.from_record(objects[row])
            assert maker.from_fields is not None  # noqa: S101 -- a maker has one of the two
            return maker.from_fields(fields[row])

        for row in range(rows):
            try:
                if not many:
                    piece.paths[row] = made(path, row)
                if lines:
                    piece.bodies[row] = lines[row].rstrip("\n").encode()
                elif self._body is not None and (many or batch.action is not Action.DELETE):
                    piece.bodies[row] = msgspec.json.encode(made(self._body, row))
            except (Unfit, TypeError, ValueError) as error:
                piece.unfit[batch.first_sequence + row] = str(error)
        return piece

    def _send(self, piece: _Piece, run: str, action: Action) -> _Outcome:
        if self._options.http_batch == 1:
            return self._send_one(piece, run, action)
        outcome = _Outcome([NotWritten(sequence=n, error=why) for n, why in piece.unfit.items()])
        fit = [n for n in range(len(piece.paths)) if piece.first + n not in piece.unfit]
        if fit:
            self._send_many(piece, fit, (run, action is Action.DELETE), outcome)
        outcome.aside.sort(key=lambda item: item.sequence)
        return outcome

    def _send_one(self, piece: _Piece, run: str, action: Action) -> _Outcome:
        from rundiff.destinations.http_sending import Request, Unknown

        sequence, key = piece.first, f"{run}/{piece.first}"
        if piece.unfit:
            return _Outcome([NotWritten(sequence=sequence, error=piece.unfit[sequence])])
        body, item = piece.bodies[0], self._item(piece.paths[0])
        steps = {
            Action.CREATE: Request(method="POST", url=self._base(), key=key, body=body),
            Action.UPDATE: Request(method=self._options.http_update, url=item, key=key, body=body),
            Action.DELETE: Request(method="DELETE", url=item, key=key, body=body),
        }
        try:
            answer = self._open().send(steps[action])
            other = {(Action.UPDATE, 404): Action.CREATE, (Action.CREATE, 409): Action.UPDATE}.get(
                (action, answer.status)
            )
            if other is not None:
                # Another request, and so another key: servers refuse a key that comes with a new body.
                again = steps[other]
                retried = self._open().send(
                    Request(method=again.method, url=again.url, key=f"{key}/{other}", body=body)
                )
                if not (other is Action.UPDATE and retried.status == 404):
                    answer = retried
        except Unknown as error:
            return _Outcome([NotWritten(sequence=sequence, error=str(error), unknown=True)], silent=True)
        except DestinationError as error:
            return _Outcome(stopped=str(error))
        if answer.ok or (action is Action.DELETE and answer.status in GONE):
            return _Outcome()
        if action is Action.CREATE and answer.status == 404:
            return _Outcome(stopped=f"there is nothing at {self.identity} to POST to ({answer.reason})")
        return _Outcome([NotWritten(sequence=sequence, error=answer.reason, unknown=answer.doubtful)])

    def _send_many(self, piece: _Piece, rows: list[int], which: tuple[str, bool], outcome: _Outcome) -> None:
        """Send records in one request; halve it while the server refuses it as a whole.

        `which` is the run's part of the keys, and whether the records are deleted.
        """
        from rundiff.destinations.http_sending import Request, Unknown

        run, deleted = which
        sequences = [piece.first + row for row in rows]
        key = f"{run}/{sequences[0]}" + (f"-{sequences[-1]}" if len(rows) > 1 else "")
        body = b"[" + b",".join(piece.bodies[row] or b"null" for row in rows) + b"]"
        try:
            answer = self._open().send(Request(method="POST", url=self._base(), key=key, body=body))
        except Unknown as error:
            outcome.aside += [NotWritten(sequence=n, error=str(error), unknown=True) for n in sequences]
            outcome.silent = True
            return
        except DestinationError as error:
            outcome.stopped = outcome.stopped or str(error)
            return
        if answer.ok:
            try:
                outcome.aside += outcomes((answer.status, answer.body), sequences, run, deleted=deleted)
            except DestinationError as error:
                outcome.stopped = str(error)
        elif answer.status == 404:
            outcome.stopped = f"there is nothing at {self.identity} to POST to ({answer.reason})"
        elif len(rows) == 1:
            outcome.aside.append(
                NotWritten(sequence=sequences[0], error=answer.reason, unknown=answer.doubtful)
            )
        else:
            middle = len(rows) // 2
            self._send_many(piece, rows[:middle], which, outcome)
            if outcome.stopped is None:
                self._send_many(piece, rows[middle:], which, outcome)

    def _base(self) -> str:
        return urlunsplit(self._split)

    def _item(self, path: str) -> str:
        if path.startswith(("http://", "https://")):
            return path
        below, _, query = path.partition("?")
        return urlunsplit(
            self._split._replace(
                path=f"{self._split.path.rstrip('/')}/{below.lstrip('/')}",
                query="&".join(filter(None, (self._split.query, query))),
            )
        )

    def _open(self) -> Any:
        if self._sender is None:
            from rundiff.destinations.http_sending import Limits, Sender

            options = self._options
            self._sender = Sender(
                Limits(
                    timeout=options.http_timeout,
                    attempts=options.http_attempts,
                    rate=options.http_rate,
                    connections=options.http_concurrency,
                    allow_private=options.http_allow_private,
                ),
                dict(options.http_headers),
                self._login,
                _secret(options.http_secret_env),
            )
        return self._sender


def _fields(records: pa.RecordBatch) -> list[Mapping[str, Any]]:
    """Give each record's fields in their JSON forms; the key's alone where the data are not known."""
    decode: Callable[[Any], Any] = msgspec.json.decode
    data = json_text(records.column("data")).to_pylist()
    keys = json_text(records.column("primary_key")).to_pylist()
    return [decode(whole) or decode(key) for whole, key in zip(data, keys, strict=True)]


def _secret(variable: str | None) -> str | None:
    if variable is None:
        return None
    secret = os.environ.get(variable)
    if not secret:
        raise ConfigurationError(
            f"The environment variable {variable}, which http_secret_env names, is not set: give it the secret."
        )
    return secret
