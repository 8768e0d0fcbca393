#!/usr/bin/python3
"""Checks properties of the source itself; CTest runs it as tidy/source.

  --layers   only the include rules

Rules; each finding is one line, path:line: what is wrong
  layers     #include "x/..." only as engine/layers.txt allows; no "../"
  libraries  a third-party header only in the directories that own it
  shape      C++: lines <= 100 columns, functions <= 70 lines, files <= 600 lines
             Python, shell: no tabs, no trailing blanks, lines <= 110 columns; Python files <= 600
  banned     a word and what to use instead
  private    no path of the machine that a file was written on
  adr        docs/adr/NNNN-*.md numbered without gaps, each with a Status line
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LINE_MAX, FUNCTION_MAX, FILE_MAX, SCRIPT_LINE_MAX = 100, 70, 600, 110
CPP = (".hpp", ".cpp", ".h", ".c")
CPP_FOLDERS = ("engine", "shared", "ngx_module", "tests", "bench")

# third-party header prefix -> the only directories that may include it (tests and bench may all)
OWNERS = {
    "zmq": (),  # the product speaks ZMTP itself (ADR 0010); libzmq is its peer in tests
    "msgpack": ("shared/wire",),
    "libpq-fe.h": ("engine/storage/postgres",),
    "sqlite3.h": ("engine/storage/sqlite",),
    "curl/": ("engine/net",),
    "lua": ("engine/nodes",),
    "kainjow/": ("engine/nodes",),
    "yaml-cpp/": ("engine/yaml", "engine/nodes", "engine/app"),
    "spdlog/": ("engine/observe",),
    "CLI/": ("engine/app",),
    "asio": ("engine/",),  # engine/base/task.hpp is how the other layers use it
    "nlohmann/": ("engine/base",),
    "ngx_": ("ngx_module",),
}
BANNED = [  # (pattern, use instead, directories exempt)
    (r"\bstd::this_thread::sleep_for\b", "a timer on Clock", ()),
    (r"\b(?:system|steady)_clock::now\b", "engine/base/clock.hpp",
     ("engine/base", "tests", "bench")),
    (r"\bstd::(?:cout|cerr)\b|\bprintf\(", "engine/observe/log.hpp", ("tests", "bench")),
    (r"\bnew [A-Za-z_:]+[({]|\bdelete \w", "std::make_unique", ("ngx_module",)),
    (r"\busing namespace (?!std::(?:\w+::)*\w*literals;)", "qualified names", ()),
    (r"\bshared_ptr<(?!const)", "unique_ptr, or shared_ptr<const T>", ("tests",)),
    (r"\bdetach\(\)", "join in the owner's destructor", ()),
    (r"FIXME|\bXXX\b|DO NOT MERGE|TODO(?!\(#\d+\))", "finish it, or TODO(#123) with its issue",
     ("scripts",)),
]
# Texts of the repository speak of nothing that only one machine has.
PRIVATE = re.compile(r"/work/|/tmp/w\b|/root/|/home/\w|shared/(?:DESIGN|STYLE|SCENARIOS|specs|examples)"
                     r"|\b(?:DESIGN|STYLE|SCENARIOS|BRIEF)\.md\b")
PRIVATE_EXEMPT = ("scripts/tidy.py",)
TEXTS = (".md", ".txt", ".py", ".sh", ".cmake", ".yaml", ".yml", ".json", ".js", ".mjs", ".lua",
         ".example", ".cddl") + CPP


def read_layers():
    allowed = {}
    for row in (ROOT / "engine/layers.txt").read_text().splitlines():
        if row.strip() and not row.startswith("#"):
            name, _level, *deps = row.split()
            allowed[name] = set(deps)
    return allowed


def layer_of(path, layers):
    return max((name for name in layers if path.startswith(name + "/")), key=len, default=None)


def check_includes(path, number, line, layers):
    match = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
    if not match:
        return
    target = match[2]
    if target.startswith("."):
        yield f"{path}:{number}: include from the repository root, not {target}"
    own, other = layer_of(path, layers), layer_of(target, layers)
    if own and other and own != other and "*" not in layers[own] and other not in layers[own]:
        may = ", ".join(sorted(layers[own])) or "nothing else"
        yield f"{path}:{number}: {own} may not include {other} (it may include: {may})"
    for prefix, owners in OWNERS.items():
        foreign = not path.startswith(owners + ("tests/", "bench/"))
        if match[1] == "<" and target.startswith(prefix) and foreign:
            yield f"{path}:{number}: <{target}> belongs to {' or '.join(owners)}"


def check_shape(path, lines):
    if len(lines) > FILE_MAX:
        yield f"{path}:1: {len(lines)} lines, at most {FILE_MAX}"
    start, in_signature = None, False
    for number, line in enumerate(lines, 1):
        if len(line) > LINE_MAX and "://" not in line and 'R"' not in line:
            yield f"{path}:{number}: {len(line)} columns, at most {LINE_MAX}"
        if line != line.rstrip() or "\t" in line:
            yield f"{path}:{number}: tab or trailing blank"
        # a definition starts in column 0 and ends with a brace in column 0 (clang-format)
        if re.match(r"^[A-Za-z~].*[({,]$", line) and not re.match(
                r"^(namespace|class|struct|enum|union|extern|template|using)\b|^const \S+ \w+{$",
                line):
            start = start or number
        elif line.startswith("}") and start:
            if number - start + 1 > FUNCTION_MAX:
                yield (f"{path}:{start}: function of {number - start + 1} lines, "
                       f"at most {FUNCTION_MAX}")
            start = None
        elif re.match(r"^[A-Za-z~].*;$", line) or (in_signature and line.endswith(";")):
            start = None  # a declaration
        in_signature = (start == number or in_signature) and not line.endswith("{")


def check_banned(path, lines):
    previous = ""
    for number, line in enumerate(lines, 1):
        excused = "NOLINT" in line + previous
        previous = line
        code = re.sub(r'"(?:[^"\\]|\\.)*"', '""', line.split("//", 1)[0])
        for pattern, instead, exempt in BANNED:
            text = line if "FIXME" in pattern else code
            if re.search(pattern, text) and not excused and not path.startswith(exempt or "\0"):
                yield f"{path}:{number}: banned here; use {instead}"


def check_script(path, lines):
    if path.endswith(".py") and len(lines) > FILE_MAX:
        yield f"{path}:1: {len(lines)} lines, at most {FILE_MAX}"
    for number, line in enumerate(lines, 1):
        if len(line) > SCRIPT_LINE_MAX and "://" not in line:
            yield f"{path}:{number}: {len(line)} columns, at most {SCRIPT_LINE_MAX}"
        if "\t" in line or line != line.rstrip():
            yield f"{path}:{number}: tab or trailing blank"


def check_private(path, lines):
    for number, line in enumerate(lines, 1):
        found = PRIVATE.search(line)
        if found:
            yield f"{path}:{number}: {found[0]!r} exists only where this was written"


def check_adrs():
    found = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
    for expected, path in enumerate(found, 1):
        name = path.relative_to(ROOT)
        if not path.name.startswith(f"{expected:04d}-"):
            yield f"{name}:1: expected number {expected:04d}"
        if not re.search(r"^Status: (proposed|accepted|superseded by \d{4})", path.read_text(), re.M):
            yield f"{name}:1: no Status line"


def repository_files():
    """What git knows or would add; without git (an unpacked archive), what lies here."""
    done = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    if done.returncode == 0:
        names = done.stdout.splitlines()
    else:
        names = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*")
                 if not {"build", ".heddle", ".git", "node_modules"} & set(path.parts)]
    return [name for name in sorted(names) if (ROOT / name).is_file()]


def is_script(name):
    return name.endswith((".py", ".sh")) or name in ("heddle", ".ci/run") \
        or name.startswith("scripts/hooks/")


def is_text(name):
    return name.endswith(TEXTS) or is_script(name) or "/" not in name or "Dockerfile" in name


def check_file(name, layers, only_layers):
    text = (ROOT / name).read_text(errors="replace")
    lines = text.split("\n")
    if name.endswith(CPP) and name.startswith(tuple(folder + "/" for folder in CPP_FOLDERS)):
        for number, line in enumerate(lines, 1):
            yield from check_includes(name, number, line, layers)
        if not only_layers:
            yield from check_shape(name, lines)
            yield from check_banned(name, lines)
    if only_layers:
        return
    if is_script(name):
        yield from check_script(name, lines)
    if is_text(name) and name not in PRIVATE_EXEMPT:
        yield from check_private(name, lines)


def main(only_layers):
    layers, files = read_layers(), repository_files()
    problems = [problem for name in files for problem in check_file(name, layers, only_layers)]
    if not only_layers:
        problems += check_adrs()
    print("\n".join(problems) if problems else f"tidy: {len(files)} files in order")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main("--layers" in sys.argv[1:]))
