"""Notes on recipes: on schedules, clipping, settings of param groups, and on precision and compiled models.

Recipes are shown wherever they are not the default, since figures mean little without them. Rows and titles
show those that differ between columns, and notes show the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from xbench.report.columns import Column
from xbench.report.settings import SHOWN_DEFAULTS, is_in_title, show_value

ALL = "all columns"


def note_recipes(columns: Sequence[Column]) -> Iterator[tuple[str, None, str]]:
    """Yield a note for each recipe, or one for all columns if they share it.

    Yields:
        The column or `ALL`, None for all of its seeds, and the text.
    """
    ended = [column for column in columns if column.records]
    shared = [key for key in SHOWN_DEFAULTS if len(_list_texts(ended, key)) == 1]
    texts = {column.name: _describe(column, shared) for column in ended}
    if len(set(texts.values())) == 1 and len(texts) > 1:
        texts = {ALL: next(iter(texts.values()))}
    for name, text in texts.items():
        if text:
            yield name, None, f"trained with {text}"


def _list_texts(columns: Sequence[Column], key: str) -> set[str]:
    return {show_value(found.value) for column in columns for found in column.settings.get(key, ())}


def _describe(column: Column, keys: Sequence[str]) -> str:
    settings = column.records[0].settings
    values = {key: settings.get(key, SHOWN_DEFAULTS[key]) for key in keys}
    return ", ".join(
        f"{key} = {show_value(value)}"
        for key, value in values.items()
        if value != SHOWN_DEFAULTS[key] and not is_in_title(key, column.name, column.records[0])
    )
