"""Accept fields that older versions of specs had."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any


def without_fields(*names: str) -> Callable[[type], type]:
    """Accept and ignore fields that the previous version of xbench had, with a `DeprecationWarning`.

    The next version drops the names from the decorator, and passing such a field then raises `TypeError`.

    Args:
        names: fields that were removed from the decorated dataclass.
    """

    def decorate(spec_type: type) -> type:
        init = vars(spec_type)["__init__"]

        @functools.wraps(init)
        def accept_and_warn(self: Any, **fields: Any) -> None:
            removed = tuple(name for name in names if name in fields)
            for name in removed:
                del fields[name]
                warnings.warn(
                    f"{spec_type.__name__}: the field '{name}' was removed and is ignored; delete it, as the "
                    "next version of xbench refuses it",
                    DeprecationWarning,
                    stacklevel=2,
                )
            init(self, **fields)
            object.__setattr__(self, "removed_fields", removed)

        type.__setattr__(spec_type, "__init__", accept_and_warn)
        return spec_type

    return decorate
