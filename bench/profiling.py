"""Where the processors' time goes while a benchmark runs: one `perf record` per group of processes.

Sampling costs a few percent, so nothing that is measured under it enters the figures.
"""
import re
import signal
import subprocess

import stack

HERTZ = 1999


def record(folder, label, groups, action, callers=False):
    """Calls `action` while perf samples each group {name: [pid, …]}; leaves in `folder`, per group,
    LABEL-NAME.txt (time by function) and, with `callers`, LABEL-NAME.callers.txt (by call chain)."""
    folder.mkdir(parents=True, exist_ok=True)
    chains = ["--call-graph", "dwarf,16384", "-F", "299"] if callers else ["-F", str(HERTZ)]
    running = []
    for name, pids in groups.items():
        data = folder / f"{label}-{name}.data"
        command = [stack.tool("perf"), "record", "-q", "-e", "cpu-clock", *chains, "-o", str(data),
                   "-p", ",".join(map(str, pids))]
        running.append((name, data, subprocess.Popen(command, stderr=subprocess.DEVNULL)))
    try:
        return action()
    finally:
        for name, data, process in running:
            process.send_signal(signal.SIGINT)
            process.wait()
            _report(folder / f"{label}-{name}", data, callers)
            data.unlink(missing_ok=True)


def _report(base, data, callers):
    def write(suffix, *options):
        done = subprocess.run([stack.tool("perf"), "report", "--stdio", "-q", "-i", str(data),
                               *options], capture_output=True, text=True)
        # perf pads every line to its longest symbol and ends it with columns that stay empty here.
        lines = [re.sub(r"(\s+-)*\s*$", "", line)[:160] for line in done.stdout.splitlines()]
        base.with_name(base.name + suffix).write_text("\n".join(lines) + "\n")

    write(".txt", "--no-children", "-g", "none", "--sort", "dso,symbol", "--percent-limit", "0.2")
    write(".threads.txt", "--no-children", "-g", "none", "--sort", "comm,dso")
    if callers:
        write(".callers.txt", "--children", "-g", "none", "--sort", "symbol", "--percent-limit",
              "1")
