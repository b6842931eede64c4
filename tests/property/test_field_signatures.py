"""Random histories with field signatures, against a dict: `changed_fields` names exactly what differs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rundiff
from tests.property.test_machines import EFFORT

Row = dict[str, Any]
Changes = dict[int, tuple[str, frozenset[str] | None]]

values = {
    "v": st.sampled_from([None, 0, 1, 2.5]),
    "t": st.sampled_from([None, "", "A", "a", "b"]),
    "d": st.sampled_from([None, {"x": 1}, {"x": 1, "y": None}, {"x": 2}, [], [None]]),
}
rows_of_a_run = st.lists(
    st.fixed_dictionaries(
        {"id": st.integers(0, 5)}, optional={**values, "late": st.sampled_from([None, "x", "y"])}
    ),
    max_size=6,
    unique_by=lambda row: row["id"],
)


def form(value: Any) -> Any:
    """Give a value as it is signed: members that are null are missing."""
    if isinstance(value, dict):
        return {name: member for name, member in value.items() if member is not None}
    return value


def run(folder: Path, rows: list[Row], **options: Any) -> Changes:
    """Make a run of which the caller delivers; gives what it wrote."""
    written: Changes = {}
    with rundiff.changes(
        rows,
        primary_key="id",
        name="s",
        home=folder,
        max_delete_percent=100,
        on_dropped_field="update",
        allow_empty=True,
        field_signatures=True,
        **options,
    ) as changes:
        for change in changes:
            fields = change.changed_fields
            written[change.primary_key["id"]] = (
                str(change.destination_action),
                None if fields is None else frozenset(fields),
            )
    return written


@settings(max_examples=max(1, 15 * EFFORT // 60), deadline=None, suppress_health_check=list(HealthCheck))
@given(history=st.lists(rows_of_a_run, min_size=2, max_size=6))
def test_nothing_of_the_write_log_is_needed(history: list[list[Row]]) -> None:
    """The files of each run's log are removed: what changed is known all the same."""
    with tempfile.TemporaryDirectory() as folder:
        held: dict[int, Row] = {}
        for rows in history:
            wanted: Changes = {}
            now = {row["id"]: row for row in rows}
            for key in held.keys() | now.keys():
                before, after = held.get(key), now.get(key)
                if before is None or after is None:
                    wanted[key] = ("create" if before is None else "delete", None)
                elif different := differing(before, after):
                    wanted[key] = ("update", different)
            assert run(Path(folder), rows) == wanted
            held = now
            for log in Path(folder).glob("syncs/*/log/*"):
                shutil.rmtree(log)


def differing(before: Row, after: Row) -> frozenset[str]:
    return frozenset(n for n in before.keys() | after.keys() if form(before.get(n)) != form(after.get(n)))


@dataclass(frozen=True)
class Rule:
    """How a run compares."""

    exclude: frozenset[str] = frozenset()
    fold: bool = False
    key: str | None = None

    def value(self, row: Row, name: str) -> Any:
        value = form(row.get(name))
        return value.casefold() if self.fold and isinstance(value, str) and name == "t" else value

    def view(self, row: Row) -> Mapping[str, Any]:
        names = [name for name in row if name not in self.exclude and row[name] is not None]
        return {name: self.value(row, name) for name in names}


rules = st.builds(
    Rule,
    exclude=st.sampled_from([frozenset(), frozenset({"v"}), frozenset({"d"})]),
    fold=st.booleans(),
    key=st.sampled_from([None, "the first of two signing keys", "the second of two signing keys"]),
)


class Model:
    """What the destination holds, and for which record each entry stands."""

    def __init__(self) -> None:
        self.rule = Rule()
        self.known: set[str] = set()
        """The fields that had a value so far."""
        self.held: dict[int, Row] = {}
        self.told: dict[int, Row] = {}

    def run(self, rows: list[Row], rule: Rule) -> Changes:
        return dict(self._run(rows, rule))

    def _run(self, rows: list[Row], rule: Rule) -> Iterator[tuple[int, tuple[str, frozenset[str] | None]]]:
        former, self.rule = self.rule if self.held else rule, rule
        # A field that was left out before it had a value is a new one.
        former = replace(former, exclude=former.exclude & self.known)
        self.known.update(name for row in rows for name, value in row.items() if value is not None)
        now = {row["id"]: row for row in rows}
        for key in self.held.keys() - now.keys():
            yield key, ("delete", None)
            del self.held[key], self.told[key]
        for key, row in now.items():
            if key not in self.held:
                self.held[key] = self.told[key] = row
                yield key, ("create", None)
                continue
            if former.view(row) == former.view(self.told[key]):
                self.told[key] = row if former != rule else self.told[key]
                continue
            if former != rule:
                self.told[key] = self.held[key]
            before = self.told[key]
            if rule.view(row) == rule.view(before):
                continue
            names = (before.keys() | row.keys()) - rule.exclude
            yield key, ("update", frozenset(n for n in names if rule.value(before, n) != rule.value(row, n)))
            self.held[key] = self.told[key] = row


@settings(max_examples=max(1, 15 * EFFORT // 60), deadline=None, suppress_health_check=list(HealthCheck))
@given(history=st.lists(st.tuples(rows_of_a_run, rules), min_size=2, max_size=6))
def test_what_changed_is_exact_when_rules_change(history: list[tuple[list[Row], Rule]]) -> None:
    """Other fields, another form, another signing key: entries have signatures by the rule of now."""
    with tempfile.TemporaryDirectory() as folder:
        model = Model()
        for rows, rule in history:
            environ = {} if rule.key is None else {"RUNDIFF_SIGNING_KEY": rule.key}
            if rule.key != model.rule.key:
                environ["RUNDIFF_SIGNING_KEY_FORMER"] = model.rule.key or ""
            with patch.dict(os.environ, environ):
                found = run(
                    Path(folder),
                    rows,
                    exclude=sorted(rule.exclude),
                    normalize={"t": "casefold"} if rule.fold else {},
                )
            # In the run that leaves a field out, it may still be named.
            found = {key: (what, fields and fields - rule.exclude) for key, (what, fields) in found.items()}
            assert found == model.run(rows, rule)
