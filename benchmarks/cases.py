"""What is measured: a shape of records, how many of them, and how much of them changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["ALL_AND_AS_MANY_NEW", "RATES", "SHAPES", "SIZES", "Counts", "Phase", "Snapshot"]

Phase = Literal["first", "second", "limit"]
"""The run that delivers everything, the run that finds what changed, and what hardware would allow."""

SHAPES = ("narrow", "middle", "wide", "text")
SIZES = {"1k": 1_000, "100k": 100_000, "1m": 1_000_000, "5m": 5_000_000, "50m": 50_000_000}
ALL_AND_AS_MANY_NEW = 200
RATES = (0, 1, 10, 100, ALL_AND_AS_MANY_NEW)
"""Per cent. At a rate r, r per cent of the rows are updated, r/2 new and r/2 deleted; at 200 every row is
updated, as many are new, and none is deleted."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many rows changed from one snapshot to the next."""

    created: int
    updated: int
    deleted: int

    @property
    def total(self) -> int:
        """All changed rows."""
        return self.created + self.updated + self.deleted


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Two extracts of one table as Parquet files, and the true difference between them."""

    shape: str
    rows: int
    """Rows of the old extract."""
    rate: int
    old: str
    new: str
    new_rows: int
    truth: Counts

    @property
    def title(self) -> str:
        """For people: `middle, 1,000,000 rows, 1 % changed`."""
        return f"{self.shape}, {self.rows:,} rows, {self.rate} % changed"
