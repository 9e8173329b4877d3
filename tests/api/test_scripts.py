"""Runs of scripts and notebooks: nothing is guarded, and components have no module."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.api.scripts import PARTS

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))

RUN = f"{PARTS}\nresults = xbench.run(SUITE)\nprint(results.cells.status.tolist())\n"
KEPT = "1 of 1 cell already have results"


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_its_results_are_found_again(python, tmp_path, example):
    first = python(tmp_path, str(example))
    assert "Traceback" not in first.stderr
    again = python(tmp_path, str(example))
    assert "already have results" in again.stderr


SCRIPT = f"""
import os, signal, threading
print("begins")
{PARTS}
def seen():
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    # scikit-learn sets variables of OpenMP when it is imported.
    return {{name: value for name, value in os.environ.items() if not name.startswith("KMP_")}}, handlers

before = seen()
results = xbench.run(SUITE)
after = seen()
print(results.cells.status.tolist())
print("changed nothing" if after == before else set(after[0].items()) ^ set(before[0].items()))
found = []
SUITE["suite"]["name"] = "threaded"
thread = threading.Thread(target=lambda: found.append(xbench.run(SUITE, fresh=True)))
thread.start()
thread.join()
print(found[0].cells.status.tolist())
SUITE["experiment"][0]["optimizer"] = "nope"
try:
    xbench.run(SUITE)
except xbench.XbenchError as error:
    print(error.message)
report = xbench.probe(
    "sgd", "tiny", "synthetic-xray", set=["dataset.train=20", "dataset.test=10", "dataset.image_size=16"]
)
print(report.optimizer, report.model, [(result.axis, result.found) for result in report.results])
"""


@pytest.fixture(scope="module")
def printed(python, tmp_path_factory) -> list[str]:
    return python.script(tmp_path_factory.mktemp("script"), SCRIPT).stdout.splitlines()


class TestAScript:
    """One that is not guarded, and also runs a suite in a thread."""

    def test_runs_once(self, printed):
        assert printed[:2] == ["begins", "['done']"]

    def test_keeps_its_environment_and_its_signal_handlers(self, printed):
        assert printed[2] == "changed nothing"

    def test_may_run_a_suite_in_a_thread(self, printed):
        assert printed[3] == "['done']"

    def test_is_told_the_key_path_of_a_mistake(self, printed):
        assert printed[4].startswith("experiment[0].optimizer: unknown optimizer 'nope'")

    def test_may_probe_a_model_of_its_own(self, printed):
        assert printed[5:] == ["sgd tiny [('batch-size', 18)]"]


@pytest.mark.slow
def test_a_script_may_use_multiprocessing_for_itself(python, tmp_path):
    code = f"""
import multiprocessing

def double(number):
    return 2 * number

if __name__ == "__main__":
    with multiprocessing.get_context("forkserver").Pool(1) as pool:
        print(pool.map(double, [1, 2]))
{RUN.replace(chr(10), chr(10) + "    ")}
    with multiprocessing.get_context("forkserver").Pool(1) as pool:
        print(pool.map(double, [3]))
"""
    assert python.script(tmp_path, code).stdout.splitlines() == ["[2, 4]", "['done']", "[6]"]


@pytest.mark.slow
def test_a_notebook_may_run_a_suite(python, tmp_path):
    """Cells are compiled one by one, their source is in `linecache`, and the main module has no file."""
    cells = [
        PARTS,
        "class Noisy(torch.optim.SGD):\n    def step(self, closure):\n        return super().step(closure)\n",
        "SUITE['experiment'][0]['optimizer'].append({'name': 'noisy', 'lr': 0.1})\n"
        "xbench.register_optimizer('noisy', Noisy)\nresults = xbench.run(SUITE)\n",
        "print(results.cells.status.tolist(), '<table>' in results._repr_html_())\n",
        "class Noisy(torch.optim.SGD):\n    def step(self, closure):\n        super().step(closure)\n",
        "xbench.register_optimizer('noisy', Noisy)\nagain = xbench.run(SUITE)\n"
        "print((again.cells.cell_id == results.cells.cell_id).tolist())\n",
    ]
    kernel = f"""
import linecache, sys
assert not hasattr(sys.modules["__main__"], "__file__")
for number, cell in enumerate({cells!r}):
    name = f"<ipython-input-{{number}}>"
    linecache.cache[name] = (len(cell), None, cell.splitlines(True), name)
    exec(compile(cell, name, "exec"), sys.modules["__main__"].__dict__)
"""
    done = python(tmp_path, "-c", kernel)
    assert done.stdout == "['done', 'done'] True\n[True, False]\n"
    assert "2 of 2 cells already have results" in python(tmp_path, "-c", kernel).stderr


@pytest.mark.slow
def test_an_interrupt_keeps_what_has_ended(python, tmp_path):
    """The interrupt comes as the second cell begins."""
    code = f"""
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever starts the tests may ignore it
{PARTS}
from xbench.api import progress

def interrupt(observer, cell):
    if observer._ended == 1:
        os.kill(os.getpid(), signal.SIGINT)

progress.Lines.cell_started = interrupt
SUITE["suite"]["seeds"] = 3
try:
    xbench.run(SUITE)
except KeyboardInterrupt:
    print(xbench.load("mine").cells.status.fillna("none").tolist())
progress.Lines.cell_started = lambda observer, cell: None
print(xbench.run(SUITE).cells.status.tolist())
"""
    done = python.script(tmp_path, code)
    assert done.stdout.splitlines() == ["['done', 'none', 'none']", "['done', 'done', 'done']"]
    assert "1 of 3 cells already have results" in done.stderr


REUSE = f"""
import contextlib, io
from pathlib import Path
helper_file = Path("helper.py")
helper_file.write_text("def check(): return 1")
import helper
{PARTS}
def is_reused(model):
    xbench.register_model("tiny", model)
    told = io.StringIO()
    with contextlib.redirect_stderr(told):
        assert xbench.run(SUITE).cells.status.tolist() == ["done"]
    return {KEPT!r} in told.getvalue()

def make(width):
    def build(num_classes):
        return tiny(num_classes, width)
    return build

def helped(num_classes):
    helper.check()
    return tiny(num_classes)

exec("def without_source(num_classes): return tiny(num_classes)")

print("first:", is_reused(tiny), "again:", is_reused(tiny))
print("closure:", is_reused(make(2)), "equal:", is_reused(make(2)), "other:", is_reused(make(3)))
print("helped:", is_reused(helped), "again:", is_reused(helped))
helper_file.write_text("def check(): return 2")
print("edited:", is_reused(helped))
print("no source:", is_reused(without_source), "again:", is_reused(without_source))
"""


@pytest.mark.slow
def test_a_result_is_reused_while_the_source_and_its_values_are_the_same(python, tmp_path):
    assert python.script(tmp_path, REUSE).stdout.splitlines() == [
        "first: False again: True",
        "closure: False equal: True other: False",
        "helped: False again: True",
        "edited: False",
        "no source: False again: False",
    ]
