"""Request limits: counted for each key over all workers, refused with everything a client needs."""

import asyncio
import math
import re
import time
import uuid

import pytest

from api_client import connect, is_error, run_of
from clusters import run, slow_cluster

PER_MINUTE = 10
# A faster one for the test that really comes back after Retry-After.
PER_SECOND = 2
LIMITS_HTTP = f"""
    heddle_limit_zone $http_x_api_key zone=minute:1m rate={PER_MINUTE}r/m;
    heddle_limit_zone $http_x_api_key zone=second:1m rate={PER_SECOND}r/s;
"""
LIMITS_SERVER = f"""
    location /minute/ {{ heddle_pass main; heddle_limit zone=minute burst={PER_MINUTE}; }}
    location /second/ {{ heddle_pass main; heddle_limit zone=second burst={PER_SECOND}; }}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with slow_cluster(tmp_path_factory.mktemp("limits"), latency=0.1, engines=2, workers=4,
                      nginx_http=LIMITS_HTTP, nginx_server=LIMITS_SERVER) as cluster:
        yield cluster
        cluster.check_clean()


def limit_test(function):
    def test(server):
        async def body():
            async with connect(server.url) as api:
                await function(api)
        run(body())
    test.__name__ = function.__name__
    test.__doc__ = function.__doc__
    return test


def key():
    return uuid.uuid4().hex


async def ask(api, prefix, who, **more):
    """One run on a connection of its own, so that any worker may get it."""
    headers = {"connection": "close"}
    if who is not None:
        headers["x-api-key"] = who
    return await api.post(f"{prefix}/runs/wait", run_of("echo", "x"), want=(200, 429),
                          headers=headers, **more)


def fields_of(header):
    """The parameters of a structured header's first item: `"minute";r=3;t=20` to {r: 3, t: 20}."""
    assert re.match(r'^"[^"]+"(;[a-z]+=("[^"]*"|\d+))+$', header.split(",")[0].strip()), header
    return {name: int(value) for name, value in re.findall(r";([a-z]+)=(\d+)", header)}


def check_refusal(answer, seconds_max):
    is_error(answer, "rate_limited")
    wait = answer.headers["retry-after"]
    assert re.match(r"^[1-9]\d*$", wait), wait
    assert int(wait) <= seconds_max, f"Retry-After {wait}: the next request is free sooner"
    return int(wait)


@limit_test
async def test_the_eleventh_request_in_a_minute_is_refused(api):
    who = key()
    answers = [await ask(api, "/minute", who) for _ in range(PER_MINUTE + 1)]
    assert [answer.status for answer in answers] == [200] * PER_MINUTE + [429]
    check_refusal(answers[-1], math.ceil(60 / PER_MINUTE))
    left = [fields_of(answer.headers["ratelimit"])["r"] for answer in answers]
    assert left == [*range(PER_MINUTE - 1, -1, -1), 0], "counts down to nothing"
    for answer in answers:
        policy = fields_of(answer.headers["ratelimit-policy"])
        assert policy["q"] == PER_MINUTE and policy["w"] == 60
    others = await asyncio.gather(*[ask(api, "/minute", key()) for _ in range(20)])
    assert {answer.status for answer in others} == {200}, "other keys do not notice"
    assert (await ask(api, "/minute", who)).status == 429


@limit_test
async def test_the_bound_holds_over_all_workers_at_once(api):
    for _ in range(5):
        who = key()
        answers = await asyncio.gather(*[ask(api, "/minute", who) for _ in range(50)])
        statuses = [answer.status for answer in answers]
        assert statuses.count(200) == PER_MINUTE, statuses
        for answer in answers:
            if answer.status == 429:
                check_refusal(answer, math.ceil(60 / PER_MINUTE))


@limit_test
async def test_a_client_that_waits_as_told_passes(api):
    who = key()
    refused = None
    for _ in range(3 * PER_SECOND + 1):
        refused = await ask(api, "/second", who)
        if refused.status == 429:
            break
    wait = check_refusal(refused, 1)
    began = time.monotonic()
    # The one wait that this test is about: exactly what the answer told the client to do.
    await asyncio.sleep(wait)
    answer = await ask(api, "/second", who)
    assert answer.status == 200, f"refused again after {time.monotonic() - began:.2f} s"


@limit_test
async def test_a_refused_request_makes_no_run_and_costs_nothing(api):
    who = key()
    thread = await api.new_thread()
    for number in range(PER_MINUTE + 5):
        answer = await api.post(f"/minute/threads/{thread}/runs/wait", run_of("echo", "x"),
                                want=(200, 429), headers={"x-api-key": who})
        assert (answer.status == 200) == (number < PER_MINUTE)
    runs = (await api.get(f"/threads/{thread}/runs?limit=100")).json
    assert len(runs) == PER_MINUTE


@limit_test
async def test_requests_without_a_key_are_not_limited(api):
    """As limit_req: an empty key is not accounted."""
    answers = await asyncio.gather(*[ask(api, "/minute", None) for _ in range(3 * PER_MINUTE)])
    assert {answer.status for answer in answers} == {200}


@limit_test
async def test_unlimited_locations_carry_no_limit_headers(api):
    answer = await api.get("/ok")
    assert "ratelimit" not in answer.headers and "retry-after" not in answer.headers
