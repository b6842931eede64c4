"""What became of the fields and of the comparison since the last run, and what the policies say of it."""

from __future__ import annotations

import pyarrow as pa

from rundiff.baseline.manifest import Manifest
from rundiff.engine.reading import Read, compared_fields
from rundiff.errors import PolicyViolation
from rundiff.settings import SyncSettings
from rundiff.signing import SigningKey
from rundiff.signing.preparing import Preparation
from rundiff.signing.rule import Rule
from rundiff.sources.pins import arrow_type_of

__all__ = ["settle_rule"]


def settle_rule(
    read: Read,
    manifest: Manifest | None,
    settings: SyncSettings,
    under: tuple[Preparation, SigningKey | None],
    warnings: list[str],
) -> Rule:
    """Say by which rule the baseline is signed from now on; `under` is how it was read.

    Adds to the warnings what differs from the rule of the baseline so far, which `manifest` names. Raises
    `PolicyViolation` where a policy says so.
    """
    preparation, key = under
    form = preparation.form
    fields = _settled_fields(read, manifest, settings, warnings)
    rule = Rule(fields=fields, form=form, signing_key_id=None if key is None else key.id)
    if read.valid and form:
        pins = {**(manifest.pins if manifest is not None else {}), **read.pins}
        types = {name: arrow_type_of(pins[name]) if name in pins else pa.null() for name in read.fields}
        if astray := preparation.astray(types):
            warnings.append(
                f"the source has nothing at {', '.join(astray)}, which normalize, exclude or include names"
            )
    if manifest is not None and manifest.form != form:
        words = [word for word in rule.differs(manifest.rule) if not word.startswith("the compared fields")]
        if words:
            warnings.append(
                f"the comparison has other settings than at run {manifest.run}: {', '.join(words)}; records whose "
                "signature differs by that count as updates"
            )
    return rule


def _settled_fields(
    read: Read, manifest: Manifest | None, settings: SyncSettings, warnings: list[str]
) -> tuple[str, ...]:
    """Apply the policies on new and dropped fields; give the compared fields to store."""
    now = compared_fields(list(read.fields), settings.comparison, settings.primary_key)
    if manifest is None:
        return tuple(now)
    if not read.fields or read.valid == 0:
        return manifest.fields
    wanted = set(compared_fields(manifest.fields, settings.comparison, settings.primary_key))
    dropped = [
        name
        for name in manifest.fields
        if name not in read.fields and name in wanted and name in manifest.pins
    ]
    new = [name for name in now if name in read.pins and name not in manifest.pins]
    if dropped and settings.policies.on_dropped_field == "fail":
        raise PolicyViolation(
            f"sync {settings.name}: the source no longer has the field{'s' * (len(dropped) > 1)} "
            f"{', '.join(dropped)}. Nothing was written. Mend the source, or run with --on-dropped-field "
            "update to write all records without it"
        )
    if new and settings.policies.on_new_field == "fail":
        raise PolicyViolation(
            f"sync {settings.name}: the source has the new field{'s' * (len(new) > 1)} {', '.join(new)}, and "
            "on_new_field is fail. Nothing was written. Run with --on-new-field update to take it over"
        )
    if new:
        warnings.append(f"new field{'s' * (len(new) > 1)}: {', '.join(new)}")
    if dropped:
        warnings.append(f"dropped field{'s' * (len(dropped) > 1)}: {', '.join(dropped)}")
    return tuple(
        [name for name in manifest.fields if name in wanted and name not in dropped]
        + [name for name in now if name not in manifest.fields]
    )
