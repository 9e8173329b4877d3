"""Define what all records have in common: their base class, their version, and types of fields."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# Records of version 1 are upgraded when they are read; see `records.upgrade`.
SCHEMA_VERSION = 2

# A 64-bit integer, which every tool can read back.
Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]

# Safe as the name of a file or folder: it cannot lead out of the run's folder.
CellId = Annotated[str, Field(pattern=r"^[0-9A-Za-z_-]{1,64}$")]


class Record(BaseModel):
    """Base class of all records. Fields that a newer xbench has added are ignored.

    JSON has no infinite numbers, so infinite hyperparameters are written as strings.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="strings")
