"""The Markdown pages, cut into blocks of code.

What the fences mean:

- `console`: commands after `$ `, continued after `> `, each followed by its output. A command that
  exits with another code than 0 ends in `# exit CODE`.
- `bash`: a script that must succeed.
- `python`: run in one namespace for the whole page. Comments right below an expression show its value,
  or what it prints.
- `toml`: a project file. `json`: one value. `sql`: statements, only parsed.
- `text` and fences without a name show something, and are not run.

The comment `<!-- not run: REASON -->` above a block leaves it out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PAGES", "ROOT", "Block", "Command", "blocks", "commands", "masked"]

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_NOT_RUN = re.compile(r"<!-- not run: (\S.*) -->")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block of a page."""

    language: str
    text: str
    line: int
    """Of its first line, from 1."""
    not_run: str | None
    """Why it is left out."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a `console` block."""

    text: str
    output: str
    code: int


def blocks(page: Path) -> list[Block]:
    """Find the fenced blocks of a page."""
    found: list[Block] = []
    language: str | None = None
    lines: list[str] = []
    start, above = 0, ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if language is None and line.startswith("```"):
            language, lines, start = line[3:].strip(), [], number + 1
        elif language is not None and line == "```":
            marker = _NOT_RUN.fullmatch(above)
            found.append(Block(language, "\n".join(lines), start, marker and marker[1]))
            language, above = None, ""
        elif language is not None:
            lines.append(line)
        elif line.strip():
            above = line.strip()
    if language is not None:
        raise ValueError(f"{page}: the block of line {start} has no end")
    return found


def commands(block: Block) -> list[Command]:
    """Split a `console` block into its commands with their outputs."""
    found: list[tuple[list[str], list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append(([line[2:]], []))
        elif line.startswith("> ") and found and not found[-1][1]:
            found[-1][0].append(line[2:])
        elif not found:
            raise ValueError(f"line {block.line}: output before the first command")
        else:
            found[-1][1].append(line)
    return [
        Command(text="\n".join(typed), output="\n".join(shown), code=_code(typed[-1]))
        for typed, shown in found
    ]


def _code(line: str) -> int:
    match = re.search(r"# exit (\d+)$", line)
    return int(match[1]) if match else 0


_VOLATILE = (
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)?", "TIME"),
    (r"\b\d+\.\d s\b", "SECONDS"),
    (r'"seconds": \d+\.\d+', '"seconds": SECONDS'),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
    (r"\b(base-|overlay-|manifest-\d{8}-)[0-9a-f]{32}", r"\1NAME"),
    (r"\b(native|python)\b", "SIGNER"),
)


def masked(text: str, folder: Path) -> str:
    """Hide what differs from run to run: times, random names, the folder; and the width of columns."""
    text = text.replace(str(folder), "/home/ada/work")
    for pattern, name in _VOLATILE:
        text = re.sub(pattern, name, text)
    return "\n".join(re.sub(r" {2,}", "  ", line).rstrip() for line in text.strip().splitlines())
