"""timm's image classifiers as an xbench plugin. Importing this module imports neither torch nor timm."""

from __future__ import annotations

from xbench import Family

__all__ = ["TIMM", "list_members"]


def list_members() -> list[str]:
    """List timm's models: every architecture, followed by its names with the tags of trained weights."""
    from xbench_timm.members import list_names

    return list_names()


TIMM = Family(
    member="xbench_timm.members:make_spec",
    members=list_members,
    summary="timm's image classifiers, pretrained where timm has weights",
    reference="https://huggingface.co/docs/timm",
)
