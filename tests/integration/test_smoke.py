"""The whole path once: nginx, an engine, a store, and everything ends as it should."""
import json
import re
import urllib.request

import pytest

from harness import Cluster, get_json


@pytest.fixture(scope="module", params=["memory", "sqlite", "postgres"])
def cluster(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    engines = 1 if request.param == "memory" else 2
    with Cluster(folder, engines=engines, workers=2, store=request.param) as made:
        yield made
        made.check_clean()


def chat(cluster, body):
    return get_json(cluster.url + "/chat", json.dumps(body).encode())


def test_ok_and_status_answer(cluster):
    assert get_json(cluster.url + "/ok") == {"ok": True}
    assert cluster.edges[0].status()["pools"]


def test_a_thread_remembers_over_a_restart(cluster, request):
    first = chat(cluster, {"agent": "echo", "message": "one"})
    assert first["reply"] == "one"
    if "memory" in request.node.name:
        return
    cluster.restart()
    second = chat(cluster, {"agent": "echo", "message": "two", "thread_id": first["thread_id"]})
    assert (second["reply"], second["thread_id"]) == ("two", first["thread_id"])
    state = get_json(f"{cluster.url}/threads/{first['thread_id']}/state")
    assert [message["content"] for message in state["values"]["messages"]] == \
        ["one", "one", "two", "two"]


def test_a_stream_ends_with_the_answer(cluster):
    body = {"assistant_id": "echo", "input": {"messages": [{"role": "user", "content": "x"}]}}
    request = urllib.request.Request(cluster.url + "/runs/stream", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = re.findall(r"^event: (\S+)", answer.read().decode(), re.M)
    assert events[0] == "metadata" and events[-1] == "values"


def test_reload_keeps_serving(cluster):
    cluster.edges[0].reload()
    assert chat(cluster, {"agent": "echo", "message": "after"})["reply"] == "after"
