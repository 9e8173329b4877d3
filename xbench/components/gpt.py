"""A small language model of the GPT-2 family."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xbench.components.facts import Facts, first_tensor
from xbench.components.specs import ModelSpec, Scale
from xbench.errors import XbenchError

if TYPE_CHECKING:
    from torch import nn


def build_gpt(
    facts: Facts, width: int = 64, depth: int = 2, heads: int = 4, context: int | None = None
) -> nn.Module:
    """Build a decoder-only transformer as in GPT-2, without dropout and with an output matrix of its own.

    Args:
        facts: the vocabulary is that of the data.
        width: size of the vector at each position.
        depth: number of blocks.
        heads: number of attention heads in each block.
        context: the largest number of tokens in a sequence; by default that of the data. Set it if rows
            differ in length, since the data is described by a few rows.

    Returns:
        A module from (n, context) int64 tokens to (n, context, vocabulary) logits of the next token. Shorter
        sequences may be passed, too.

    Raises:
        XbenchError: the data does not consist of tokens, `heads` does not divide `width`, a setting is not a
            positive integer, or rows of the data are longer than `context`.
    """
    vocabulary, length = _read_facts(facts)
    context = length if context is None else context
    for name, value in (("width", width), ("depth", depth), ("heads", heads), ("context", context)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise XbenchError(
                f"gpt-mini: {name} = {value!r} is not valid", hint=f"set {name} to an integer of at least 1"
            )
    if width % heads:
        raise XbenchError(
            f"gpt-mini: width = {width} is not divisible by heads = {heads}",
            hint=f"set width to a multiple of {heads}, such as {(width // heads + 1) * heads}",
        )
    if context < length:
        raise XbenchError(
            f"gpt-mini: context = {context} is less than the {length} tokens of a row",
            hint=f"set context to at least {length}, or leave it out",
        )

    from xbench.components.gpt_network import GPT

    return GPT(vocabulary, context, width, depth, heads)


def _read_facts(facts: Facts) -> tuple[int, int]:
    """Return the size of the vocabulary, and the number of tokens of the described rows."""
    output, row = facts.output, first_tensor(facts.row)
    hint = "choose a dataset of tokens, such as generated-text"
    if output is None or output.kind != "tokens":
        got = f"has an output of kind '{output.kind}'" if output else "does not say what a model returns"
        if output is None:
            hint += '; for tokens of your own, let the Task say output=Output("tokens", SIZE_OF_VOCABULARY)'
        raise XbenchError(
            f"gpt-mini predicts outputs of kind 'tokens', and the task of this dataset {got}", hint
        )
    if len(row.shape) != 1 or row.dtype not in ("int32", "int64"):
        raise XbenchError(
            f"gpt-mini takes rows of int64 tokens of shape (context,), and the rows of this dataset are "
            f"{row.dtype} of shape {row.shape}",
            hint,
        )
    return output.size, row.shape[0]


GPT_MINI = ModelSpec(
    factory=build_gpt,
    summary="a small GPT-2: a decoder-only transformer for tokens; set its width, depth, heads and context",
    reference="Radford et al. 2019, Language Models are Unsupervised Multitask Learners",
    scalable={"width": Scale(multiple="heads"), "depth": Scale()},
)
