"""Whatever is done to a table behind Rundiff's back, `verify` names exactly those keys, and a repair mends them."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import rundiff

VALUES = st.one_of(
    st.none(), st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=5)
)
NUMBERS = st.one_of(st.none(), st.floats(allow_nan=False))
KEYS = st.integers(0, 12)
ROWS = st.dictionaries(KEYS, st.tuples(VALUES, NUMBERS), min_size=1)
"""By key: a text and a number."""
TAMPERING = st.dictionaries(st.integers(0, 15), st.one_of(st.none(), st.tuples(VALUES, NUMBERS)))
"""By key: what stands there from now on; None: nothing."""
MODES = st.sampled_from(["mirror", "soft_delete"])


def records(rows: dict[int, tuple[Any, Any]]) -> list[dict[str, Any]]:
    return [{"id": key, "text": text, "number": number} for key, (text, number) in rows.items()]


def held(path: Path) -> dict[int, tuple[Any, Any]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {
            key: (text, number) for key, text, number in connection.execute("SELECT id, text, number FROM t")
        }


def tamper(path: Path, tampering: dict[int, tuple[Any, Any] | None]) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for key, values in tampering.items():
            connection.execute("DELETE FROM t WHERE id = ?", (key,))
            if values is not None:
                connection.execute("INSERT INTO t (id, text, number) VALUES (?, ?, ?)", (key, *values))
        connection.commit()


@settings(max_examples=8)
@given(ROWS, ROWS, TAMPERING, MODES)
def test_tampered_keys_are_named_and_mended(
    first: dict[int, tuple[Any, Any]],
    second: dict[int, tuple[Any, Any]],
    tampering: dict[int, tuple[Any, Any] | None],
    mode: str,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.db"
        # Columns that stand there already keep their types, even where a run has nulls alone.
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE t (id BIGINT PRIMARY KEY, text TEXT, number REAL)")

        def flow(rows: dict[int, tuple[Any, Any]]) -> rundiff.Sync:
            options: Any = {"home": Path(folder) / "home", "mode": mode, "allow_empty": True}
            return rundiff.Sync(
                records(rows), "id", name="t", destination=f"sqlite:///{path}", into="t",
                types={"text": "text", "number": "double"}, **options,
            )  # fmt: skip

        flow(first).run()
        flow(second).run()
        before = held(path)
        tamper(path, tampering)
        after = held(path)
        drifted = {k for k in second if k in after and after[k] != before[k]}
        missing = {k for k in second if k not in after}
        foreign = {k for k, values in tampering.items() if values is not None and k not in second}

        found = flow(second).verify(repair=True)
        named: dict[str, set[int]] = {"drifted": set(), "missing": set(), "foreign": set(), "repeated": set()}
        for one in found.sample:
            named[one.kind].add(one.primary_key["id"])
        assert named == {"drifted": drifted, "missing": missing, "foreign": foreign, "repeated": set()}
        assert found.agreed == len(second) - len(drifted) - len(missing)

        again = flow(second).verify()
        assert (again.differences, again.agreed, again.foreign) == (0, len(second), len(foreign))
        assert {k: v for k, v in held(path).items() if k in second} == second
        assert flow(second).run().counts.written == 0
