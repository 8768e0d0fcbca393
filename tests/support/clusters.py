"""Clusters with the agents that tests of the whole path need, on top of harness.Cluster.

    with slow_cluster(tmp_path, latency=1.2, engines=2) as cluster:
        ... cluster.url ...
        cluster.check_clean()
"""
import asyncio
import contextlib
import shutil

from harness import ROOT, Cluster, ModelServer

MB = 1 << 20
BODY_BYTES_MAX = 32 * MB         # what the harness' nginx takes: its client_max_body_size
ENGINE_BODY_BYTES_MAX = 32 * MB  # the engine's default
ROOMY = "/roomy"                 # a prefix under which nginx takes more than the engine
ROOMY_SERVER = f"location {ROOMY}/ {{ client_max_body_size 100m; heddle_pass main; }}\n"

MODEL_AGENT = """\
agent: {name}
description: One call of a model that is slow on purpose.
models:
  main: {{provider: openai, model: "{model}"}}
state:
  messages: {{reducer: add_messages}}
nodes:
  assistant: {{kind: model, model: main}}
edges:
  - {{from: START, to: assistant}}
  - {{from: assistant, to: END}}
"""

STEPS = 5
STEP_AGENT = """\
agent: steps
description: {count} calls of a model, one after another.
models:
  main: {{provider: openai, model: "slow-{milliseconds}"}}
state:
  messages: {{reducer: add_messages}}
nodes:
{nodes}
edges:
{edges}
"""


def run(body, seconds=180.0):
    """Runs a test's coroutine with a deadline over all of it."""
    async def bounded():
        return await asyncio.wait_for(body, seconds)
    return asyncio.run(bounded())


def engine_metrics(cluster):
    """The counters of all engines together."""
    sums = {}
    for engine in cluster.engines:
        for name, value in engine.metrics().items():
            sums[name] = sums.get(name, 0.0) + value
    return sums


def write_agent(folder, name, model):
    (folder / name).mkdir()
    (folder / name / "agent.yaml").write_text(MODEL_AGENT.format(name=name, model=model))


def write_step_agent(folder, milliseconds):
    names = [f"step{number}" for number in range(1, STEPS + 1)]
    nodes = "\n".join(f"  {name}: {{kind: model, model: main}}" for name in names)
    edges = "\n".join(f"  - {{from: {left}, to: {right}}}"
                      for left, right in zip(["START", *names], [*names, "END"]))
    (folder / "steps").mkdir()
    (folder / "steps" / "agent.yaml").write_text(STEP_AGENT.format(
        count=STEPS, milliseconds=milliseconds, nodes=nodes, edges=edges))


@contextlib.contextmanager
def slow_cluster(folder, *, latency, step_seconds=0.3, nginx_server="", **options):
    """echo, chain5 and agents of one model call each: `slow` takes `latency` seconds, `wordy` too
    and says thirty words meanwhile, `quick` takes 0.05 s, `sluggish` 3.5 s, `long` a minute;
    `steps` makes five calls of `step_seconds`."""
    agents = folder / "agents"
    agents.mkdir()
    for name in ("echo", "chain5"):
        shutil.copytree(ROOT / "agents" / name, agents / name)
    milliseconds = round(latency * 1000)
    for name, model in (("slow", f"slow-{milliseconds}"), ("quick", "slow-50"),
                        ("wordy", f"slow-{milliseconds} words-30"),
                        ("sluggish", "slow-3500"), ("long", "slow-60000 words-600")):
        write_agent(agents, name, model)
    write_step_agent(agents, round(step_seconds * 1000))
    model = ModelServer(folder)
    model.start()
    with Cluster(folder, agents=agents, model=model, nginx_server=ROOMY_SERVER + nginx_server,
                 **options) as cluster:
        yield cluster


@contextlib.contextmanager
def appointment_cluster(folder, *, latency, **options):
    """The repository's agents; the appointment agent's model streams over `latency` seconds."""
    model = ModelServer(folder)
    model.start()
    with Cluster(folder, model=model, clinic=True,
                 environment={"HEDDLE_MODEL": f"slow-{round(latency * 1000)}"},
                 **options) as cluster:
        yield cluster
