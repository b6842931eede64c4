"""The scoped model with rules: what is compared, in which form, and under which key may change between runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.property.model import Judged, ScopedModel, Step, content

__all__ = ["AskedRule", "RuledModel"]

View = frozenset[tuple[str, Any]]


@dataclass(frozen=True)
class AskedRule:
    """What a run asks for."""

    exclude: frozenset[str] = frozenset()
    fold: bool = False
    """Whether the case of `t` is ignored."""
    key: str | None = None

    def view(self, row: Mapping[str, Any]) -> View:
        """Give what is compared of a record."""
        seen = {name: value for name, value in row.items() if name not in self.exclude}
        if self.fold and seen.get("t") is not None:
            seen["t"] = seen["t"].casefold()
        return content(seen)


@dataclass
class RuledModel(ScopedModel):
    """Beside the records that the destination holds: what the baseline says of them, under which rule."""

    rule: AskedRule = AskedRule()
    asked: AskedRule = AskedRule()
    views: dict[Any, View] = field(default_factory=dict)
    held_views: tuple[AskedRule, dict[Any, View]] | None = None
    _renewed: dict[Any, View] | None = None

    def run(self, step: Step) -> Judged:
        if not self.records:
            self.rule = self.asked
        self._renewed = None
        if self.asked != self.rule and step.scope == "full":
            # Of each key: the last record that is the same under the former rule, else what was last written.
            self._renewed = {key: self.asked.view(row) for key, row in self.records.items()}
            for row in step.rows:
                if row["id"] in self.records and self.rule.view(row) == self.views[row["id"]]:
                    self._renewed[row["id"]] = self.asked.view(row)
        rule = self.rule if self._renewed is None else self.asked
        before = self.views if self._renewed is None else self._renewed
        outcome = super().run(step)
        if outcome.refused:
            return outcome
        written = {row["id"]: rule.view(row) for row in step.rows}
        views = {**before, **{key: written[key] for key in outcome.creates | outcome.updates}}
        if outcome.whole_run_held:
            self.held_views = (rule, views)
        else:
            self.held_views, self.rule = None, rule
            self.views = {key: views[key] for key in self.records}
        return outcome

    def same(self, key: Any, row: Mapping[str, Any]) -> bool:
        former = self.rule.view(row) == self.views[key]
        return former or (self._renewed is not None and self.asked.view(row) == self._renewed[key])

    def approve(self) -> set[Any]:
        if self.held_run is not None and self.held_views is not None:
            self.rule, self.views = self.held_views
        gone = super().approve()
        self.views = {key: self.views[key] for key in self.records}
        return gone
