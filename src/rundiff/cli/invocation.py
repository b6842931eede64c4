"""What all commands share: the common options, the project, the workspace, and where words go."""

from __future__ import annotations

import gc
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from rundiff.cli.values import printable
from rundiff.errors import ConfigurationError
from rundiff.project import Project, load_project, storage
from rundiff.settings import without_secrets

if TYPE_CHECKING:
    from rich.console import RenderableType

    from rundiff.engine.workspace import Workspace
    from rundiff.settings import Storage

__all__ = ["Invocation", "common_options"]

Command = TypeVar("Command", bound=Callable[..., Any])


PLUGINS = ("rundiff.destinations", "rundiff.sources")
"""The groups of entry points under which outsiders register."""


class Invocation:
    """One call of the command."""

    def __init__(self, *, debug: bool = False, whole_process: bool = False) -> None:
        self.debug = debug
        self.whole_process = whole_process
        self.home: str | None = None
        self.database: str | None = None
        self.signatures: str | None = None
        self.as_json = False
        self.quiet = False

    @cached_property
    def project(self) -> Project:
        """The project file of the current directory."""
        return load_project(None, os.environ)

    @property
    def storage(self) -> Storage:
        """Where the state is kept."""
        return storage(
            self.home, os.environ, self.project, database=self.database, signatures=self.signatures
        )

    def workspace(self) -> Workspace:
        """Open the home directory, database and signature store that flags, environment and project file name."""
        chosen = self.storage
        _leave_pandas_out()
        from rundiff.engine.workspace import Workspace

        if self.whole_process:
            # At its end the interpreter looks for cycles among all objects, a tenth of a second; most belong to
            # modules that are there by now. What DuckDB makes later must be found: its binding prints what isn't.
            gc.freeze()
        return Workspace(chosen)

    def existing_workspace(self) -> Workspace:
        """Open the home directory, but never make one: looking changes nothing."""
        self.require_home()
        return self.workspace()

    def require_home(self) -> None:
        """Refuse a home directory that isn't there, unless the syncs are kept in another database.

        Raises:
            ConfigurationError: nothing was ever synced there.
        """
        chosen = self.storage
        home = Path(chosen.home).expanduser()
        if chosen.database is None and not home.is_dir():
            raise ConfigurationError(
                f"Nothing was synced yet: there is no directory {home}; run `rundiff sync`, or check --home."
            )

    @property
    def home_flag(self) -> str:
        """What a command has to be given to work on the same state: nothing, or ` --home DIRECTORY` and its like.

        Passwords are left out; the person has to add them.
        """
        flags = f" --home {shlex.quote(self.home)}" if self.home else ""
        for flag, url in (("--database", self.database), ("--signatures", self.signatures)):
            flags += f" {flag} {shlex.quote(without_secrets(url))}" if url else ""
        return flags

    @property
    def home_directory(self) -> Path:
        """The home directory, which need not be there yet."""
        return Path(self.storage.home).expanduser()

    def masked(self, text: str) -> str:
        """Keep values of the environment and control characters out of a sentence."""
        # A project file that can't be read has given no values away either.
        project = self.__dict__.get("project")
        return printable(project.masked(text) if isinstance(project, Project) else text)

    def complain(self, sentence: str) -> None:
        """Say on standard error what went wrong."""
        if not sentence.endswith((".", "!", "?")):
            sentence += "."
        click.echo(f"rundiff: {self.masked(sentence)}", err=True)

    def tell(self, sentence: str) -> None:
        """Say on standard output what was done."""
        click.echo(self.masked(sentence))

    def unexpected(self, error: BaseException) -> str:
        """Describe an error that nobody foresaw, in one sentence."""
        what = " ".join(str(error).split())
        return (
            f"an error of Rundiff itself ({type(error).__name__}{': ' + what if what else ''}): "
            "run again with --debug and report what it prints."
        )

    def json(self, rows: Iterable[Mapping[str, Any]], stream: TextIO | None = None) -> None:
        """Print one JSON object a line; sentences and places in it are masked."""
        from rundiff.cli.objects import masked_messages

        for row in rows:
            text = json.dumps(masked_messages(row, self.project.masked), ensure_ascii=False)
            click.echo(text, file=stream or sys.stdout)

    def show(self, renderables: Iterable[RenderableType], stream: TextIO | None = None) -> None:
        """Print something for people; plain and unfolded where nobody looks at a terminal."""
        from rundiff.cli.console import console

        stream = stream or sys.stdout
        paper = console(stream)
        if paper.is_terminal:
            for renderable in renderables:
                paper.print(renderable)
            return
        with paper.capture() as captured:
            for renderable in renderables:
                paper.print(renderable, soft_wrap=True)
        # Tables pad their last column, which would only bother whoever reads the pipe.
        for line in captured.get().splitlines():
            click.echo(line.rstrip(), file=stream)


def common_options(*, as_json: bool = True, quiet: bool = False) -> Callable[[Command], Command]:
    """Declare the options that commands share, once."""

    def remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value:
            setattr(ctx.find_object(Invocation), str(param.name), value)

    def decorate(command: Command) -> Command:
        click.option(
            "--debug",
            is_flag=True,
            expose_value=False,
            help="Show the traceback of an error.",
        )(command)
        click.option(
            "--home",
            metavar="DIRECTORY",
            expose_value=False,
            callback=remember,
            help="Where Rundiff keeps its state; else RUNDIFF_HOME, else the project file's, else .rundiff.",
        )(command)
        for flag, what in (("--signatures", "signature store"), ("--database", "database")):
            click.option(
                flag,
                metavar="URL",
                expose_value=False,
                callback=remember,
                help=f"The {what}; else RUNDIFF_{flag[2:].upper()}, else the project file's, else the home directory.",
            )(command)
        if quiet:
            click.option(
                "--quiet",
                is_flag=True,
                expose_value=False,
                callback=remember,
                help="Print errors only.",
            )(command)
        if as_json:
            click.option(
                "--json",
                "as_json",
                is_flag=True,
                expose_value=False,
                callback=remember,
                help="Print JSON, one object a line.",
            )(command)
        return command

    return decorate


def _leave_pandas_out() -> None:
    """Keep Arrow from importing pandas, which it does at the first list that becomes an array.

    That takes longer than a whole small sync, and the command hands no pandas object over. Where
    plug-ins are installed, they may, and everything stays as it is.
    """
    if "pandas" in sys.modules or find_spec("pandas") is None:
        return
    from rundiff.plugins import entry_points

    if any(entry_points(group=group) for group in PLUGINS):
        return
    import pyarrow as pa

    # Arrow looks for pandas once, and remembers that it found none; others may import it as ever.
    hiding = _HidePandas()
    sys.meta_path.insert(0, hiding)
    try:
        pa.array([None])
    finally:
        sys.meta_path.remove(hiding)


class _HidePandas:
    """A finder that says that there is no pandas (Python reference, "The meta path").

    No subclass of `importlib.abc.MetaPathFinder`, whose import takes as long as all of click.
    """

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:  # noqa: ARG002 -- the protocol of finders
        """Refuse pandas, leave everything else to the other finders."""
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname, name=fullname)
