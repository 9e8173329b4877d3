"""Run the tests in tests/gpu, which are skipped without a CUDA device."""

from __future__ import annotations

import subprocess
import sys
from xml.etree import ElementTree

from tests.gpu.checking import FOLDER, HERE, ON_CUDA, check, figure, run_step, skip


def tests() -> None:
    if not ON_CUDA:
        skip("the tests in tests/gpu need a CUDA device")
    report = FOLDER / "tests.xml"
    # The project's own options need plugins (pytest-benchmark) that may be absent.
    options = ["-o", "addopts=", "-o", "timeout=60", "-p", "no:cacheprovider", "-v", "-rs", "--durations=10"]
    done = subprocess.run([sys.executable, "-m", "pytest", HERE, *options, f"--junitxml={report}"])
    cases = list(ElementTree.parse(report).iter("testcase"))
    outcomes = {kind: [case for case in cases if case.find(kind) is not None] for kind in _UNUSUAL}
    passed = len(cases) - len({id(case) for found in outcomes.values() for case in found})
    figure("passed", passed)
    for kind, found in outcomes.items():
        figure(kind, [case.get("name") for case in found])
    check(done.returncode == 0, f"pytest exited with {done.returncode}")
    check(passed > 0, "every test was skipped")  # some need two devices, or a whole one


_UNUSUAL = ("failure", "error", "skipped")

if __name__ == "__main__":
    run_step(tests)
