"""The checker finds nothing in evidence that is in order, and every fault that is put into it."""
import itertools
import uuid

import pytest

import checker
import plants
from clients import AGENTS, KINDS, REPLIES, TURNS_MAX, Operation, digest
from evidence import Evidence, Tables, Thread
from nemeses import ALL

TURNS = 30
STRUCK = 1000.0  # when every strike begins


def new_id(numbers=itertools.count(1)):
    """Ascending, as checkpoint ids are."""
    return str(uuid.UUID(int=next(numbers)))


class World:
    """Clients one after another, each on threads of its own, and engines that never fail; but for
    engine-2, which takes a thread of engine-1 over."""

    def __init__(self):
        self.now = STRUCK - 1
        self.operations, self.threads, self.replays = [], {}, {}
        self.tables = Tables([], [], [], [], [])
        self.owners = {"engine-1.1": new_id(), "engine-2.1": new_id()}
        number = 0
        for kind, count in KINDS.items():
            for _ in range(count):
                number += 1
                self.talk(number, kind)

    def talk(self, number, kind):
        for turn in range(TURNS):
            if turn % TURNS_MAX[AGENTS[kind]] == 0:
                name, key = new_id(), len(self.threads) + 1
                thread = self.threads[name] = Thread([], 0, [], {})
                self.tables.threads.append([key, name, 0, -1])
                self.claim(key, "engine-1.1")
            self.append(Operation(number, kind, AGENTS[kind], name, f"{number}.{turn}",
                                  f"{number}.{turn}", self.now), thread, key)
        self.claim(key, "engine-2.1")

    def claim(self, key, session):
        row = self.tables.threads[key - 1]
        row[2] += 1
        is_new = row[2] == 1
        before = [each for each in self.tables.ownership if each[3] == key]
        self.tables.ownership.append(
            [len(self.tables.ownership), STRUCK + 1, session, key, True, None if is_new else row[2] - 1,
             row[2], None if is_new else before[-1][8], self.owners[session],
             None if is_new else row[3], row[3]])

    def append(self, operation, thread, key):
        row, run = self.tables.threads[key - 1], new_id()
        for _ in range(3):
            checkpoint, head = new_id(), row[3]
            row[3] += 1
            self.tables.journal.append([key, row[3], head, 0, checkpoint, run])
            self.tables.ownership.append([len(self.tables.ownership), STRUCK + 2, "engine-1.1", key,
                                          False, row[2], row[2], self.owners["engine-1.1"],
                                          self.owners["engine-1.1"], head, row[3]])
            thread.history.insert(0, (checkpoint, thread.history[0][0] if thread.history else None))
        self.tables.runs.append([key, run, checker.SUCCESS, False, 2])
        self.tables.endings.append([len(self.tables.endings), self.now, "engine-1.1", run, "ended",
                                    checker.SUCCESS])
        thread.runs[run] = "success"
        thread.count += 1
        thread.messages.append((new_id(), "human", operation.text))
        for _ in range(REPLIES[operation.agent]):
            thread.messages.append((new_id(), "ai", f"you said {operation.text}"))
        self.answer(operation, thread, run)

    def answer(self, operation, thread, run):
        self.now += 0.01
        operation.ended = self.now
        self.now += 0.01
        operation.outcome, operation.run, operation.sends = "acknowledged", run, 2
        operation.count, operation.messages = thread.count, len(thread.messages)
        operation.messages_digest = digest([message[0] for message in thread.messages])
        operation.answers = ["same", "same"]
        if operation.agent == "relay":
            steps = [(str(at), ("updates", "values")[at % 2], str(at)) for at in range(1, 7)]
            operation.events = [("0", "metadata", "0"), *steps]
            operation.cuts, operation.whole = 1, True
            self.replays[run] = steps
        self.operations.append(operation)

    def strikes(self):
        seen = {"session": "engine-1.1", "runs": 1, "seconds": 1, "new": [2], "old": [1], "held": 1,
                "timelines": (1, 2), "promoted": STRUCK, "pid": 1, "pid_after": 2, "refusals": 1,
                "panics": 0}
        for kind in ALL:
            yield {"kind": kind.kind, "target": "it", "begun": STRUCK, "mended": STRUCK + 5,
                   "resumed": 1.0, "failed": "",
                   "evidence": {**seen, "status": 0 if kind.kind == "restart" else -9}}

    def evidence(self):
        return Evidence(self.operations, self.threads, self.replays, self.tables,
                        list(self.strikes()), seconds=10.0)


@pytest.fixture(scope="module", name="evidence")
def made():
    return World().evidence()


def test_nothing_is_wrong_where_nothing_is_wrong(evidence):
    for verdict in checker.check(evidence):
        assert verdict.passed, verdict


@pytest.mark.parametrize("name,fault", plants.PLANTS, ids=lambda value: getattr(value, "__name__", value))
def test_a_fault_is_found(evidence, name, fault):
    _, invariant = checker.INVARIANTS[name]
    wrong = []
    invariant(fault(evidence), wrong)
    assert wrong, fault.__doc__


def test_every_invariant_has_a_fault_that_it_finds():
    assert {name for name, _ in plants.PLANTS} == set(checker.INVARIANTS)


def test_nothing_to_look_at_is_no_success():
    empty = Evidence([], {}, {}, Tables([], [], [], [], []), [])
    passed = [verdict.name for verdict in checker.check(empty) if verdict.passed]
    assert passed == ["logs_clean", "nobody_exits"]
