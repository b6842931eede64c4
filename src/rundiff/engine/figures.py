"""What guards look at: the figures of a run."""

from __future__ import annotations

import numpy as np

from rundiff.compare.guards import Figures, median
from rundiff.engine.comparing import Comparing, Found
from rundiff.engine.judging import Course
from rundiff.engine.partfigures import parts_of
from rundiff.engine.reading import Read
from rundiff.model import Scope

__all__ = ["figures_of"]


def figures_of(course: Course, work: Comparing, read: Read, found: Found) -> Figures:
    """Count what guards look at, once the change set is written."""
    baseline, covered = work.baseline, work.covered
    live = None if covered is None else baseline.live_mask()
    marked = sum(len(part) for part in found.marked)
    return Figures(
        baseline=baseline.live if covered is None or live is None else int(np.count_nonzero(live & covered)),
        read=read.valid,
        creates=found.created,
        updates=found.updated,
        # Those that are repeated were judged when they were found.
        deletes=found.deleted - found.repeated,
        absent=found.deleted - found.repeated - marked,
        usual=median(course.memory.recent) if course.reach.scope is Scope.FULL else None,
        parts=parts_of(course, work, read, found),
    )
