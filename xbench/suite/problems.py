"""Collect the mistakes in a suite, to report them all at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xbench.errors import Mistakes, XbenchError
from xbench.suite.lines import KeyPath, key_lines, line_of, show_path
from xbench.text import MAX_SENTENCE_CHARS, escape_controls, shorten

# Further mistakes are not shown: a suite with more than these was not written by hand.
MAX_PROBLEMS = 100


@dataclass
class Problems:
    """The mistakes found so far in one suite.

    Attributes:
        file: the suite's path, as the user gave it.
        text: the suite's text, for line numbers; None if there is none, and places are key paths.
        document: the parsed suite, with overrides applied.
        overrides: the command line option that set each overridden key path. A mistake there is reported with
            the option in place of a line.
    """

    file: str
    text: str | None
    document: dict[str, Any] = field(default_factory=dict)
    overrides: Mapping[KeyPath, str] = field(default_factory=dict)
    _found: dict[tuple[KeyPath, str], str | None] = field(default_factory=dict)

    def add(self, path: KeyPath, message: str, hint: str | None = None) -> None:
        """Add a mistake at a key path, unless it has been added already.

        Args:
            message: may contain any characters; line breaks and control characters are escaped.
        """
        if not self.is_full:
            one_line = shorten(escape_controls(" ".join(message.split("\n"))), MAX_SENTENCE_CHARS)
            self._found.setdefault((path, one_line), hint)

    @property
    def is_full(self) -> bool:
        """Whether there are so many mistakes that checking can stop."""
        return len(self._found) > MAX_PROBLEMS

    def __bool__(self) -> bool:
        return bool(self._found)

    def raise_if_any(self) -> None:
        """Raise all mistakes, one per line, in the order of the file.

        Raises:
            Mistakes: there is at least one.
        """
        if not self._found:
            return
        lines = key_lines(self.text or "")
        located = [
            (self._locate(lines, path), message, hint) for (path, message), hint in self._found.items()
        ]
        located.sort(key=lambda item: item[0])
        hints = {f"{where}: {message}": hint for (_, where), message, hint in located}
        errors = [XbenchError(sentence, hint) for sentence, hint in hints.items()][:MAX_PROBLEMS]
        if self.is_full:
            errors.append(XbenchError(f"{self.file}: only the first {MAX_PROBLEMS} mistakes are shown"))
        raise Mistakes(errors)

    def _locate(self, lines: dict[KeyPath, int], path: KeyPath) -> tuple[int, str]:
        """Return the line number of a key path (0 for an option), and how a message names the place."""
        path = _path_in_file(path, self.document)
        around = path
        while around:
            if around in self.overrides:
                return 0, shorten(escape_controls(self.overrides[around]), MAX_SENTENCE_CHARS)
            around = around[:-1]
        line = line_of(lines, path) or 1
        if path[2:3] in (("model",), ("dataset",)) and path[:3] not in lines:  # options made the table
            line = lines.get((*path[:2], "problem"), line)
        place = f"{self.file}:{line}" if self.text is not None else show_path(path) or self.file
        inside = [argument for key, argument in self.overrides.items() if key[: len(path)] == path]
        options = shorten(escape_controls(" ".join(inside)), MAX_SENTENCE_CHARS)
        changed = f" (with {options})" if inside and path else ""
        return line, f"{place}{changed}"


def _path_in_file(path: KeyPath, document: Any) -> KeyPath:
    """Return a key path as it is written in the file.

    In the file, a single table need not be in a list, a name may stand for a table, a problem for a model and
    a dataset, and a setting may be under `params`.
    """
    written: list[str | int] = []
    for part in path:
        if isinstance(part, int) and not isinstance(document, list):
            continue
        if part == "name" and isinstance(document, str):
            continue
        if part in ("model", "dataset") and isinstance(document, dict) and part not in document:
            part = "problem" if "problem" in document else part
        params = document.get("params") if isinstance(document, dict) and part not in document else None
        if isinstance(params, dict) and part in params:
            document = params
            written.append("params")
        try:
            document = document[part]
        except (KeyError, IndexError, TypeError):
            document = None
        written.append(part)
    return tuple(written)
