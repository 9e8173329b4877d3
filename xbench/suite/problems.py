"""Every mistake of a suite, collected to be reported in one go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xbench.errors import Mistakes, XbenchError
from xbench.suite.lines import KeyPath, key_lines, line_of
from xbench.text import MAX_SENTENCE_CHARS, escape_controls, shorten

# Mistakes that are told; a suite with more was not written by hand.
MAX_PROBLEMS = 100


@dataclass
class Problems:
    """Mistakes found so far in one suite.

    Attributes:
        file: the suite's path, as the user gave it.
        text: its text, for line numbers.
        document: what was parsed from it, overrides included.
        overrides: key path -> the option that set it, which is then where the mistake is.
    """

    file: str
    text: str
    document: dict[str, Any] = field(default_factory=dict)
    overrides: Mapping[KeyPath, str] = field(default_factory=dict)
    _found: dict[tuple[KeyPath, str], str | None] = field(default_factory=dict)

    def add(self, path: KeyPath, message: str, hint: str | None = None) -> None:
        """Note a mistake at a key path; the same one is noted once. Names in it may be anything."""
        if not self.is_full:
            one_line = shorten(escape_controls(" ".join(message.split("\n"))), MAX_SENTENCE_CHARS)
            self._found.setdefault((path, one_line), hint)

    @property
    def is_full(self) -> bool:
        """Whether there are so many that no more need be looked for."""
        return len(self._found) > MAX_PROBLEMS

    def __bool__(self) -> bool:
        return bool(self._found)

    def raise_if_any(self) -> None:
        """
        Raises:
            Mistakes: all of them, in the order of the file, a line each.
        """
        if not self._found:
            return
        lines = key_lines(self.text)
        located = [(self._where(lines, path), message, hint) for (path, message), hint in self._found.items()]
        located.sort(key=lambda item: item[0])
        hints = {f"{where}: {message}": hint for (_, where), message, hint in located}
        told = [XbenchError(sentence, hint) for sentence, hint in hints.items()][:MAX_PROBLEMS]
        if self.is_full:
            more = f"{self.file}: and more: these are the first {MAX_PROBLEMS} mistakes that were found"
            told.append(XbenchError(more))
        raise Mistakes(told)

    def _where(self, lines: dict[KeyPath, int], path: KeyPath) -> tuple[int, str]:
        path = _as_written(path, self.document)
        around = path
        while around:
            if around in self.overrides:
                return 0, shorten(escape_controls(self.overrides[around]), MAX_SENTENCE_CHARS)
            around = around[:-1]
        line = line_of(lines, path) or 1
        inside = [argument for key, argument in self.overrides.items() if key[: len(path)] == path]
        told = shorten(escape_controls(" ".join(inside)), MAX_SENTENCE_CHARS)
        changed = f" (with {told})" if inside and path else ""
        return line, f"{self.file}:{line}{changed}"


def _as_written(path: KeyPath, document: Any) -> KeyPath:
    """The path as the file has it: a table may stand without a list around it, a setting under `params`."""
    written: list[str | int] = []
    for part in path:
        if isinstance(part, int) and not isinstance(document, list):
            continue
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
