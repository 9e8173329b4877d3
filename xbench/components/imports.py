"""Find the names that a Python file imports, without running it."""

from __future__ import annotations

import re

# `import a.b, c as d` and `from a.b import c`, wherever they stand; a comment ends the list.
_IMPORT = re.compile(rb"^[ \t]*import[ \t]+([^#;\r\n]+)", re.MULTILINE)
_FROM = re.compile(rb"^[ \t]*from[ \t]+([A-Za-z_]\w*)", re.MULTILINE)
# `import_module("a.b")` and `__import__("a")`.
_CALL = re.compile(rb"""import(?:_module|__)\(\s*["']([A-Za-z_]\w*)""")
# "a.b:attribute", as a spec may name its factory.
_REFERENCE = re.compile(rb"""["']([A-Za-z_]\w*)(?:\.\w+)*:[A-Za-z_][\w.]*["']""")

_NAME = re.compile(rb"\s*([A-Za-z_]\w*)")


def imported_names(content: bytes) -> set[str]:
    """The top-level names of the modules that a file imports or names as `"module:attribute"`.

    Text is searched, so that a file with a syntax error has names, too. A name in a docstring may be among
    them.
    """
    names = {name for pattern in (_FROM, _CALL, _REFERENCE) for name in pattern.findall(content)}
    for listed in _IMPORT.findall(content):
        names |= {match[1] for part in listed.split(b",") if (match := _NAME.match(part))}
    return {name.decode() for name in names}
