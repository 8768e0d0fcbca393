"""The report of a run: report.json, and report.html that needs nothing else to be read."""
import collections
import dataclasses
import html
import json
import math
import time

from nemeses import ALL

WIDTH, LEFT = 1160, 110
ROW, CHART = 16, 110
STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1280px; color: #1b1f24;
       padding: 0 1em }
h1 { font-size: 1.5em; margin-bottom: 0 } h2 { font-size: 1.15em; margin-top: 2em }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: 3px 10px 3px 0;
       border-bottom: 1px solid #e3e6ea; vertical-align: top } td.n, th.n { text-align: right }
.good { color: #116329 } .bad { color: #b3261e; font-weight: 600 } .dim { color: #656d76 }
pre { background: #f6f8fa; padding: .6em; overflow-x: auto; white-space: pre-wrap; font-size: 12px }
svg { width: 100%; height: auto; font: 11px system-ui, sans-serif }
"""
COLOURS = {"kill": "#b3261e", "pause": "#8250df", "restart": "#bf8700", "reload": "#0969da",
           "worker": "#0550ae", "failover": "#cf222e", "crash": "#a40e26", "disk-full": "#6e4a1e"}


def series(record, begun, ended):
    """One entry a second: operations acknowledged, requests that failed, longest wait."""
    rows = [{"second": second, "acknowledged": 0, "failed": 0, "longest": 0.0}
            for second in range(math.ceil(ended - begun) + 1)]

    def row(moment):
        return rows[min(max(int(moment - begun), 0), len(rows) - 1)]
    for each in record.operations:
        if each.outcome == "acknowledged":
            entry = row(each.ended)
            entry["acknowledged"] += 1
            entry["longest"] = round(max(entry["longest"], each.ended - each.begun), 3)
    for moment, _ in record.failures:
        row(moment)["failed"] += 1
    return rows


def counts(record):
    """Outcomes by kind of client, and reasons why requests failed."""
    by_kind = collections.defaultdict(collections.Counter)
    for each in record.operations:
        by_kind[each.kind][each.outcome] += 1
        by_kind[each.kind]["sent again"] += each.sends > 1
        by_kind[each.kind]["streams cut"] += each.cuts
    return {kind: dict(counter) for kind, counter in by_kind.items()}, \
        dict(collections.Counter(reason for _, reason in record.failures))


def write(folder, result, operations):
    """operations.jsonl holds what each client did, for whoever follows a fault up."""
    with open(folder / "operations.jsonl", "w") as file:
        file.writelines(json.dumps(dataclasses.asdict(each)) + "\n" for each in operations)
    (folder / "report.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / "report.html").write_text(page(result))
    return folder / "report.html"


def text(value):
    return html.escape(str(value))


def table(head, rows, numbers=()):
    """Cells are HTML already; columns in `numbers` are set to the right."""
    def line(cells, tag):
        return "<tr>" + "".join(f"<{tag}{' class=n' if place in numbers else ''}>{cell}</{tag}>"
                                for place, cell in enumerate(cells)) + "</tr>"
    return "<table>" + line(head, "th") + "".join(line(row, "td") for row in rows) + "</table>"


def mark(is_good, good="holds", bad="BROKEN"):
    return f'<span class="{"good" if is_good else "bad"}">{good if is_good else bad}</span>'


def timeline(result):
    rows, begun = result["series"], result["begun"]
    seconds = max(len(rows), 1)
    width = WIDTH - LEFT - 10

    def x(second):
        return LEFT + width * second / seconds
    parts, top = [], 10
    for kind in ALL:
        parts.append(f'<text x="{LEFT - 6}" y="{top + 11}" text-anchor="end">{kind.kind}</text>'
                     f'<line x1="{LEFT}" x2="{x(seconds)}" y1="{top + ROW - 1}" y2="{top + ROW - 1}" '
                     'stroke="#eaeef2"/>')
        for strike in result["strikes"]:
            if strike["kind"] == kind.kind:
                left, right = (x(strike[name] - begun) for name in ("begun", "mended"))
                parts.append(
                    f'<rect x="{left:.1f}" y="{top + 2}" width="{max(right - left, 2):.1f}" '
                    f'height="{ROW - 5}" rx="2" fill="{COLOURS.get(kind.kind, "#57606a")}" '
                    f'opacity="{0.9 if strike["bit"] else 0.3}"><title>'
                    f'{text(strike["target"])}: {text(strike["bit"] or "no effect")}'
                    "</title></rect>")
        top += ROW
    for name, colour in (("acknowledged", "#2da44e"), ("failed", "#cf222e"), ("longest", "#8250df")):
        top += 18
        highest = max([row[name] for row in rows] + [1])
        unit = "s" if name == "longest" else "/s"
        parts.append(f'<text x="{LEFT - 6}" y="{top + 12}" text-anchor="end">{name}</text>'
                     f'<text x="{LEFT - 6}" y="{top + 26}" text-anchor="end" fill="#656d76">'
                     f'to {highest:g} {unit}</text>'
                     f'<line x1="{LEFT}" x2="{x(seconds)}" y1="{top + CHART}" y2="{top + CHART}" '
                     'stroke="#8c959f"/>')
        step = width / seconds
        parts += [f'<rect x="{x(row["second"]):.1f}" width="{max(step - 0.5, 0.5):.1f}" '
                  f'y="{top + CHART - CHART * row[name] / highest:.1f}" '
                  f'height="{CHART * row[name] / highest:.1f}" fill="{colour}"><title>'
                  f'{row["second"]} s: {row[name]:g}</title></rect>' for row in rows if row[name]]
        top += CHART
    every = next(step for step in (5, 10, 30, 60, 300, 600, 3600) if seconds / step <= 26)
    parts += [f'<line x1="{x(second):.1f}" x2="{x(second):.1f}" y1="10" y2="{top}" stroke="#8c959f" '
              f'opacity="0.25"/><text x="{x(second):.1f}" y="{top + 16}" text-anchor="middle">'
              f'{second} s</text>' for second in range(0, seconds + 1, every)]
    return f'<svg viewBox="0 0 {WIDTH} {top + 24}">{"".join(parts)}</svg>'


def strikes_table(result):
    return table(
        ["at", "nemesis", "target", "lasted", "what it came to", "served again after"],
        [[f'{strike["begun"] - result["begun"]:.1f} s', text(strike["kind"]), text(strike["target"]),
          f'{strike["mended"] - strike["begun"]:.1f} s',
          text(strike["bit"]) or '<span class="dim">no effect seen</span>',
          f'{strike["resumed"]} s' if strike["resumed"] is not None
          else '<span class="bad">not</span>'] for strike in result["strikes"]], numbers=(0, 3, 5))


def page(result):
    verdicts = result["invariants"]
    broken = [each for each in verdicts if not each["passed"]]
    planted = result["planted"]
    clients = table(
        ["clients", *(columns := ["acknowledged", "failed", "unknown", "refused", "sent again",
                                  "streams cut"])],
        [[kind, *(counter.get(name, 0) for name in columns)]
         for kind, counter in result["clients"].items()], numbers=range(1, 7))
    began = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(result["begun"]))
    return f"""<!doctype html><html lang="en"><meta charset="utf-8">
<title>Heddle chaos, seed {result["seed"]}</title><style>{STYLE}</style>
<h1>Heddle chaos: {mark(result["passed"], "passed", "FAILED")}</h1>
<p class="dim">{began} · {result["seconds"]:.0f} s of load · seed {result["seed"]} ·
again: <code>{text(result["again"])}</code></p>
<h2>Timeline</h2>{timeline(result)}
<p class="dim">Pale: a strike without an effect. Failed: requests without an answer, most of them sent
again with the same Idempotency-Key. Longest: the slowest operation that ended in that second.</p>
<h2>Invariants</h2>{table(["", "invariant", "looked at", "wrong"],
    [[mark(each["passed"]), f'{text(each["claim"])} <span class="dim">{each["name"]}</span>',
      each["looked_at"], each["wrong"]] for each in verdicts], numbers=(2, 3))}
{"".join(f"<h3>{each['name']}</h3><pre>{text(chr(10).join(each['examples']))}</pre>"
         for each in broken)}
<h2>Nemeses</h2>{strikes_table(result)}
<h2>Clients</h2>{clients}
<p>Requests without an answer: {text(", ".join(f"{reason} {count}" for reason, count
                                            in result["failures"].items())) or "none"}.</p>
<h2>Does the checker see?</h2><p>Faults put into this run's evidence on purpose, one at a time.</p>
{table(["", "fault", "to be found by"],
       [[mark(each["found"], "found", "NOT FOUND"), text(each["fault"]), each["invariant"]]
        for each in planted])}
<h2>Versions</h2>{table(["", ""], [[text(name), text(value)]
                                   for name, value in result["versions"].items()])}
</html>
"""
