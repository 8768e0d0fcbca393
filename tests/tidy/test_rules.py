"""The checks of scripts/ find what they are for, and say nothing of what is in order."""
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import junit  # noqa: E402
import tidy  # noqa: E402

LAYERS = {"engine/base": set(), "engine/graph": {"engine/base"}, "engine/app": {"*"},
          "shared/wire": set()}


@pytest.mark.parametrize("path, line, wrong", [
    ("engine/base/x.cpp", '#include "engine/graph/x.hpp"', "may not include"),
    ("engine/graph/x.cpp", '#include "engine/base/x.hpp"', None),
    ("engine/app/x.cpp", '#include "engine/graph/x.hpp"', None),
    ("engine/base/x.cpp", '#include "../x.hpp"', "repository root"),
    ("engine/graph/x.cpp", "#include <zmq.hpp>", "belongs to"),
    ("engine/graph/x.cpp", "#include <libpq-fe.h>", "belongs to"),
    ("engine/storage/postgres/x.cpp", "#include <libpq-fe.h>", None),
    ("engine/graph/x.cpp", "#include <vector>", None),
    ("tests/unit/x.cpp", "#include <libpq-fe.h>", None),
])
def test_includes(path, line, wrong):
    found = list(tidy.check_includes(path, 7, line, LAYERS))
    assert bool(found) == bool(wrong) and all(wrong in text for text in found)


@pytest.mark.parametrize("line, wrong", [
    ("    std::this_thread::sleep_for(1s);", True),
    ("    auto x = new Thing(1);", True),
    ("    auto x = new Thing(1);  // NOLINT: the library owns it", False),
    ("    // a new Thing(1) would be wrong here", False),
    ('    auto text = "delete x and printf(";', False),
    ("    std::shared_ptr<const Thing> x;", False),
    ("    std::shared_ptr<Thing> x;", True),
    ("using namespace std::chrono_literals;", False),
    ("using namespace heddle;", True),
    ("    // TO" "DO: later", True),
])
def test_banned_words(line, wrong):
    assert bool(list(tidy.check_banned("engine/graph/x.cpp", [line]))) == wrong


def test_shapes():
    function = ["void f() {", *["    g();"] * 69, "}"]
    assert any("function of 71" in text for text in tidy.check_shape("engine/x.cpp", function))
    assert not list(tidy.check_shape("engine/x.cpp", function[:1] + function[2:]))
    signature = ["void f(int a,", "       int b)"]
    long = [signature[0], signature[1] + " {", *function[1:]]
    assert any("function of 72" in text for text in tidy.check_shape("engine/x.cpp", long))
    declared = [signature[0], signature[1] + ";", "class C {", *["    int i;"] * 90, "};"]
    assert not list(tidy.check_shape("engine/x.hpp", declared))
    assert list(tidy.check_shape("engine/x.cpp", ["x" * 101]))
    assert list(tidy.check_shape("engine/x.cpp", ["int x; "]))
    assert list(tidy.check_script("scripts/x.py", ["\tx"]))
    assert list(tidy.check_private("docs/x.md", ["see /ro" "ot/x"]))


@pytest.mark.parametrize("cases, well", [
    ("", False),
    ('<testcase name="a" status="run"/>', True),
    ('<testcase name="a" status="run"/><testcase name="b" status="fail"/>', False),
    ('<testcase name="a" status="run"/><testcase name="b" status="notrun"/>', False),
    ('<testcase name="a" status="disabled"/>', False),
])
def test_a_report_of_ctest_is_judged(tmp_path, cases, well):
    report = tmp_path / "report.xml"
    report.write_text(f"<testsuite>{cases}</testsuite>")
    assert junit.verdict(junit.cases_of(report))[0] == well
    assert junit.verdict(junit.cases_of(tmp_path / "none.xml"))[0] is False


def test_how_failed_tests_ended_is_told(tmp_path):
    report = tmp_path / "report.xml"
    output = "\n".join(f"line {i}" for i in range(junit.OUTPUT_LINES + 1))
    report.write_text('<testsuite><testcase name="good" status="run"/>'
                      f'<testcase name="bad" status="fail"><system-out>{output}</system-out>'
                      "</testcase></testsuite>")
    told = list(junit.failures(junit.cases_of(report)))
    assert told[0] == "--- bad" and told[1] == "line 1" and told[-1].startswith("line ")
    assert len(told) == junit.OUTPUT_LINES + 1


def packages(tmp_path, *arguments, rows):
    table = tmp_path / "packages.txt"
    table.write_text(rows)
    return subprocess.run(["sh", ROOT / "scripts/packages.sh", *arguments], text=True,
                          capture_output=True, check=False, env={
                              **os.environ, "HEDDLE_PACKAGES": str(table), "HEDDLE_DRY_RUN": "1"})


def test_packages_are_named_before_they_are_installed(tmp_path):
    rows = "# comment\nrun no-such-package-of-anybody\nrun dpkg\nrun other sh\ntest more\n"
    done = packages(tmp_path, "missing", "run", rows=rows)
    assert done.stdout.split() == ["no-such-package-of-anybody"]
    done = packages(tmp_path, "install", "run", rows=rows)
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    assert lines[0] == "heddle: missing packages: no-such-package-of-anybody"
    updates = [line for line in lines if "would run" in line and " update" in line]
    assert len(updates) == 1
    assert not packages(tmp_path, "install", "test", rows="test dpkg\n").stderr


def test_an_unknown_group_of_packages_fails(tmp_path):
    assert packages(tmp_path, "list", "nothing", rows="run dpkg\n").returncode != 0
