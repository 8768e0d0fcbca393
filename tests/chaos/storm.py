"""The order of strikes: each kind once in a round, the order by the seed; from the second round on two
at once now and then. After each the storm waits until every client is served again."""
import asyncio
import time

import nemeses
from local.processes import LocalError, tail

RESUME_SECONDS = 40.0
PAIRS = 0.4  # probability of a second strike at the same time, after the first round
FAMILIES = (nemeses.STORE_KINDS, nemeses.EDGE_KINDS, nemeses.ENGINE_KINDS)
POLL_SECONDS = 0.02


def family(kind):
    return next(one for one in FAMILIES if kind in one)


class Storm:
    def __init__(self, stack, load, chance, say):
        self.strikes = []
        self.exits = []
        self.not_resumed = []
        self._given_up = []  # strikes that could not be carried out
        self._stack, self._load, self._chance, self._say = stack, load, chance, say

    async def blow(self, seconds):
        """At least one round, however long that takes; ends early if the service does not come back."""
        await self._resumes(time.time(), "the start")
        until = time.monotonic() + seconds
        rounds = 0
        while not self.not_resumed:
            left = list(nemeses.ALL)
            self._chance.shuffle(left)
            while left and not self.not_resumed:
                if rounds > 0 and time.monotonic() > until:
                    return
                await self._strike(self._next(left, rounds))
            rounds += 1
            if time.monotonic() > until:
                return

    def _next(self, left, rounds):
        kinds = [left.pop()]
        if rounds > 0 and self._chance.random() < PAIRS:
            others = [kind for kind in left if family(kind) != family(kinds[0])]
            if others:
                kinds.append(others[-1])
                left.remove(others[-1])
        return [kind(self._stack, self._chance) for kind in kinds]

    async def _strike(self, strikes):
        for strike in strikes:
            await self._carry_out(strike, strike.begin)
            self._say(f"{strike.kind}: {strike.target or 'nobody'}")
        # How long it lasts is the test's own input, not a wait for something to be over.
        await asyncio.sleep(max(strike.seconds for strike in strikes))
        # The store first: engines that start need it.
        for strike in sorted(strikes, key=lambda one: FAMILIES.index(family(type(one)))):
            await self._carry_out(strike, strike.end)
        self._watch()
        names = " and ".join(f"{strike.kind} of {strike.target}" for strike in strikes)
        resumed = await self._resumes(max(strike.mended for strike in strikes), names)
        for strike in strikes:
            strike.resumed = resumed
        self._say(f"  served again after {resumed:.1f} s" if resumed is not None
                  else "  NOT served again")

    async def _carry_out(self, strike, action):
        if strike not in self.strikes:
            self.strikes.append(strike)
        if strike in self._given_up:
            return
        try:
            await action()
        except (LocalError, AssertionError, OSError) as error:
            strike.failed = f"could not be carried out: {error}"
            strike.mended = time.time()
            self._given_up.append(strike)

    async def _resumes(self, moment, after):
        """Seconds from `moment` until each client had an answer to what it asked for later."""
        deadline = time.monotonic() + RESUME_SECONDS
        while self._load.behind(moment):
            self._load.look()
            if time.monotonic() > deadline:
                self.not_resumed.append(f"{RESUME_SECONDS:g} s after {after}: clients "
                                        f"{self._load.behind(moment)} are not served")
                return None
            await asyncio.sleep(POLL_SECONDS)
        return round(time.time() - moment, 2)

    def _watch(self):
        """What ended by itself is started again, and remembered."""
        for engine in self._stack.engines:
            if not engine.is_running() and not engine.killed:
                self.exits.append(f"{engine.name} ended with {engine.status_text()}: "
                                  f"{tail(engine.log, 5)}")
                engine.start_until_ready()
        for server in self._stack.pair.servers:
            if not server.is_running():
                self.exits.append(f"{server.name} ended with {server.status_text()}: "
                                  f"{tail(server.log, 5)}")
                server.start_until_accepting()
        if not self._stack.edge.nginx.is_running():
            self.exits.append(f"nginx ended with {self._stack.edge.nginx.status_text()}")
