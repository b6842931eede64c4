"""What became of the fields and of the comparison since the last run, and what the policies say of it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pyarrow as pa
from msgspec.structs import replace

from rundiff.baseline.manifest import Manifest
from rundiff.engine.former import Former, key_with_id
from rundiff.engine.forming import preparation_of_form
from rundiff.engine.reading import Read
from rundiff.engine.renaming import Renamed, applied
from rundiff.engine.rules import ReadingRules
from rundiff.engine.session import Backends
from rundiff.errors import ConfigurationError, PolicyViolation
from rundiff.model import Scope
from rundiff.settings import SyncSettings
from rundiff.signing.paths import ITEMS, roots
from rundiff.signing.rule import Rule
from rundiff.sources.pins import arrow_type_of, canonical_pin

__all__ = ["Settled", "refuse_two_rules", "rules_of_run", "settle_rule"]


def rules_of_run(
    rules: ReadingRules, settings: SyncSettings, manifest: Manifest | None, backends: Backends, scope: Scope
) -> ReadingRules:
    """Say how a run signs: as asked, under two rules, or on under that of the baseline.

    A full run goes over to the rule asked for, and signs each record under both. Others read too little to say
    anything of most entries, so they go on under the former rule.
    """
    if manifest is None or not manifest.live:
        return rules
    known = frozenset(manifest.pins)
    before = manifest.excluded & known
    asked = frozenset(manifest.pins) - set(rules.asked(list(manifest.pins)))
    now = Rule(
        fields=(),
        form=rules.preparation.form,
        signing_key_id=None if rules.signing_key is None else rules.signing_key.id,
    )
    then = Rule(fields=(), form=manifest.form, signing_key_id=manifest.signing_key_id)
    fields = sorted(before ^ asked)
    differences = [f"the compared fields ({', '.join(fields)})"] if fields else []
    differences += now.differs(then)
    accepted = manifest.accepted if scope is Scope.FULL else {}
    retyped = {
        **asked_retypes(settings, manifest, rules),
        **{name: pin for name, pin in accepted.items() if pin is not None},
    }
    adopt = settings.policies.on_new_field == "adopt"
    if manifest.renamed and scope is not Scope.FULL:
        old, new = next(iter(manifest.renamed.items()))
        raise PolicyViolation(
            f"sync {settings.name}: {new} was accepted as another name of {old}, and only a full run can go over to "
            "it. Nothing was read. Make one full run first"
        )
    renamed = {
        new: Renamed(old, None if new in accepted else manifest.pins[old])
        for old, new in manifest.renamed.items()
    }
    if not differences and not retyped and not renamed and not adopt:
        return rules
    blind = False
    try:
        preparation = preparation_of_form(manifest.form, rules.preparation)
    except ConfigurationError:
        if scope is not Scope.FULL:
            # It would go on under the former rule.
            raise
        preparation, blind = rules.preparation, True
    former = Former(
        primary_key=settings.primary_key,
        known=known,
        left_out=before,
        preparation=preparation,
        blind=blind,
        key=key_with_id(backends, manifest.signing_key_id),
        retyped=retyped,
        renamed=renamed,
        adopt=adopt,
        whole=bool(differences or retyped or renamed),
        differences=tuple(differences),
        twice=scope is Scope.FULL,
    )
    if former.twice:
        return replace(rules, former=former)
    return msgspec.structs.replace(
        rules, former=former, preparation=former.preparation, signing_key=former.key
    )


def refuse_two_rules(settings: SyncSettings, rules: ReadingRules) -> None:
    """Refuse a run of several workers that would have to sign under two rules."""
    former = rules.former
    if former is None:
        return
    why = (
        f"it asks for another rule than its baseline was signed by ({', '.join(differences)})"
        if (differences := former.named(former.retyped))
        else "on_new_field is adopt"
    )
    raise ConfigurationError(
        f"sync {settings.name}: {why}, and a run of several workers can't sign under two rules. Nothing was read. "
        "Make one run in a single process with rundiff.sync first, or leave the option as it was"
    )


def asked_retypes(settings: SyncSettings, manifest: Manifest, rules: ReadingRules) -> dict[str, str]:
    """Give the compared fields that `types` gives another type than they are pinned to, with that pin.

    Raises `PolicyViolation` where the policy says so, and for fields of the key; not for types that were accepted.
    """
    types = settings.reading.types
    pinned = {name: pin for name, pin in manifest.pins.items() if name in types}
    other = {
        name: pinned[name] for name in rules.asked(list(pinned)) if canonical_pin(types[name]) != pinned[name]
    }
    refused = [name for name in other if name not in manifest.accepted]
    if not refused:
        return other
    name, sync = refused[0], settings.name
    words = f"sync {sync}: types gives {name} as {types[name]}, but it is pinned to {pinned[name]}. Nothing was read. "
    if name in settings.primary_key:
        raise _violation(
            [name],
            f"{words}It is a field of the primary key, by which the records are known, and can't change: leave the "
            f"type as it was, use another --name, or `rundiff reset {sync}` to start the sync anew",
        )
    if settings.policies.on_retyped_field == "fail":
        raise _violation(
            refused,
            f"{words}Leave the type as it was; or `rundiff schema accept {sync} {' '.join(refused)}`, or "
            "--on-retyped-field update, to go over to it: then only records that changed are written",
        )
    return other


def _refuse_misfits(read: Read, manifest: Manifest, settings: SyncSettings, former: Former) -> None:
    """Refuse to go over to a type that `types` names and that values do not fit: it was a mistake."""
    for name in former.retyped:
        if name in read.misfits and name in settings.reading.types and name not in manifest.accepted:
            raise _violation(
                [name],
                f"sync {settings.name}: types gives {name} as {settings.reading.types[name]} in place of "
                f"{former.retyped[name]}, but not all of its values are of that type: {read.samples['unreadable'][0]}. "
                "Nothing was written. Give it a type that fits, or leave it as it was",
            )


class Settled(msgspec.Struct, frozen=True):
    """How the baseline is signed from a run on."""

    rule: Rule
    left_out: tuple[str, ...]
    """Fields that are known and not compared."""
    waiting: frozenset[str]
    """New fields that a full run is still to judge; they get no pin, so that they stay new until then."""
    retyped: frozenset[str] = frozenset()
    """Fields that have other types from now on."""
    renamed: dict[str, str] = msgspec.field(default_factory=dict)
    """Fields that have other names from now on, by the former ones."""


def settle_rule(
    read: Read, manifest: Manifest | None, settings: SyncSettings, rules: ReadingRules, warnings: list[str]
) -> Settled:
    """Say by which rule the baseline is signed from now on; `rules` are those that it was read under.

    Adds to the warnings what differs from the rule of the baseline so far, which `manifest` names. Raises
    `PolicyViolation` where a policy says so.
    """
    key, form, former = rules.signing_key, rules.preparation.form, rules.former
    if former is not None and former.twice and manifest is not None:
        _refuse_misfits(read, manifest, settings, former)
    over = renamed_by(read, former)
    if manifest is not None:
        _refuse_both(read, manifest, settings)
    fields = _settled_fields(read, manifest, settings, rules, warnings)
    rule = Rule(fields=fields, form=form, signing_key_id=None if key is None else key.id)
    pins = {**(manifest.pins if manifest is not None else {}), **read.pins}
    if read.valid and form:
        types = {name: arrow_type_of(pins[name]) if name in pins else pa.null() for name in read.fields}
        astray = rules.preparation.astray(types)
        _refuse_globs(settings, list(types), astray)
        if astray:
            warnings.append(
                f"the source has nothing at {', '.join(astray)}, which normalize, exclude or include names"
            )
    before = [] if manifest is None else [name for name in manifest.pins if name not in over]
    known = dict.fromkeys([*before, *read.fields])
    compared = set(rules.compared(list(known)))
    if manifest is not None and former is not None and (differences := former.named(read.fields)):
        words = ", ".join(differences)
        warnings.append(
            f"{words}: other than at run {manifest.run}; records were signed under both rules, so that only those "
            "that changed are written"
            if former.twice
            else f"{words}: other than at run {manifest.run}; this run did not read everything and goes on under "
            "the former rule, until a full run goes over to the one asked for"
        )
    waiting: frozenset[str] = frozenset()
    if manifest is not None and former is not None and former.adopt and not former.twice:
        waiting = frozenset(_new(read, manifest, rules))
    retyped = frozenset(former.retyped) if former is not None and former.twice else frozenset()
    return Settled(rule, tuple(name for name in known if name not in compared), waiting, retyped, over)


def renamed_by(read: Read, former: Former | None) -> dict[str, str]:
    """Give the fields that a reading found under other names, by the former ones."""
    return {} if former is None or not former.twice else applied(former.renamed, read.fields)


def _refuse_both(read: Read, manifest: Manifest, settings: SyncSettings) -> None:
    for old, new in manifest.renamed.items():
        if old in read.fields and new in read.fields:
            raise _violation(
                [new],
                f"sync {settings.name}: the source has both {old} and {new}, which was accepted as another name of "
                f"{old}. Nothing was written. Leave one of them out of the source; or `rundiff schema accept "
                f"{settings.name} {new}`, which takes it for a new field",
            )


def _refuse_globs(settings: SyncSettings, names: Sequence[str], astray: Sequence[str]) -> None:
    """Refuse what looks like a glob among the normalisers; a field may have such a name."""
    for name in settings.comparison.normalize:
        looks_so = set("?[") & set(name.replace(ITEMS, ""))
        if looks_so and (name in astray or not roots(name, names, glob=False)):
            raise ConfigurationError(
                f"sync {settings.name}: normalize names {name}, which is no field of the source, and globs count in "
                "exclude and include only. Nothing was written. Give each field or path by its full name"
            )


def _new(read: Read, manifest: Manifest, rules: ReadingRules) -> list[str]:
    """Give the fields to compare that have values now and had none in any run before."""
    return [
        name for name in rules.asked(list(read.fields)) if name in read.pins and name not in manifest.pins
    ]


def _settled_fields(
    read: Read,
    manifest: Manifest | None,
    settings: SyncSettings,
    rules: ReadingRules,
    warnings: list[str],
) -> tuple[str, ...]:
    """Apply the policies on new and dropped fields; give the compared fields to store."""
    now = rules.compared(list(read.fields))
    if manifest is None:
        return tuple(now)
    if not read.fields or read.valid == 0:
        return manifest.fields
    over = renamed_by(read, rules.former)
    wanted = set(rules.compared([name for name in manifest.fields if name not in over]))
    dropped = [
        name
        for name in manifest.fields
        if name not in read.fields and name in wanted and name in manifest.pins
    ]
    new = [name for name in _new(read, manifest, rules) if name not in over.values()]
    policies, accepted = settings.policies, manifest.accepted
    if policies.on_dropped_field == "fail" and (gone := [name for name in dropped if name not in accepted]):
        raise _violation(
            gone,
            f"sync {settings.name}: the source no longer has the field{'s' * (len(gone) > 1)} "
            f"{', '.join(gone)}. Nothing was written. Mend the source, or run with --on-dropped-field "
            "update to write all records without it; a table's column stays, and its values become null. If it has "
            f"another name now, `rundiff schema accept {settings.name} --renamed {gone[0]}=NAME`",
        )
    if policies.on_new_field == "fail" and (come := [name for name in new if name not in accepted]):
        raise _violation(
            come,
            f"sync {settings.name}: the source has the new field{'s' * (len(come) > 1)} {', '.join(come)}, and "
            "on_new_field is fail. Nothing was written. Run with --on-new-field update to take it over",
        )
    if new:
        warnings.append(_new_words(new, rules))
    if dropped:
        warnings.append(f"dropped field{'s' * (len(dropped) > 1)}: {', '.join(dropped)}")
    return tuple(
        [name for name in manifest.fields if name in wanted and name not in dropped]
        + [name for name in now if name not in manifest.fields]
    )


def _violation(fields: Sequence[str], sentence: str) -> PolicyViolation:
    error = PolicyViolation(sentence)
    error.fields = tuple(fields)
    return error


def _new_words(new: Sequence[str], rules: ReadingRules) -> str:
    words = f"new field{'s' * (len(new) > 1)}: {', '.join(new)}"
    former = rules.former
    if former is None or not former.adopt:
        return words
    if not former.twice:
        return f"{words}; not compared until a full run adopts {'them' if len(new) > 1 else 'it'}"
    return (
        f"{words}; adopted: records that did not change otherwise are not written, and don't get the values"
    )
