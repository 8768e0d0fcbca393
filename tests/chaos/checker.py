"""Judges what the clients were told against what is there. Pure: Evidence in, verdicts out.

Each invariant looks at a number of things and lists what is wrong with them. One that had nothing to
look at has not passed. plants.py puts faults into the evidence and sees that each is found."""
import collections
import dataclasses
import itertools

from clients import KINDS, REPLIES, STEP_EVENTS, TURNS_MAX, digest
from nemeses import ALL, LEASE_SECONDS

SUCCESS, LAST_OPEN = 2, 1  # heddle.runs.status: pending running success error timeout interrupted
STATUSES = ("pending", "running", "success", "error", "timeout", "interrupted")
NOBODY = "00000000-0000-0000-0000-000000000000"
SHOWN_MAX = 20
# Below these the run has shown nothing.
PER_SECOND_MIN = 4.0
OF_A_CLIENT_MIN = 10
RESUMED_STREAMS_MIN = 3
TAKEN_OVER_MIN = 1
CLOCK_SECONDS = 0.5
SWEEP_SECONDS = 6.0  # after a strike: lease, detection and sweep


@dataclasses.dataclass
class Verdict:
    name: str
    claim: str
    looked_at: int
    wrong: list

    @property
    def passed(self):
        return self.looked_at > 0 and not self.wrong

    def as_json(self):
        return {"name": self.name, "claim": self.claim, "looked_at": self.looked_at,
                "passed": self.passed, "wrong": len(self.wrong), "examples": self.wrong[:SHOWN_MAX]}


INVARIANTS = {}


def invariant(claim):
    """Registers a function (evidence, wrong) -> how much it looked at; `wrong` is a list to fill."""
    def register(function):
        INVARIANTS[function.__name__] = (claim, function)
        return function
    return register


def check(evidence, names=None):
    """@param names  of the invariants; unset: all"""
    verdicts = []
    for name in names or INVARIANTS:
        claim, function = INVARIANTS[name]
        wrong = []
        looked_at = function(evidence, wrong)
        verdicts.append(Verdict(name, claim, looked_at, wrong))
    return verdicts


def _acknowledged(evidence):
    return [each for each in evidence.operations if each.outcome == "acknowledged"]


def _humans(thread):
    """{text: positions among all messages}"""
    found = collections.defaultdict(list)
    for place, (_, kind, text) in enumerate(thread.messages):
        if kind == "human":
            found[text].append(place)
    return found


def _by_thread(evidence, operations):
    """(thread id, Thread, its operations) of the threads that could be read."""
    grouped = collections.defaultdict(list)
    for each in operations:
        grouped[each.thread].append(each)
    for name, group in grouped.items():
        if name in evidence.threads:
            yield name, evidence.threads[name], group


# ---- what clients were told


@invariant("what was acknowledged is there, once")
def acknowledged_once(evidence, wrong):
    seen = 0
    for each in _acknowledged(evidence):
        seen += 1
        if each.thread not in evidence.threads:
            wrong.append(f"{each.text}: its thread {each.thread} cannot be read")
    for name, thread, group in _by_thread(evidence, _acknowledged(evidence)):
        humans = _humans(thread)
        for each in group:
            times = len(humans.get(each.text, []))
            if times != 1:
                wrong.append(f"{each.text} is {times} times in thread {name} (run {each.run})")
    return seen


@invariant("what was not acknowledged is there at most once, and nothing else is there")
def others_at_most_once(evidence, wrong):
    seen = 0
    for name, thread, group in _by_thread(evidence, evidence.operations):
        known = {each.text for each in group}
        for text, places in _humans(thread).items():
            seen += 1
            if text not in known:
                wrong.append(f"nobody sent {text!r} to thread {name}")
            elif len(places) > 1:
                wrong.append(f"{text} is {len(places)} times in thread {name}")
    return seen


@invariant("each message is followed by the whole answer to it and by no other's")
def answered_whole(evidence, wrong):
    seen = 0
    for name, thread, group in _by_thread(evidence, evidence.operations):
        broken = {each.text for each in group if each.outcome != "acknowledged"}
        replies = REPLIES[group[0].agent]
        blocks = []
        for _, kind, text in thread.messages:
            if kind == "human":
                blocks.append((text, []))
            elif blocks:
                blocks[-1][1].append((kind, text))
            else:
                wrong.append(f"thread {name} begins with an answer")
        for text, answers in blocks:
            seen += 1
            whole = len(answers) == replies or (text in broken and len(answers) < replies)
            if not whole or any(kind != "ai" or text not in answer for kind, answer in answers):
                wrong.append(f"{text} in thread {name} is followed by {answers}"[:400])
    return seen


@invariant("a client's messages are in the order of sending, and real time is kept between clients")
def in_order(evidence, wrong):
    seen = 0
    for name, thread, group in _by_thread(evidence, _acknowledged(evidence)):
        humans = _humans(thread)
        placed = sorted(((humans[each.text][0], each) for each in group if each.text in humans),
                        key=lambda pair: pair[0])
        latest = None  # of the beginnings so far: nobody after it may have ended before
        for _, each in placed:
            seen += 1
            if latest is not None and each.ended < latest.begun:
                wrong.append(f"{each.text} was acknowledged before {latest.text} was sent, but comes "
                             f"after it in thread {name}")
            if latest is None or each.begun > latest.begun:
                latest = each
    return seen


@invariant("no answer shows another past than the thread has; repeats of one POST are answered alike")
def answers_agree(evidence, wrong):
    seen = 0
    for name, thread, group in _by_thread(evidence, _acknowledged(evidence)):
        ids = [message[0] for message in thread.messages]
        for each in group:
            seen += 1
            if len(set(each.answers)) != 1:
                wrong.append(f"{each.text}: {len(each.answers)} answers, {len(set(each.answers))} "
                             "different ones")
            if digest(ids[:each.messages]) != each.messages_digest or each.messages > len(ids):
                wrong.append(f"{each.text}: its answer of {each.messages} messages is no beginning "
                             f"of thread {name}")
    return seen


@invariant("the counter of a thread has no lost and no doubled increment")
def counters(evidence, wrong):
    seen = 0
    for name, thread, group in _by_thread(evidence, evidence.operations):
        humans = _humans(thread)
        told = [each for each in group if each.outcome == "acknowledged"]
        counts = sorted(each.count for each in told)
        seen += len(counts)
        if len(set(counts)) != len(counts):
            wrong.append(f"thread {name}: two answers with one count: {counts}")
        succeeded = sum(1 for status in thread.runs.values() if status == "success")
        if not succeeded <= thread.count <= len(humans):
            wrong.append(f"thread {name} counted {thread.count}, with {succeeded} runs that "
                         f"succeeded and {len(humans)} messages")
        if counts and counts[-1] > thread.count:
            wrong.append(f"thread {name} stands at {thread.count}; {counts[-1]} was acknowledged")
        by_place = sorted((humans[each.text][0], each.count) for each in told if each.text in humans)
        if any(after[1] <= before[1] for before, after in itertools.pairwise(by_place)):
            wrong.append(f"thread {name}: counts do not ascend with the messages: {by_place}")
    return seen


@invariant("no correct request is refused, no accepted run is lost, no run is called failed that was not")
def accepted_known(evidence, wrong):
    status_of = {row[1]: row[2] for row in evidence.tables.runs}
    for each in evidence.operations:
        if each.outcome == "refused" or any(400 <= status < 500 for status in each.statuses):
            wrong.append(f"{each.text}: refused with {each.statuses}: {each.problem}")
        if each.run and each.run not in status_of:
            wrong.append(f"{each.text}: run {each.run}, of which its client was told, is not there")
        elif each.outcome == "acknowledged" and status_of.get(each.run) != SUCCESS:
            wrong.append(f"{each.text}: acknowledged, but run {each.run} is "
                         f"{STATUSES[status_of[each.run]] if each.run else 'unknown'}")
        elif each.outcome == "failed" and status_of.get(each.run) in (SUCCESS, None):
            wrong.append(f"{each.text}: its client was told {each.problem}, but run {each.run} "
                         "succeeded")
    return len(evidence.operations)


@invariant("streams: ids ascend, each superstep's event comes once and in order, nothing is missing")
def streams_exact(evidence, wrong):
    seen = 0
    for each in evidence.operations:
        if not each.events:
            continue
        seen += 1
        ids = [int(event[0]) for event in each.events]
        if any(after <= before for before, after in itertools.pairwise(ids)):
            wrong.append(f"{each.text}: ids do not ascend: {ids}"[:400])
        steps = [tuple(event) for event in each.events if event[1] in STEP_EVENTS]
        stored = [tuple(event) for event in evidence.replays.get(each.run, [])]
        if (steps if each.whole else stored[:len(steps)]) != (stored if each.whole else steps):
            wrong.append(f"{each.text}: run {each.run} was streamed as {steps}, and is {stored}"[:900])
    return seen


# ---- what is stored


@invariant("history is one line (API): each checkpoint's parent is the one before")
def history_linear(evidence, wrong):
    seen = 0
    for name, thread in evidence.threads.items():
        ids = [entry[0] for entry in thread.history]
        parents = [entry[1] for entry in thread.history]
        seen += len(ids)
        if parents != [*ids[1:], None][:len(ids)]:
            wrong.append(f"thread {name}: {list(zip(ids, parents))}"[:600])
        if ids != sorted(ids, reverse=True) or len(set(ids)) != len(ids):
            wrong.append(f"thread {name}: checkpoint ids do not ascend: {ids}"[:600])
    return seen


@invariant("history is one line (tables): no gap, no fork, no row past the head, runs apart")
def journal_linear(evidence, wrong):
    heads = {row[0]: row[3] for row in evidence.tables.threads}
    for key, rows in itertools.groupby(evidence.tables.journal, key=lambda row: row[0]):
        rows = list(rows)
        seqs = [row[1] for row in rows]
        if seqs != list(range(seqs[0], seqs[0] + len(seqs))) or seqs[-1] != heads.get(key):
            wrong.append(f"thread key {key}: seq {seqs}, head {heads.get(key)}"[:600])
        if any(row[2] != row[1] - 1 for row in rows):
            wrong.append(f"thread key {key}: forked: {[(row[1], row[2]) for row in rows]}"[:600])
        if any(not 0 <= row[3] <= row[1] for row in rows):
            wrong.append(f"thread key {key}: a base past its row")
        of_runs = [run for run, _ in itertools.groupby(row[5] for row in rows)]
        if len(set(of_runs)) != len(of_runs):
            wrong.append(f"thread key {key}: rows of two runs are mixed: {of_runs}"[:600])
    return len(evidence.tables.journal)


@invariant("one writer: every write is by who claimed the thread last, epochs only rise")
def one_writer(evidence, wrong):
    claims, heads = {}, {}
    for row in evidence.tables.ownership:
        number, _, session, key, is_claim, before, epoch, owner_before, owner, head_before, head = row
        claim = claims.get(key)
        if is_claim:
            if claim is not None and (epoch != before + 1 or before != claim[0]):
                wrong.append(f"thread key {key}: epoch {before} to {epoch} in claim {number}, after "
                             f"a claim with {claim[0]}")
            if head_before is not None and head != head_before:
                wrong.append(f"thread key {key}: claim {number} moved the head")
            claims[key] = (epoch, session, owner)
        elif claim is None or (epoch, session, owner_before) != claim:
            wrong.append(f"thread key {key}: stale row {number}: {session} wrote with epoch {epoch}, "
                         f"the last claim is {claim}")
        if head_before is not None and head_before != heads.get(key, head_before):
            wrong.append(f"thread key {key}: row {number} moves the head from {head_before}, where "
                         f"it was not: {heads[key]}")
        if head < heads.get(key, -1):
            wrong.append(f"thread key {key}: row {number} moves the head back to {head}")
        heads[key] = head
    for row in evidence.tables.threads:
        if heads.get(row[0]) != row[3]:
            wrong.append(f"thread key {row[0]}: head {row[3]} was written past the audit")
    return len(evidence.tables.ownership)


@invariant("every accepted run ended, exactly once, and never changed after that")
def runs_end_once(evidence, wrong):
    ended = collections.Counter()
    for _, _, session, run, what, status in evidence.tables.endings:
        if what == "ended":
            ended[run] += 1
        else:
            wrong.append(f"run {run} was {what} by {session} ({STATUSES[status]})")
    for _, run, status, is_open, attempt in evidence.tables.runs:
        if is_open or status <= LAST_OPEN:
            wrong.append(f"run {run} has not ended: {STATUSES[status]}, attempt {attempt}")
        elif ended[run] != 1:
            wrong.append(f"run {run} ended {ended[run]} times")
    return len(evidence.tables.runs)


# ---- processes, and whether all of this was worth anything


@invariant("no alert, no crash, no sanitizer's report and no assertion in any log")
def logs_clean(evidence, wrong):
    wrong += evidence.logs
    return 1


@invariant("no process ends by itself")
def nobody_exits(evidence, wrong):
    wrong += evidence.exits
    return 1


@invariant("after each strike every client is served again, without a person's help")
def service_resumes(evidence, wrong):
    wrong += evidence.not_resumed
    return len(evidence.strikes)


@invariant("enough was done: every client, every kind, at a fair rate, with streams taken up again")
def enough_done(evidence, wrong):
    told = _acknowledged(evidence)
    wanted = PER_SECOND_MIN * evidence.seconds
    if len(told) < wanted:
        wrong.append(f"{len(told)} operations in {evidence.seconds:.0f} s, fewer than {wanted:.0f}")
    of_client = collections.Counter(each.client for each in told)
    for number in range(1, sum(KINDS.values()) + 1):
        if of_client[number] < OF_A_CLIENT_MIN:
            wrong.append(f"client {number} did {of_client[number]} operations, fewer than "
                         f"{OF_A_CLIENT_MIN}")
    resumed = sum(1 for each in told if each.whole and each.cuts > 0)
    if resumed < RESUMED_STREAMS_MIN:
        wrong.append(f"{resumed} streams were taken up again, fewer than {RESUMED_STREAMS_MIN}")
    again = sum(1 for each in told if each.sends > 1)
    if again < RESUMED_STREAMS_MIN:
        wrong.append(f"{again} operations were sent more than once")
    if not any(run[4] > 1 for run in evidence.tables.runs):
        wrong.append("no run was executed a second time after its engine was lost")
    longest = max((len(thread.messages) for thread in evidence.threads.values()), default=0)
    if longest < TURNS_MAX["tally"]:
        wrong.append(f"the longest thread has {longest} messages")
    return len(told)


@invariant("every nemesis bit")
def nemeses_bite(evidence, wrong):
    for kind in ALL:
        strikes = [strike for strike in evidence.strikes if strike["kind"] == kind.kind]
        if not any(bites(strike, evidence) for strike in strikes):
            wrong.append(f"{kind.kind}: {len(strikes)} times, without effect")
    wrong += [f"{strike['kind']} of {strike['target']}: {strike['failed']}"
              for strike in evidence.strikes if strike["failed"]]
    return len(evidence.strikes)


def taken_over(strike, evidence):
    """Threads of the engine that was struck which another one claimed while it could not work."""
    victim = strike["evidence"].get("session")
    owners = {row[8] for row in evidence.tables.ownership if row[4] and row[2] == victim}
    until = strike["mended"] + SWEEP_SECONDS
    return sum(1 for row in evidence.tables.ownership
               if row[4] and row[7] in owners and row[2] != victim
               and strike["begun"] - CLOCK_SECONDS <= row[1] <= until)


def writes_after(moment, evidence):
    return sum(1 for row in evidence.tables.ownership if not row[4] and row[1] > moment)


def served_after(moment, evidence):
    """Seconds until every client had an answer to what it asked for after `moment`."""
    first = {}
    for each in _acknowledged(evidence):
        if each.begun > moment:
            first[each.client] = min(each.ended, first.get(each.client, each.ended))
    return max(first.values(), default=moment) - moment


def bites(strike, evidence):
    """What the strike came to, or "" if it has shown nothing."""
    seen, kind = strike["evidence"], strike["kind"]
    if kind in ("kill", "pause"):
        count = taken_over(strike, evidence)
        dead = kind == "pause" and strike["mended"] - strike["begun"] > LEASE_SECONDS \
            or seen.get("status") == -9
        return f"{seen['runs']} runs in work, {count} threads taken over" \
            if dead and count >= TAKEN_OVER_MIN else ""
    if kind == "restart":
        return f"{seen['runs']} runs in work, gone after {seen['seconds']} s" \
            if seen.get("status") == 0 and seen["runs"] > 0 else ""
    if kind == "reload":
        count = sum(1 for each in evidence.operations if each.cuts and each.whole
                    and each.begun <= strike["mended"] and each.ended >= strike["begun"])
        return f"old workers gone within {seen['seconds']} s, {count} streams taken up again" \
            if seen.get("new") and count else ""
    if kind == "worker":
        return f"{len(seen['new'])} workers, another one among them" \
            if set(seen.get("new", [])) - set(seen.get("old", [])) else ""
    if kind.startswith("cut-"):
        count = seen.get("broken", 0)
        return f"{count} connections broken, {seen.get('held', 0)} bytes held" \
            if count + seen.get("held", 0) > 0 else ""
    if kind == "failover":
        before, after = seen.get("timelines", (0, 0))
        count = writes_after(seen.get("promoted", 0), evidence)
        served = served_after(seen.get("promoted", 0), evidence)
        return f"timeline {before} to {after}, {count} writes since; every client served " \
            f"{served:.1f} s after the promotion" if after > before and count else ""
    if kind == "crash":
        return "a new postmaster" if seen.get("status") == -9 and \
            seen.get("pid_after") not in (None, seen["pid"]) else ""
    if kind == "disk-full":
        return f"{seen['refusals']} writes refused, {seen['panics']} panics" \
            if seen.get("refusals", 0) > 0 else ""
    return ""
