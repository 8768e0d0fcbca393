"""Faults put on purpose into evidence that has none: the checker must find each of them, or its verdict
on the run is worth nothing. Each plant gives evidence that differs in one thing."""
import dataclasses

import checker
from checker import INVARIANTS, NOBODY

PLANTS = []


def plant(name):
    """A function (evidence) -> evidence with one fault, which the invariant `name` must find."""
    def register(function):
        PLANTS.append((name, function))
        return function
    return register


def find(evidence):
    """[(what was planted, which invariant must find it, whether it does)]"""
    results = []
    for name, function in PLANTS:
        _, invariant = INVARIANTS[name]
        before, after = [], []
        invariant(evidence, before)
        invariant(function(evidence), after)
        results.append((function.__doc__, name, len(after) > len(before)))
    return results


def _replace_thread(evidence, name, **changes):
    changed = dataclasses.replace(evidence.threads[name], **changes)
    return dataclasses.replace(evidence, threads={**evidence.threads, name: changed})


def _replace_tables(evidence, **changes):
    return dataclasses.replace(evidence, tables=dataclasses.replace(evidence.tables, **changes))


def _replace_operation(evidence, operation, **changes):
    changed = dataclasses.replace(operation, **changes)
    return dataclasses.replace(evidence, operations=[
        changed if each is operation else each for each in evidence.operations])


def _some(evidence, condition=lambda each: True):
    """An acknowledged operation, and the place of its message in its thread."""
    for each in evidence.operations:
        if each.outcome == "acknowledged" and each.thread in evidence.threads and condition(each):
            for place, message in enumerate(evidence.threads[each.thread].messages):
                if message[1] == "human" and message[2] == each.text:
                    return each, place
    raise LookupError("nothing to plant a fault in")


@plant("acknowledged_once")
def lose(evidence):
    """an acknowledged message is gone"""
    each, place = _some(evidence)
    messages = evidence.threads[each.thread].messages
    return _replace_thread(evidence, each.thread, messages=messages[:place] + messages[place + 1:])


@plant("acknowledged_once")
def double(evidence):
    """an acknowledged message is there twice"""
    each, place = _some(evidence)
    messages = evidence.threads[each.thread].messages
    return _replace_thread(evidence, each.thread, messages=[*messages, messages[place]])


@plant("others_at_most_once")
def forge(evidence):
    """a message that nobody sent"""
    each, _ = _some(evidence)
    messages = evidence.threads[each.thread].messages
    return _replace_thread(evidence, each.thread, messages=[*messages, ("x", "human", "forged")])


@plant("others_at_most_once")
def double_unknown(evidence):
    """a message whose client gave up is there twice"""
    each, place = _some(evidence)
    evidence = _replace_operation(evidence, each, outcome="unknown")
    messages = evidence.threads[each.thread].messages
    return _replace_thread(evidence, each.thread, messages=[*messages, messages[place]])


@plant("answered_whole")
def lose_answer(evidence):
    """an answer is gone"""
    each, place = _some(evidence)
    messages = evidence.threads[each.thread].messages
    return _replace_thread(evidence, each.thread, messages=messages[:place + 1] + messages[place + 2:])


@plant("in_order")
def reorder(evidence):
    """two runs, one acknowledged before the other was sent, stand in the wrong order"""
    def follows_another(one):
        return one.agent == "tally" and any(
            each.thread == one.thread and each.outcome == "acknowledged" and each.ended < one.begun
            for each in evidence.operations)
    each, place = _some(evidence, follows_another)
    messages = list(evidence.threads[each.thread].messages)
    turn = messages[place:place + 2]
    del messages[place:place + 2]
    return _replace_thread(evidence, each.thread, messages=[*turn, *messages])


@plant("answers_agree")
def other_past(evidence):
    """an answer showed messages that the thread does not have"""
    each, _ = _some(evidence)
    return _replace_operation(evidence, each, messages_digest="0" * 16)


@plant("answers_agree")
def other_repeat(evidence):
    """a repeat was answered differently"""
    each, _ = _some(evidence, lambda one: one.kind == "repeat")
    return _replace_operation(evidence, each, answers=[*each.answers, "0" * 16])


@plant("counters")
def lose_increment(evidence):
    """an increment is lost"""
    each, _ = _some(evidence)
    thread = evidence.threads[each.thread]
    succeeded = sum(1 for status in thread.runs.values() if status == "success")
    return _replace_thread(evidence, each.thread, count=succeeded - 1)


@plant("counters")
def double_increment(evidence):
    """two runs were told one count"""
    def follows_another(one):
        return one.agent == "tally" and any(
            each.thread == one.thread and each.outcome == "acknowledged"
            and each.count == one.count - 1 for each in evidence.operations)
    each, _ = _some(evidence, follows_another)
    return _replace_operation(evidence, each, count=each.count - 1)


@plant("accepted_known")
def lose_run(evidence):
    """a run that was accepted is not there"""
    each, _ = _some(evidence)
    return _replace_tables(evidence, runs=[row for row in evidence.tables.runs if row[1] != each.run])


@plant("accepted_known")
def refuse(evidence):
    """a repeat was refused as if it were another request"""
    each, _ = _some(evidence)
    return _replace_operation(evidence, each, statuses=[422], problem="422 idempotency_mismatch")


@plant("accepted_known")
def call_failed(evidence):
    """a client was told of an error of a run that succeeded"""
    each, _ = _some(evidence)
    return _replace_operation(evidence, each, outcome="failed", problem="stale_epoch")


def _streamed(evidence):
    return _some(evidence, lambda one: one.whole and len(one.events) > 3
                 and evidence.replays.get(one.run))[0]


@plant("streams_exact")
def repeat_event(evidence):
    """an event came twice"""
    each = _streamed(evidence)
    return _replace_operation(evidence, each, events=[*each.events, each.events[-1]])


@plant("streams_exact")
def lose_event(evidence):
    """the last superstep's events never came"""
    each = _streamed(evidence)
    last = max(place for place, event in enumerate(each.events) if event[1] == "values")
    return _replace_operation(evidence, each, events=each.events[:last])


@plant("history_linear")
def fork_history(evidence):
    """two checkpoints have one parent"""
    each, _ = _some(evidence, lambda one: len(evidence.threads[one.thread].history) > 3)
    history = list(evidence.threads[each.thread].history)
    history[0] = (history[0][0], history[2][0])
    return _replace_thread(evidence, each.thread, history=history)


def _second_row(evidence):
    return next(place for place, row in enumerate(evidence.tables.journal) if row[1] == 1)


@plant("journal_linear")
def lose_row(evidence):
    """a journal row is gone"""
    place, rows = _second_row(evidence), evidence.tables.journal
    return _replace_tables(evidence, journal=rows[:place] + rows[place + 1:])


@plant("journal_linear")
def fork_row(evidence):
    """a journal row has another parent than the row before"""
    place, rows = _second_row(evidence), evidence.tables.journal
    forked = [*rows[place][:2], rows[place][2] - 1, *rows[place][3:]]
    return _replace_tables(evidence, journal=[*rows[:place], forked, *rows[place + 1:]])


def _a_write(evidence):
    return next(place for place, row in enumerate(evidence.tables.ownership) if not row[4])


@plant("one_writer")
def stale_write(evidence):
    """an engine wrote to a thread that another one had claimed"""
    place, rows = _a_write(evidence), evidence.tables.ownership
    row = list(rows[place])
    row[2] = "engine-9.9"
    return _replace_tables(evidence, ownership=[*rows[:place], row, *rows[place + 1:]])


@plant("one_writer")
def stale_epoch(evidence):
    """an epoch fell"""
    place, rows = _a_write(evidence), evidence.tables.ownership
    row = list(rows[place])
    row[4], row[5], row[6], row[8] = True, row[6], row[6] - 1, NOBODY
    return _replace_tables(evidence, ownership=[*rows[:place + 1], row, *rows[place + 1:]])


@plant("one_writer")
def unseen_write(evidence):
    """a thread's head is not where its writers left it"""
    rows = evidence.tables.threads
    return _replace_tables(evidence, threads=[[*rows[0][:3], rows[0][3] + 1], *rows[1:]])


@plant("runs_end_once")
def end_twice(evidence):
    """a run ended twice"""
    rows = evidence.tables.endings
    return _replace_tables(evidence, endings=[*rows, rows[0]])


@plant("runs_end_once")
def never_end(evidence):
    """a run never ended"""
    rows = evidence.tables.runs
    return _replace_tables(evidence, runs=[[*rows[0][:2], checker.LAST_OPEN, True, rows[0][4]],
                                           *rows[1:]])


@plant("logs_clean")
def alert(evidence):
    """nginx complained"""
    return dataclasses.replace(evidence, logs=[*evidence.logs, "[alert] 1#1: worker process exited"])


@plant("nobody_exits")
def leave(evidence):
    """an engine ended by itself"""
    return dataclasses.replace(evidence, exits=[*evidence.exits, "engine-1 ended with SIGABRT"])


@plant("service_resumes")
def stay_away(evidence):
    """a client was never served again"""
    return dataclasses.replace(evidence, not_resumed=[*evidence.not_resumed, "client 1"])


@plant("enough_done")
def do_little(evidence):
    """one in fifty operations was done"""
    return dataclasses.replace(evidence, operations=evidence.operations[::50])


@plant("nemeses_bite")
def do_no_harm(evidence):
    """the standby was never promoted"""
    return dataclasses.replace(evidence, strikes=[
        {**strike, "evidence": {**strike["evidence"], "timelines": (1, 1)}}
        if strike["kind"] == "failover" else strike for strike in evidence.strikes])


@plant("nemeses_bite")
def kill_nobody(evidence):
    """nobody took over what killed engines had"""
    killed = {strike["evidence"]["session"] for strike in evidence.strikes
              if strike["kind"] == "kill"}
    rows = [row for row in evidence.tables.ownership if row[2] not in killed]
    return _replace_tables(evidence, ownership=rows)
