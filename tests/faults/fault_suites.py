"""What is run while things go wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

USER_CODE = Path(__file__).parent / "user_code"


@dataclass(frozen=True)
class FaultSuite:
    """A suite, and how its cells should end.

    Attributes:
        failing: (status, words of the reason) of the columns that do not end as `done`.
    """

    text: str
    failing: dict[str, tuple[str, str]]


_COMMON = """
model = "fault_parts:build_slow"
dataset = "fault_parts:build_dataset"
train_size = 20
validation = 0.2
batch_size = 5
"""

# Cells of about half a second, long enough for a checkpoint or two.
STEADY = FaultSuite(
    f"""
[suite]
name = "steady"
checkpoint_interval = "0.1s"

[[experiment]]
name = "steady"
{_COMMON}
epochs = 10
optimizer = [
  {{ label = "sgd", name = "sgd", lr = 1e-2, momentum = 0.9 }},
  {{ label = "adam", name = "adam" }},
  {{ label = "rmsprop", name = "rmsprop" }},
  {{ label = "lbfgs", name = "lbfgs", lr = 1e-3, history_size = 4, max_iter = 2 }},
  {{ label = "plain", name = "fault_parts:Plain" }},
]
""",
    failing={},
)

_AT_ONCE = {
    "Raising": ("error", "ArithmeticError: I cannot go on"),
    "RaisingAtLength": ("error", "RuntimeError: no no"),
    "RaisingUnprintable": ("error", "a lone surrogate"),
    "RaisingMute": ("error", ""),
    "Exiting": ("error", "exited with code 0 without a result"),
    "Segfaulting": ("error", "SIGSEGV"),
    "Diverging": ("diverged", "nan"),
    "Closing": ("error", ""),
    "SendingLambda": ("error", "history_size"),
    "SendingForeign": ("error", "history_size"),
    "SendingFraction": ("error", "history_size"),
}
_IN_TIME = {"Sleeping": "timeout", "Spinning": "timeout", "Stopping": "timeout"}


def _columns(names: list[str]) -> str:
    return ", ".join(f'{{ label = "{name}", name = "fault_parts:{name}" }}' for name in names)


PLUGINS = FaultSuite(
    f"""
[suite]
name = "plugins"
checkpoint_interval = "0.1s"

[[experiment]]
name = "at-once"
{_COMMON}
optimizer = [{_columns(["Plain", *_AT_ONCE, "Chatting"])}]

[[experiment]]
name = "in-time"
{_COMMON}
timeout = "1.5s"
optimizer = [{_columns([*_IN_TIME])}]

[[experiment]]
name = "in-memory"
{_COMMON}
memory_limit = "800MB"
optimizer = [{_columns(["Hoarding"])}]

[[experiment]]
name = "after-all"
{_COMMON}
optimizer = ["adam"]
""",
    failing={
        **_AT_ONCE,
        **{name: (status, "it did not end within") for name, status in _IN_TIME.items()},
        "Hoarding": ("oom", "memory"),
    },
)
