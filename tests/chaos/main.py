#!/usr/bin/python3
"""./heddle chaos: what Heddle promises, on real processes, while everything that can break does.

See tests/chaos/README.md. Exits 0 if every invariant held, every nemesis bit and every planted fault was
found, 1 if not, 2 for a mistake in the options.
"""
import argparse
import asyncio
import contextlib
import hashlib
import os
import pathlib
import platform
import random
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
for _folder in (HERE, ROOT / "tests/support", ROOT / "scripts"):
    sys.path.insert(0, str(_folder))

import checker  # noqa: E402
import disks  # noqa: E402
import evidence  # noqa: E402
import plants  # noqa: E402
import report  # noqa: E402
from api_client import connect  # noqa: E402
from clients import Load  # noqa: E402
from harness import build_folder  # noqa: E402
from local.postgres import programs  # noqa: E402
from local.processes import LocalError, tail, tool  # noqa: E402
from stack import Stack  # noqa: E402
from storm import Storm  # noqa: E402

DISK_MB, DISK_MB_A_MINUTE = 512, 40
READ_SECONDS_MIN, READ_PART = 120.0, 1.0  # a deadline for reading everything back


def parse(arguments):
    parser = argparse.ArgumentParser(
        prog="./heddle chaos", description="Runs nginx, three engines, Postgres and a synchronous "
        "standby under load, breaks them one way after another, and checks that nothing that was "
        "promised was broken. Each nemesis strikes at least once, so a run takes more than a minute "
        "in any case.")
    parser.add_argument("--minutes", type=float, default=2.0, help="of load (2)")
    parser.add_argument("--seed", type=int, default=None,
                        help="of the order of strikes and of what clients do; printed (random)")
    parser.add_argument("--report", type=pathlib.Path, default=None, metavar="DIR",
                        help="where report.html, report.json and the logs go (STATE/chaos/TIME-SEED)")
    parser.add_argument("--state", type=pathlib.Path, default=ROOT / ".heddle", metavar="DIR",
                        help="the state folder (.heddle)")
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--disks", type=pathlib.Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not 0 < options.minutes <= 24 * 60:
        parser.error("--minutes must be above 0 and at most 1440")
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1 << 31)
    if options.report is None:
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        options.report = options.state / "chaos" / f"{stamp}-{options.seed}"
    options.report = options.report.absolute()
    return options


def say(line):
    print(f"[{time.strftime('%H:%M:%S')}] {line}", flush=True)


def first_line(command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                          check=False)
    return ((done.stdout or done.stderr).splitlines() or [""])[0].strip()


def versions():
    engine = build_folder() / "engine/app/heddle-engine"
    return {
        "heddle": first_line(["git", "-C", ROOT, "describe", "--always", "--dirty"]) or "no git",
        "engine": f"sha256 {hashlib.sha256(engine.read_bytes()).hexdigest()[:16]}",
        "nginx": first_line([tool("nginx", "nginx"), "-v"]),
        "postgres": first_line([programs() / "postgres", "--version"]),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.release()}, {os.cpu_count()} processors"}


def check_logs(stack, strikes):
    """Lines that must not be in any log, but for those of workers that were killed on purpose."""
    killed = {pid for strike in strikes if strike.kind == "worker"
              for pid in strike.evidence.get("old", [])}
    expected = tuple(f"worker process {pid} exited on signal 9" for pid in killed)
    try:
        stack.cluster.error_log_is_clean()
    except AssertionError as error:
        return [line for line in str(error).splitlines()
                if not any(text in line for text in expected)]
    return []


async def judge_by(stack, load, storm, seconds):
    """Waits until all runs have ended and reads everything back."""
    say("waiting until every run has ended")
    settled = await evidence.settle(stack)
    say(f"  after {settled:.1f} s; reading {len(load.record.operations)} operations back")
    async with connect(stack.url, total=60.0) as api:
        found = await asyncio.wait_for(
            evidence.gather(stack, api, load.record, [one.as_json() for one in storm.strikes]),
            max(READ_SECONDS_MIN, READ_PART * seconds))
    found.seconds = seconds
    found.exits = storm.exits
    found.not_resumed += storm.not_resumed
    return found


async def rage(stack, options):
    """The load and the storm; returns them and the evidence."""
    chance = random.Random(options.seed)
    begun = time.time()
    load = Load(stack.url, options.seed)
    storm = Storm(stack, load, chance, say)
    try:
        async with load:
            await storm.blow(options.minutes * 60)
    finally:
        await asyncio.to_thread(stack.network.heal)
    seconds = time.time() - begun
    return load, storm, begun, seconds, await judge_by(stack, load, storm, seconds)


def result_of(options, load, storm, begun, found):
    verdicts = checker.check(found)
    say("planting faults in the evidence: does the checker find them?")
    planted = [{"fault": fault, "invariant": name, "found": is_found}
               for fault, name, is_found in plants.find(found)]
    strikes = [{**strike, "bit": checker.bites(strike, found)} for strike in found.strikes]
    clients, failures = report.counts(load.record)
    return {
        "passed": all(each.passed for each in verdicts) and all(each["found"] for each in planted),
        "seed": options.seed, "minutes": options.minutes, "begun": begun,
        "seconds": found.seconds,
        "again": f"./heddle chaos --minutes {options.minutes:g} --seed {options.seed}",
        "versions": versions(), "invariants": [each.as_json() for each in verdicts],
        "strikes": strikes, "planted": planted, "clients": clients, "failures": failures,
        "series": report.series(load.record, begun, begun + found.seconds)}


def summary(result):
    lines = [f"{'invariant':<24} {'looked at':>10} {'wrong':>6}"]
    for each in result["invariants"]:
        lines.append(f"{each['name']:<24} {each['looked_at']:>10} {each['wrong']:>6}  "
                     f"{'ok' if each['passed'] else 'BROKEN'}")
        if not each["passed"]:
            lines += [f"    {example[:300]}" for example in each["examples"][:5]]
    bitten = [strike for strike in result["strikes"] if strike["bit"]]
    found = [each for each in result["planted"] if each["found"]]
    lines += ["", f"{len(bitten)} of {len(result['strikes'])} strikes had an effect, "
              f"{len(found)} of {len(result['planted'])} planted faults were found"]
    lines += [f"    NOT FOUND: {each['fault']} ({each['invariant']})"
              for each in result["planted"] if not each["found"]]
    return "\n".join(lines)


def inside(options):
    """The run itself, with two disks that can be full."""
    options.report.mkdir(parents=True, exist_ok=True)
    logs = options.report / "logs"
    logs.mkdir(exist_ok=True)
    say(f"seed {options.seed}; starting nginx, 3 engines, Postgres and a synchronous standby")
    with Stack(logs, disks.disks_in(options.disks)) as stack:
        say(f"storm of {options.minutes:g} minutes")
        load, storm, begun, _, found = asyncio.run(rage(stack, options))
        found.exits += stack.end_gently()
        found.logs = check_logs(stack, storm.strikes)
    result = result_of(options, load, storm, begun, found)
    page = report.write(options.report, result, load.record.operations)
    print(f"\n{summary(result)}\n\nreport: {page}\n        {page.with_suffix('.json')}")
    print("passed" if result["passed"] else f"FAILED; again: {result['again']}", flush=True)
    return 0 if result["passed"] else 1


def main(arguments):
    options = parse(arguments)
    if options.check:
        return 0
    if options.disks is not None:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        return inside(options)
    size = round(DISK_MB + DISK_MB_A_MINUTE * options.minutes)
    if disks.free_mb() < size:
        raise LocalError(f"the disks are kept in memory, at most {size} MB each; there are "
                         f"{disks.free_mb()} MB", "Fewer --minutes need less.")
    given = [f"--minutes={options.minutes}", f"--seed={options.seed}",
             f"--report={options.report}", "--disks"]
    return disks.run_with_disks([sys.executable, "-B", "-u", __file__, *given], size)


if __name__ == "__main__":
    try:
        with contextlib.suppress(KeyboardInterrupt):
            sys.exit(main(sys.argv[1:]))
        sys.exit(130)
    except LocalError as error:
        print(f"heddle: error: {error}\n        {error.what_to_do}", file=sys.stderr)
        print("\n".join(f"        {line}" for line in tail(error.log)), file=sys.stderr)
        sys.exit(1)
