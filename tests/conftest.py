"""For every pytest file here: what tests share is importable, and a skipped test is a failure.

What a machine lacks is installed by `./heddle test`; a test that quietly does not run proves
nothing. HEDDLE_SKIP_OK=1 allows skips while developing.
"""
import os
import pathlib
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(folder) for folder in (HERE / "support", HERE / "chaos", HERE.parent / "scripts")]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.skipped and not hasattr(report, "wasxfail") and not os.environ.get("HEDDLE_SKIP_OK"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped: {report.longrepr}"
