#!/usr/bin/env python3
"""The benchmarks of Heddle; `./heddle bench` calls this.

usage: run.py [edge] [turn] [scale] [--json FILE] [--rounds N] [--quick] …   (--help for all)

HEDDLE_BUILD names the folder of a release build; without it, build/release. See bench/README.md.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

import edge
import peer_packages
import peers
import scale
import stack
import turn

BENCHMARKS = {module.NAME: module for module in (edge, turn, scale)}
ROOT = pathlib.Path(__file__).resolve().parent.parent


def parse_settings():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="*", metavar="NAME",
                        help=f"which: {', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--json", metavar="FILE", help="where the figures go")
    parser.add_argument("--rounds", type=int, help="how often each case is measured (5; turn 3)")
    parser.add_argument("--seconds", type=int, default=3, help="length of one measurement (3)")
    parser.add_argument("--quick", action="store_true", help="one short round: does it run?")
    parser.add_argument("--engines", type=int, default=2, help="turn: engine processes (2)")
    parser.add_argument("--workers", type=int, default=2, help="workers of the front nginx (2)")
    parser.add_argument("--stores", default="memory,sqlite,postgres", help="turn: which stores")
    parser.add_argument("--agents", default="echo,chain5", help="turn: which agents")
    parser.add_argument("--in-flight", default="1,8,64", help="turn: how many at once")
    parser.add_argument("--peers", action="store_true",
                        help="turn: LangGraph.js and its server beside Heddle, from npm")
    parser.add_argument("--profile", metavar="FOLDER", type=pathlib.Path,
                        help="afterwards sample where the time goes (needs perf: linux-perf)")
    parser.add_argument("--callers", action="store_true", help="--profile: call chains as well")
    settings = parser.parse_args()
    for name in settings.name:
        if name not in BENCHMARKS:
            parser.error(f"no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    for name in ("engines", "workers", "seconds", "rounds"):
        if getattr(settings, name) is not None and getattr(settings, name) < 1:
            parser.error(f"--{name} must be at least 1")
    settings.stores = settings.stores.split(",")
    settings.agents = settings.agents.split(",")
    settings.in_flight = [int(number) for number in settings.in_flight.split(",")]
    settings.edge_connections = [1, 64]
    settings.long_threads = 15
    if settings.quick:
        settings.rounds, settings.seconds, settings.long_threads = 1, 1, 1
    settings.root = ROOT
    fault = peers.check_settings(settings) if settings.peers else None
    if fault:
        parser.error(fault)
    settings.build = pathlib.Path(os.environ.get("HEDDLE_BUILD", ROOT / "build/release")).resolve()
    settings.module = settings.build / "ngx_module/ngx_http_heddle_module.so"
    return settings


def machine():
    """What the figures depend on, for the report."""
    model = next((line.split(":", 1)[1].strip()
                  for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), "unknown processor")
    version = subprocess.run([stack.tool("nginx"), "-v"], capture_output=True, text=True)
    with stack.Stack() as here:
        kind = subprocess.run(["stat", "-f", "-c", "%T", here.folder], capture_output=True,
                              text=True).stdout.strip()
        return {"processor": model, "cpus": os.cpu_count(), "kernel": os.uname().release,
                "nginx": version.stderr.strip().split("/")[-1], "filesystem": kind,
                "fdatasync_us": round(fdatasync_us(here.folder / "probe"), 1)}


def fdatasync_us(path, times=50):
    """The median time of writing 8 KB and making it durable: durable figures rest on it."""
    taken = []
    with open(path, "wb", buffering=0) as file:
        for _ in range(times):
            started = time.perf_counter()
            file.write(b"x" * 8192)
            os.fdatasync(file.fileno())
            taken.append((time.perf_counter() - started) * 1e6)
    return sorted(taken)[times // 2]


def main():
    settings = parse_settings()
    settings.peers = peer_packages.Packages(ROOT) if settings.peers else None
    here = machine()
    print(", ".join(f"{name} {value}" for name, value in here.items()))
    if here["filesystem"] in ("tmpfs", "ramfs"):
        print("warning: the temporary folder is in memory, so nothing measured here is durable; "
              "set TMPDIR to a folder on a disk")
    if here["cpus"] > 1 and os.getloadavg()[0] > 0.5 * here["cpus"]:
        print(f"warning: the machine is busy already (load {os.getloadavg()[0]:.1f}); "
              "the figures will be too low")
    results, given = {}, settings.rounds
    for name in settings.name or BENCHMARKS:
        settings.rounds = given or (5 if name == edge.NAME else 3)
        print(f"\n== {name}: {settings.rounds} rounds, {settings.seconds} s each, "
              f"{settings.workers} nginx workers", flush=True)
        results[name] = BENCHMARKS[name].run(settings)
        results[name]["machine"] = here
        if settings.json:
            pathlib.Path(settings.json).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except (stack.BenchError, ValueError) as fault:
        sys.exit(f"bench: {fault}")
    except KeyboardInterrupt:
        sys.exit("bench: interrupted")
