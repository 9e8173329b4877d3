"""Jobs for child processes. Imports next to nothing, so that a child shows what its server gave it."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time

WORDS = "these are my last words"


def echo(send, value):
    return value


def count_to(send, count):
    for number in range(count):
        send(number)
    return "counted"


def refuse(send, error_type, message, hint):
    raise error_type(message, hint)


def refuse_in_own_words(send, name, count):
    from xbench.errors import DataNotFound

    class NoSuchImage(DataNotFound):
        def __init__(self, name, count):
            super().__init__(f"{name} is missing {count} times", hint="fetch it")

    # As if it stood in a plugin's module.
    globals()["NoSuchImage"] = NoSuchImage
    NoSuchImage.__qualname__ = "NoSuchImage"
    raise NoSuchImage(name, count)


def divide(send, numerator, denominator):
    return numerator / denominator


def break_own_pipe(send):
    reader, writer = os.pipe()
    os.close(reader)
    os.write(writer, b"to nobody")


def fail_over_lines(send):
    raise ValueError("first\n   second")


def die(send, way):
    """Send some messages, write some words, die."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in range(50):
        send(number)
    os.write(2, f"{WORDS}\n".encode())
    send(f"about to die by {way}")
    if way == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    elif way == "SIGSEGV":
        ctypes.string_at(0)
    elif way == "SIGABRT":
        os.abort()
    else:
        os._exit(3)


def say_much_and_die(send, count):
    send(os.getpid())
    for number in range(count):
        send(number)
    os.kill(os.getpid(), signal.SIGKILL)


def die_unnamed(send):
    os.kill(os.getpid(), signal.SIGRTMIN + 1)  # a signal that has a number only


def send_pid_and_much(send, size):
    send(os.getpid())
    send(b"x" * size)


def sleep_forever(send):
    send(os.getpid())
    while True:
        time.sleep(60)


def return_unpicklable(send):
    return lambda: None


def send_unpicklable(send):
    send(lambda: None)


class Unreadable:
    """Can be pickled, and cannot be unpickled: as an object of a module that the parent does not have."""

    def __reduce__(self):
        return _not_here, ()


def _not_here():
    raise ModuleNotFoundError("No module named 'elsewhere'")


def return_unreadable(send):
    return Unreadable()


def send_unreadable(send):
    send(Unreadable())
    return "sent"


def write_much(send, count):
    print("from the job's stdout", flush=True)
    os.write(1, b"from the job's descriptor 1\n")
    os.write(2, b"x" * count + b"the end")
    return "written"


def resident(send):
    from xbench.memory.host import resident_bytes

    return resident_bytes()


def allocate_until_it_fails(send, block_bytes):
    """Touch block by block; sends the resident size after each."""
    import torch

    from xbench.memory.host import resident_bytes

    kept = []
    while True:
        kept.append(torch.ones(block_bytes // 4))
        send(resident_bytes())


def parallel_sum(send, count):
    import torch

    values = torch.ones(count)
    products = torch.ones(256, 256) @ torch.ones(256, 256)
    return torch.get_num_threads(), float((values * 2).sum()), float(products[0, 0])


def start_threads(send, count):
    """Ask for more threads of torch's than there were, each with a stack of its own."""
    import torch

    torch.set_num_threads(count)
    torch.ones(1 << 20).add_(1.0)


def interrupt_itself(send):
    os.kill(os.getpid(), signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
    return "still here"


def inheritance(send):
    """What a child finds before it has done anything of its own."""
    modules = sorted(sys.modules)
    import torch

    return {
        "pid": os.getpid(),
        "server": os.getppid(),
        "modules": modules,
        "cuda": torch.cuda.is_initialized(),
        "server_threads": len(os.listdir(f"/proc/{os.getppid()}/task")),
    }


def work_until(send, path):
    """Compute without a word until there is a file."""
    while not os.path.exists(path):
        sum(range(10_000))
    return "worked"


def wait_until(send, path):
    """Say one's number, and wait without a word until there is a file."""
    send(os.getpid())
    while not os.path.exists(path):
        time.sleep(0.05)
    return "waited"


def speak(send, times, every_s):
    """Say something now and then, and do nothing else."""
    for number in range(times):
        time.sleep(every_s)
        send(number)
    return "spoke"


def leave_a_child(send):
    """Have a child that holds all that this process has open, and die."""
    pid = os.fork()
    if pid == 0:
        time.sleep(600)
        os._exit(0)
    send(pid)
    os.kill(os.getpid(), signal.SIGKILL)


def return_much(send, size):
    """A last message that takes the parent a while, and nothing after it."""
    return b"x" * size


def stop_when_asked(send):
    """End by itself at a SIGTERM."""
    asked = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    send(os.getpid())
    while not asked:
        time.sleep(0.02)
    return "stopped"


def signal_own_group(send, number):
    """What a terminal does to all its processes."""
    signal.raise_signal(number)
    return "still here"


def write_and_abort(send, words):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.write(2, words.encode())
    os.abort()


def have_a_child(send, then):
    """Have a child that sleeps, and end in a way or go on."""
    pid = os.fork()
    if pid == 0:
        time.sleep(600)
        os._exit(0)
    send(pid)
    if then == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if then == "stay":
        time.sleep(600)
    return "ended"


def stop_within_a_message(send, stop):
    """Write half a message, with a child outside of the group that holds the pipe, and stop or die."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        time.sleep(600)
        os._exit(0)
    send(pid)
    os.write(pipe_descriptor(send), (1000).to_bytes(8, "big") + b"half")
    os.kill(os.getpid(), stop)


def pipe_descriptor(send):
    outbox = next(cell.cell_contents for cell in send.__closure__)
    return outbox._pipe.fileno()


def fail_without_stderr(send):
    os.close(1)
    os.close(2)
    raise ValueError("heard all the same")


def fail_with_a_closed_stream(send):
    sys.stderr.close()
    raise ValueError("heard all the same")


def fail_without_words(send):
    class Wordless(Exception):
        def __str__(self):
            raise RuntimeError("no words")

    raise Wordless


def fail_with_odd_notes(send):
    error = ValueError("noted")
    error.__notes__ = [1, "\ud800"]
    raise error


def list_of(send, folder):
    return sorted(os.listdir(folder))


def hold_the_interpreter(send):
    """In one call that lets no other thread run, and does not end."""
    import re

    send(os.getpid())
    re.match(r"(a+)+$", "a" * 64 + "b")
