"""Medians, ratios and tables, apart from what is run."""
import re
import statistics

_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6}


class WrkError(Exception):
    """wrk said that answers were wrong or missing, or something that is not understood."""


def _microseconds(text):
    match = re.fullmatch(r"([0-9.]+)(us|ms|s|m)", text)
    if match is None:
        raise WrkError(f"not a time: {text!r}")
    return float(match[1]) * _UNITS[match[2]]


def parse_wrk(text):
    """{"rps", "p50_us", "p90_us", "p99_us", "requests"} from what `wrk --latency` prints."""
    for fault in ("Socket errors", "Non-2xx"):
        line = re.search(rf"^.*{fault}.*$", text, re.M)
        if line:
            raise WrkError(line[0].strip())
    result = {}
    for percent in (50, 90, 99):
        match = re.search(rf"^\s+{percent}%\s+(\S+)$", text, re.M)
        if match is None:
            raise WrkError(f"no {percent}% line in:\n{text}")
        result[f"p{percent}_us"] = _microseconds(match[1])
    result["rps"] = float(re.search(r"^Requests/sec:\s+([0-9.]+)$", text, re.M)[1])
    result["requests"] = int(re.search(r"^\s*(\d+) requests in", text, re.M)[1])
    return result


def parse_heddle_load(result):
    """The same from heddle-load's JSON."""
    return {"rps": result["rps"], "requests": result["requests"],
            "generator_cpu": result["cpu_seconds"] / max(result["seconds"], 1e-9),
            **{f"{name}_us": result["latency_us"][name] for name in ("p50", "p90", "p99")}}


def median_of(rounds):
    """The median of each figure over the rounds, and how far the rounds lie apart:
    `rps_spread` = (max - min) / median."""
    figures = {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
    rates = [r["rps"] for r in rounds]
    figures["rps_spread"] = (max(rates) - min(rates)) / max(figures["rps"], 1e-9)
    return figures


def edge_ratios(cases, target="heddle_pass", peer="proxy_pass", suffix=""):
    """rps and p50 of the target over the peer's, for each number of connections."""
    found = {(case["target"], case["connections"]): case for case in cases}
    ratios = {}
    for connections in sorted({case["connections"] for case in cases}, reverse=True):
        ours, theirs = found[target, connections], found[peer, connections]
        ratios[f"rps_{connections}{suffix}"] = ours["rps"] / theirs["rps"]
        ratios[f"p50_{connections}{suffix}"] = ours["p50_us"] / theirs["p50_us"]
    return ratios


def growth(series, turns=10):
    """How much more the last turns cost than the first ones: median over median."""
    first, last = statistics.median(series[:turns]), statistics.median(series[-turns:])
    if first <= 0:
        raise ValueError(f"the first {turns} turns cost nothing: the meter does not measure them")
    return last / first


def table(headings, rows):
    """Columns lined up: texts to the left, numbers to the right."""
    cells = [headings] + [[cell if isinstance(cell, str) else number(cell) for cell in row]
                          for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(headings))]
    lefts = [all(isinstance(row[i], str) for row in rows) for i in range(len(headings))]
    lines = ["  ".join(cell.ljust(width) if left else cell.rjust(width)
                       for cell, width, left in zip(line, widths, lefts)).rstrip()
             for line in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths)] + lines[1:])


def number(value):
    if value is None:
        return "-"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def ratio_lines(ratios, bounds):
    """One line per ratio; `bounds` gives ("<=" or ">=", value) for those that have a target."""
    for name, value in ratios.items():
        if name not in bounds:
            yield f"  {name:34} {value:7.3f}"
            continue
        sign, bound = bounds[name]
        met = value <= bound if sign == "<=" else value >= bound
        yield f"  {name:34} {value:7.3f}   target {sign} {bound}: {'met' if met else 'MISSED'}"
