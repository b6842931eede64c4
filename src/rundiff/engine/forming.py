"""From the settings of a comparison to the form in which records are signed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from msgspec.structs import replace

from rundiff.errors import ConfigurationError
from rundiff.functions import imported_function
from rundiff.settings import SyncSettings
from rundiff.signing.normalising import Function, parse_chain
from rundiff.signing.paths import is_path, roots
from rundiff.signing.preparing import Preparation
from rundiff.signing.rule import Form

__all__ = ["form_words", "preparation_of", "preparation_of_form"]


def preparation_of(settings: SyncSettings) -> Preparation:
    """Read the normalisers and paths of a sync's settings.

    Raises `ConfigurationError` where a normaliser means nothing, names a function that can't be imported, or is
    one of a key field or of a glob.
    """
    comparison, owner = settings.comparison, f"sync {settings.name}: "
    chains = {}
    for name, given in comparison.normalize.items():
        if name in settings.primary_key:
            raise ConfigurationError(
                f"{owner}normalize names {name}, a field of the primary key, which is taken as the source gives it. "
                "Bring it to one form in the source, or choose another key"
            )
        if "*" in name:
            raise ConfigurationError(
                f"{owner}normalize names {name}, but globs count in exclude and include only. Give each field or path "
                "by its full name"
            )
        label = f"{owner}normalize of {name}"
        chains[name] = parse_chain(given, label, partial(imported_function, named_by=label))
    include = comparison.include if any(map(is_path, comparison.include)) else ()
    form = Form(
        exclude=tuple(filter(is_path, comparison.exclude)),
        include=include,
        normalize={name: "|".join(step.text for step in chain) for name, chain in chains.items()},
    )
    return Preparation(form, chains, settings.primary_key, owner)


def preparation_of_form(form: Form, asked: Preparation) -> Preparation:
    """Ready the form that a baseline was signed in, from its words, beside the one that is asked for now.

    A Python function is the one of that name that is asked for, the same field's first; else it is imported. Raises
    `ConfigurationError` where it can't be.
    """
    if form == asked.form:
        return asked
    functions = {
        step.text: step.call
        for chain in asked.chains.values()
        for step in chain
        if isinstance(step, Function)
    }
    chains = {}
    for name, words in form.normalize.items():
        own = {step.text: step.call for step in asked.chains.get(name, ()) if isinstance(step, Function)}
        label = f"{asked.owner}normalize of {name}, as the baseline was signed,"
        chains[name] = parse_chain(words, label, partial(_known, {**functions, **own}, label=label))
    return replace(asked, form=form, chains=chains)


def form_words(form: Form, name: str, names: Sequence[str]) -> tuple[str, ...]:
    """Say how a field, one of `names`, is compared otherwise than as it is."""

    def inside(paths: Iterable[str], *, glob: bool) -> list[str]:
        found = {path: dict(roots(path, names, glob=glob)) for path in paths}
        return [path for path, rests in found.items() if rests.get(name)]

    own = form.normalize.get(name)
    include = (
        [] if any((name, ()) in roots(path, names, glob=True) for path in form.include) else form.include
    )
    return (
        *([] if own is None else [own]),
        *(f"{path}: {form.normalize[path]}" for path in inside(form.normalize, glob=False)),
        *(f"without {path}" for path in inside(form.exclude, glob=True)),
        *(f"only {path}" for path in inside(include, glob=True)),
    )


def _known(known: Mapping[str, Callable[[Any], Any]], reference: str, label: str) -> Callable[[Any], Any]:
    if reference in known:
        return known[reference]
    try:
        return imported_function(reference, label)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{error} Put it back until one full run has gone over to another normaliser, or start the sync anew "
            "with `rundiff reset`"
        ) from error
