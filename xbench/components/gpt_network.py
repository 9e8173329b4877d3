"""The network of `gpt-mini`, in a module of its own because it imports torch."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional

_INIT_STD = 0.02


class GPT(nn.Module):
    """A decoder-only transformer with layer norms in front of attention and MLP, and learned positions.

    The embedding and the output are separate matrices. With a vocabulary of bytes, tying them saves little,
    and an optimizer that treats matrices one by one, or by their role, then sees one role per matrix.

    Args:
        vocabulary: number of tokens.
        context: largest number of tokens in a sequence.
        width: size of the vector at each position.
        depth: number of blocks.
        heads: number of attention heads in each block, which divides `width`.
    """

    def __init__(self, vocabulary: int, context: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, vocabulary, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        """Draw weights as GPT-2 does: the last layers of residual branches are smaller in deep networks."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=_INIT_STD)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        residual_std = _INIT_STD / math.sqrt(2 * len(self.blocks))
        for module in self.modules():
            if isinstance(module, Block):
                nn.init.normal_(module.attention.project.weight, std=residual_std)
                nn.init.normal_(module.contract.weight, std=residual_std)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (n, length) tokens to (n, length, vocabulary) logits of the next token.

        Raises:
            ValueError: the sequences are longer than the context.
        """
        length, context = tokens.shape[1], len(self.positions.weight)
        if length > context:
            raise ValueError(
                f"sequences of {length} tokens are longer than the context of {context}: "
                f"set context = {length} or more for this model"
            )
        x = self.tokens(tokens) + self.positions.weight[:length]
        for block in self.blocks:
            x = block(x)
        return self.output(self.norm(x))


class Block(nn.Module):
    """Attention and an MLP, each added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.contract(functional.gelu(self.expand(self.mlp_norm(x)), approximate="tanh"))


class Attention(nn.Module):
    """Self-attention in which a position sees itself and those before it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        # (n, length, 3 * width) -> (3, n, heads, length, width / heads)
        query, key, value = self.query_key_value(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.project(mixed.transpose(1, 2).flatten(2))
