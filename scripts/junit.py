#!/usr/bin/python3
"""Judges one report of CTest (--output-junit): prints a verdict of one line, exits 0 if all is well.

Well means: there is a report, it holds tests, and every one of them ran and passed. How the output of
those that failed ended goes to standard error.
"""
import sys
import xml.etree.ElementTree

OUTPUT_LINES = 60
OUTPUT_TESTS = 10


def cases_of(path):
    try:
        return list(xml.etree.ElementTree.parse(path).getroot().iter("testcase"))
    except (OSError, xml.etree.ElementTree.ParseError):
        return []


def failures(cases):
    """The ends of what the first failed tests printed"""
    failed = [case for case in cases if case.get("status") == "fail"]
    for case in failed[:OUTPUT_TESTS]:
        lines = (case.findtext("system-out") or "").rstrip().splitlines()
        yield f"--- {case.get('name')}"
        yield from lines[-OUTPUT_LINES:]


def verdict(cases):
    """(is well, text)"""
    by_status = {}
    for case in cases:
        by_status.setdefault(case.get("status"), []).append(case.get("name"))
    passed = by_status.pop("run", [])
    if not cases:
        return False, "FAILED: no report, or no tests"
    if by_status:
        bad = ", ".join(f"{len(names)} {'failed' if status == 'fail' else 'not run'}"
                        for status, names in sorted(by_status.items()))
        return False, f"FAILED: {bad} of {len(cases)}"
    return True, f"{len(passed)} passed"


if __name__ == "__main__":
    found = cases_of(sys.argv[1])
    for line in failures(found):
        print(line, file=sys.stderr)
    well, text = verdict(found)
    print(text)
    sys.exit(0 if well else 1)
