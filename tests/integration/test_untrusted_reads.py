"""Readings that look well and are not: cut files, empty answers, pages that move under the reader."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import pytest

import rundiff
from rundiff.errors import RundiffError

ROWS = 400
GUARD = ROWS // 10
"""Below this many, deletions pass the default guard."""


def lines(count: int) -> str:
    return "id,name\n" + "".join(f"{number},name {number}\n" for number in range(count))


def deleted(source: Any, home: Path, **options: Any) -> int:
    """Run once; how many records went. A run that fails, deletes nothing."""
    try:
        found = list(rundiff.changes(source, primary_key="id", name="s", home=home, **options))
    except RundiffError:
        return 0
    return sum(record.destination_action == "delete" for record in found)


@pytest.mark.parametrize("misses", [1, 2])
@pytest.mark.parametrize("tenth", range(11))
def test_a_file_that_is_cut_at_every_tenth(tmp_path: Path, tenth: int, misses: int) -> None:
    path = tmp_path / "people.csv"
    whole = lines(ROWS).encode()
    path.write_bytes(whole)
    options = {"delete_after_misses": misses}
    assert deleted(str(path), tmp_path, **options) == 0
    # At the byte, in the middle of a line or not; and at the line's end, which nothing tells from a whole file.
    cut = whole[: len(whole) * tenth // 10]
    at_line = cut[: cut.rfind(b"\n") + 1]
    for content in (cut, at_line):
        path.write_bytes(content)
        gone = deleted(str(path), tmp_path, **options)
        assert gone <= GUARD
        assert gone == 0 or misses == 1
        path.write_bytes(whole)
        assert deleted(str(path), tmp_path, **options) == 0


def test_a_first_run_says_that_another_count_was_expected(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text(lines(3))
    options: dict[str, Any] = {"primary_key": "id", "home": tmp_path}
    short = rundiff.sync(
        str(path), destination=str(tmp_path / "a.jsonl"), expected_rows=5, name="a", **options
    )
    assert short.warnings == ("the reading was not complete: 3 records were read, but 5 were expected",)
    assert not short.complete
    whole = rundiff.sync(
        str(path), destination=str(tmp_path / "b.jsonl"), expected_rows=3, name="b", **options
    )
    assert (whole.warnings, whole.complete) == ((), True)


class Answering(BaseHTTPRequestHandler):
    """Gives pages of 100: what the test put into the server's `table`, changed by its `between`."""

    def do_GET(self) -> None:
        server: Any = self.server
        page = int(parse_qs(urlsplit(self.path).query)["page"][0])
        server.between(page)
        size = 100
        body = json.dumps(server.table[page * size : (page + 1) * size]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def serving(table: Sequence[dict[str, Any]]) -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.table = list(table)
    server.between = lambda _: None
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def pages(server: Any) -> Iterator[dict[str, Any]]:
    """Read page after page until one is empty, as any client of such an API does."""
    page = 0
    while True:
        with urlopen(f"http://127.0.0.1:{server.server_port}/?page={page}", timeout=10) as answer:
            records = json.load(answer)
        if not records:
            return
        yield from records
        page += 1


TABLE = [{"id": number, "name": f"name {number}"} for number in range(ROWS)]


@pytest.mark.parametrize("misses", [1, 2])
def test_an_api_that_answers_200_with_an_empty_list(tmp_path: Path, misses: int) -> None:
    options = {"delete_after_misses": misses}
    with serving(TABLE) as server:
        assert deleted(pages(server), tmp_path, **options) == 0
        server.table = []
        # However often it happens: each time it is a held set, or nothing at all, and no miss.
        for _ in range(3):
            assert deleted(pages(server), tmp_path, **options) == 0
        server.table = TABLE
        assert deleted(pages(server), tmp_path, **options) == 0


@pytest.mark.parametrize("empty", range(1, 4))
@pytest.mark.parametrize("misses", [1, 2])
def test_an_empty_page_ends_the_reading_early(tmp_path: Path, empty: int, misses: int) -> None:
    options = {"delete_after_misses": misses}
    with serving(TABLE) as server:
        assert deleted(pages(server), tmp_path, **options) == 0

        def between(page: int) -> None:
            server.table = [] if page >= empty else TABLE

        server.between = between
        # A quarter of the records or more: above the guard.
        assert deleted(pages(server), tmp_path, **options) == 0
        server.between, server.table = (lambda _: None), TABLE
        assert deleted(pages(server), tmp_path, **options) == 0


def test_rows_that_move_between_pages(tmp_path: Path) -> None:
    """The first row goes while page 1 follows page 0: row 100 moves to page 0 and is never read."""

    def first_row_goes(server: Any) -> Any:
        def between(page: int) -> None:
            if page == 1:
                server.table = server.table[1:]

        return between

    for misses, wrong in ((1, {100}), (2, set())):
        home = tmp_path / str(misses)
        with serving(TABLE) as server:
            assert deleted(pages(server), home, delete_after_misses=misses) == 0
            server.between = first_row_goes(server)
            found = list(
                rundiff.changes(
                    pages(server), primary_key="id", name="s", home=home, delete_after_misses=misses
                )
            )
            # One run can't tell: a wrong delete, far below the guard. Two runs in a row can.
            assert {record.primary_key["id"] for record in found} == wrong
            # The next reading finds it where it is, and forgives it; the row that is gone has its first miss.
            server.between = lambda _: None
            later = list(
                rundiff.changes(
                    pages(server), primary_key="id", name="s", home=home, delete_after_misses=misses
                )
            )
            actions = {(str(r.destination_action), r.primary_key["id"]) for r in later}
            assert actions == ({("create", 100), ("delete", 0)} if misses == 1 else set())
            for _ in range(misses - 1):
                last = list(
                    rundiff.changes(
                        pages(server), primary_key="id", name="s", home=home, delete_after_misses=misses
                    )
                )
                assert [(str(r.destination_action), r.primary_key["id"]) for r in last] == [("delete", 0)]


def test_a_stated_count_and_a_sentinel_prove_what_a_guard_can_only_guess(tmp_path: Path) -> None:
    proofs: list[dict[str, Any]] = [{"expected_rows": ROWS}, {"sentinel": {"id": ROWS - 1}}]
    for number, options in enumerate(proofs):
        home = tmp_path / str(number)
        assert deleted(TABLE, home, **options) == 0
        # One record less is no matter for the guard, and passes without the proof.
        assert deleted(TABLE[:-1], home, **options) == 0
        assert deleted(TABLE[:-1], home) == 1
