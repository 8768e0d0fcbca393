"""One round of `./heddle chaos`: each nemesis once. HEDDLE_SEED makes it happen again."""
import json
import os
import pathlib
import random
import subprocess

import pytest

from nemeses import ALL

HERE = pathlib.Path(__file__).resolve().parent
SEED = int(os.environ.get("HEDDLE_SEED", str(random.randrange(1 << 30))))
SECONDS = 580


def chaos(*options):
    return subprocess.run(["/usr/bin/python3", "-B", "-u", HERE / "main.py", *options],
                          capture_output=True, text=True, timeout=SECONDS, check=False)


def test_one_round(tmp_path):
    print(f"HEDDLE_SEED={SEED}")
    done = chaos("--minutes", "0.5", "--seed", str(SEED), "--report", str(tmp_path / "report"))
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    result = json.loads((tmp_path / "report/report.json").read_text())
    assert result["passed"] and result["seed"] == SEED
    assert {strike["kind"] for strike in result["strikes"]} == {kind.kind for kind in ALL}
    page = (tmp_path / "report/report.html").read_text()
    assert page.count("<svg") == 1 and "http" not in page.replace("HTTP", "")


@pytest.mark.parametrize("option", [["--minutes", "0"], ["--minutes", "x"], ["--seed", "x"], ["-x"]])
def test_a_mistake_in_the_options_is_told_at_once(option):
    done = chaos("--check", *option)
    assert done.returncode == 2 and "usage: ./heddle chaos" in done.stderr
