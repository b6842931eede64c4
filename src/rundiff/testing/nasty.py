r"""Texts that trip over quoting, escaping, encodings, formats, collations and keywords.

In the spirit of the Big List of Naughty Strings, each for a way in which SQL, CSV, COPY or a driver
is known to change a text; none is longer than 60 bytes.
"""

from __future__ import annotations

__all__ = ["NASTY"]

_EMPTY_AND_NULL = (
    "",
    " ",
    "  ",
    "\t",
    "null",
    "NULL",
    "None",
    r"\N",
    r"\\N",
    "nil",
    "(null)",
    "undefined",
    "NaN",
)
_QUOTES = (
    "'",
    '"',
    "''",
    '""',
    "`",
    "``",
    "'\"'",
    '"a"',
    "it's",
    'say "hi"',
    "[x]",
    "]",
    "$$",
    "$1",
    "q'[x]'",
    "E'x'",
)
_ESCAPES = (
    *("\\", "\\\\", "a\\", "\\'", '\\"', "\\0", "\\n", "\\.", "\\x00", "\\u0000", "%", "%s", "%(x)s", "%%"),
    *(
        "{",
        "}",
        "{}",
        "{0}",
        "{table}",
        "{{x}}",
        "?",
        "??",
        ":name",
        "@x",
        "@@version",
        "#",
        "&amp;",
        "${HOME}",
    ),
)
_STATEMENTS = (
    *("--", "-- x", "/*", "*/", "/*! x */", ";", "'; DROP TABLE t; --", "1; SELECT 1", "') OR ('1'='1"),
    *(
        "select",
        "SELECT",
        "from",
        "table",
        "order",
        "group",
        "user",
        "key",
        "index",
        "values",
        "primary",
        "desc",
    ),
    *(
        "=1+1",
        "+1",
        "-1",
        "@SUM(1)",
        "|cmd",
        "c0",
        "c1",
        "n",
        "s",
        "t",
        "x.y",
        ".",
        "..",
        "a b",
        "1",
        "01",
        "1e5",
    ),
)
_LINES = (
    "\n",
    "\r",
    "\r\n",
    "a\nb",
    "a,b",
    ",",
    "a\tb",
    "|",
    "\x0b",
    "\x0c",
    "\x1f",
    "\x7f",
    "\x85",
    "\u2028",
    "\x1a",
)
_NUL = ("\0", "a\0b", "\0\0")
_UNICODE = (
    *(
        "é",
        "e\u0301",
        "ß",
        "ẞ",
        "ss",
        "İ",
        "\u0131",
        "I",
        "i",
        "Ω",
        "ﬁ",
        "Å",
        "\u212b",
        "ñandú",
        "日本語",
        "한국어",
    ),
    *(
        "\U0001f600",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\U00010348",
        "\U0010ffff",
        "\uffff",
        "\ufdd0",
    ),
    *("\ufeff", "\ufeffx", "\u200b", "a\u200bb", "\u202eabc", "\u00a0", "\u3000", "مرحبا", "שלום", "\u0345"),
)
_ALIKE = (
    "a",
    "A",
    "a ",
    " a",
    "á",
    "Á",
    "aa",
    "AA",
    "true",
    "TRUE",
    "t ",
    "0",
    "-0",
    "00",
    "007",
    "2024-02-30",
    "1.0",
)

NASTY = tuple(
    dict.fromkeys(_EMPTY_AND_NULL + _QUOTES + _ESCAPES + _STATEMENTS + _LINES + _NUL + _UNICODE + _ALIKE)
)
"""Every one of them once."""
