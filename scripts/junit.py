#!/usr/bin/python3
"""Judges one report of CTest (--output-junit): prints a verdict of one line, exits 0 if all is well.

Well means: there is a report, it holds tests, and every one of them ran and passed.
"""
import sys
import xml.etree.ElementTree


def verdict(path):
    """(is well, text)"""
    try:
        suite = xml.etree.ElementTree.parse(path).getroot()
    except (OSError, xml.etree.ElementTree.ParseError):
        return False, "FAILED: no report, or no tests"
    cases = list(suite.iter("testcase"))
    by_status = {}
    for case in cases:
        by_status.setdefault(case.get("status"), []).append(case.get("name"))
    passed = by_status.pop("run", [])
    if not cases:
        return False, "FAILED: no tests"
    if by_status:
        bad = ", ".join(f"{len(names)} {'failed' if status == 'fail' else 'not run'}"
                        for status, names in sorted(by_status.items()))
        return False, f"FAILED: {bad} of {len(cases)}"
    return True, f"{len(passed)} passed"


if __name__ == "__main__":
    well, text = verdict(sys.argv[1])
    print(text)
    sys.exit(0 if well else 1)
