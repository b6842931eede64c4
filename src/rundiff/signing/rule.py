"""What a data signature says of a record: the rule that a baseline was signed with.

A rule is kept with each baseline, in words, so that the next run can tell whether it signs alike. Nothing
here looks at values: `rundiff.signing.preparing` brings records to the form that a rule names.
"""

from __future__ import annotations

import json

import msgspec

from rundiff.signing.contract import FORMAT_VERSION

__all__ = ["Form", "Rule"]


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """What is done to the values of compared fields before they are signed; nothing, by default."""

    exclude: tuple[str, ...] = ()
    """Paths into nested data that are left out: `meta.fetched_at`, `items[].seen`."""
    include: tuple[str, ...] = ()
    """Paths and globs of what alone is taken; empty where no path is among them, or none was given."""
    normalize: dict[str, str] = {}
    """Normalisers in words by field or path, `trim|casefold`; a Python function as `module:name`."""

    def __bool__(self) -> bool:
        return bool(self.exclude or self.include or self.normalize)


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """How data signatures are made: over which fields, in which form, under which signing key."""

    fields: tuple[str, ...]
    """The compared fields, those of the primary key among them."""
    form: Form = Form()
    signing_key_id: str | None = None
    """As `SigningKey.id`; None: signed without a key."""
    signature_format: int = FORMAT_VERSION

    @property
    def identity(self) -> str:
        """The rule as one line of JSON: equal for two rules exactly when they sign all records alike.

        The order in which fields and paths are named does not matter. Two functions of one name count as one.
        """
        return json.dumps(
            {
                "format": self.signature_format,
                "key": self.signing_key_id,
                "fields": sorted(set(self.fields)),
                "exclude": sorted(set(self.form.exclude)),
                "include": sorted(set(self.form.include)),
                "normalize": self.form.normalize,
            },
            sort_keys=True,
            ensure_ascii=False,
        )

    def differs(self, other: Rule) -> list[str]:
        """Say in words what another rule has otherwise; empty where both sign alike."""
        mine, theirs = self.form, other.form
        words = []
        fields = sorted(set(self.fields) ^ set(other.fields))
        if fields:
            words.append(f"the compared fields ({', '.join(fields[:10])}{', …' * (len(fields) > 10)})")
        if (set(mine.exclude), set(mine.include)) != (set(theirs.exclude), set(theirs.include)):
            words.append("the included or excluded paths")
        names = [
            name
            for name in {**mine.normalize, **theirs.normalize}
            if mine.normalize.get(name) != theirs.normalize.get(name)
        ]
        if names:
            words.append(f"the normalisers of {', '.join(sorted(names))}")
        if self.signing_key_id != other.signing_key_id:
            words.append("the signing key")
        if self.signature_format != other.signature_format:
            words.append("the signature format")
        return words
