"""One component that dies or hangs when it is tried takes no other's answer with it."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from xbench.errors import XbenchError
from xbench.isolation.ask import ask_each
from xbench.isolation.run import ChildFailed, Timeouts


def upper(send, words):
    for word in words:
        if word == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif word == "raise":
            raise ValueError("not this word")
        elif word == "sleep":
            time.sleep(600)
        elif word == "work":
            while True:
                pass
        elif word == "refuse":
            raise XbenchError("no words today")
        elif word == "hoard":
            raise MemoryError
        send(word.upper())
    if "die at the end" in words:
        os.kill(os.getpid(), signal.SIGKILL)


def answers(*words: str, silence_s: float = 60.0) -> list[str | ChildFailed]:
    return ask_each(upper, words, timeouts=Timeouts(silence_s=silence_s))


def test_each_has_its_answer():
    assert answers("a", "b", "c") == ["A", "B", "C"]
    assert answers() == []


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("die", "killed by SIGKILL"),
        ("raise", "not this word"),
        ("hoard", "needs more memory"),
    ],
)
def test_others_have_theirs(word, why):
    first, failed, last = answers("a", word, "c")
    assert (first, last) == ("A", "C")
    assert isinstance(failed, ChildFailed)
    assert why in failed.message
    assert failed.ending.out_of_memory == (word == "hoard")


def test_others_have_theirs_where_one_does_not_end():
    assert answers("a") == ["A"]  # the server is started in the main thread
    with ThreadPoolExecutor(2) as threads:  # both take as long as is waited for them
        found = list(threads.map(lambda word: answers("a", word, "c", silence_s=3.0), ("sleep", "work")))
    for first, failed, last in found:
        assert (first, last) == ("A", "C")
        assert isinstance(failed, ChildFailed)
        assert "it sent no message for 3" in failed.message
        assert not failed.ending.out_of_memory


def test_several_in_turn():
    found = answers("die", "a", "raise", "die")
    assert [isinstance(answer, ChildFailed) for answer in found] == [True, False, True, True]


def test_a_death_after_the_last_answer_is_none_of_theirs():
    assert answers("a", "die at the end") == ["A", "DIE AT THE END"]


def test_what_is_refused_is_refused_whole():
    with pytest.raises(XbenchError, match="no words today"):
        answers("a", "refuse")
