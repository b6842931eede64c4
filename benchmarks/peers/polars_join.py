"""polars: lazy queries over both extracts on its streaming engine, which keep no state between runs.

Variants: `anti` finds new and deleted rows by anti-joins and changed ones by a join on the key; `full`
compares the rows of one full join. An anti-join on all columns was tried too: it was three times slower.
"""

from __future__ import annotations

import time

import polars as pl

from benchmarks.peers.outcome import Outcome, job, state


def main() -> None:
    """Join, count, and state the counts."""
    given = job()
    started = time.perf_counter()
    old, new = pl.scan_parquet(given.old), pl.scan_parquet(given.new)
    created, updated, deleted = (_full if given.variant == "full" else _anti)(old, new)
    state(Outcome(seconds=time.perf_counter() - started, created=created, updated=updated, deleted=deleted))


def _anti(old: pl.LazyFrame, new: pl.LazyFrame) -> tuple[int, int, int]:
    queries = [
        new.join(old.select("id"), on="id", how="anti"),
        new.join(old, on="id", how="inner", suffix="_old").filter(_differs(old)),
        old.join(new.select("id"), on="id", how="anti"),
    ]
    counted = pl.collect_all([query.select(pl.len()) for query in queries], engine="streaming")
    created, updated, deleted = (frame.item() for frame in counted)
    return created, updated, deleted


def _full(old: pl.LazyFrame, new: pl.LazyFrame) -> tuple[int, int, int]:
    marked = new.with_columns(is_new=pl.lit(value=True))
    joined = marked.join(old.with_columns(is_old=pl.lit(value=True)), on="id", how="full", suffix="_old")
    is_new, is_old = pl.col("is_new").is_not_null(), pl.col("is_old").is_not_null()
    counted = joined.select(
        created=(~is_old).sum(),
        updated=(is_new & is_old & _differs(old)).sum(),
        deleted=(~is_new).sum(),
    ).collect(engine="streaming")
    created, updated, deleted = counted.row(0)
    return created, updated, deleted


def _differs(old: pl.LazyFrame) -> pl.Expr:
    names = [name for name in old.collect_schema().names() if name != "id"]
    return pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}_old")) for name in names)


if __name__ == "__main__":
    main()
