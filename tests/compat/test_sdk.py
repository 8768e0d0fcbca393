"""The official JavaScript SDK in HEDDLE_SDK against a cluster; sdk_test.mjs holds the tests."""
import os
import pathlib
import shutil
import subprocess

import pytest

from harness import ROOT, Cluster, ModelServer

HERE = pathlib.Path(__file__).resolve().parent
SLOW_AGENT = """\
agent: {name}
models:
  main: {{provider: openai, model: {model}}}
state:
  messages: {{reducer: add_messages}}
nodes:
  assistant: {{kind: model, model: main}}
edges:
  - {{from: START, to: assistant}}
  - {{from: assistant, to: END}}
"""


def make_agents(folder):
    """echo, `wordy` (a second, thirty words) and `long` (a minute)."""
    shutil.copytree(ROOT / "agents/echo", folder / "echo")
    for name, model in (("wordy", "slow-1000 words-30"), ("long", "slow-60000")):
        (folder / name).mkdir()
        (folder / name / "agent.yaml").write_text(SLOW_AGENT.format(name=name, model=model))
    return folder


@pytest.fixture
def cluster(tmp_path):
    model = ModelServer(tmp_path).start()
    with Cluster(tmp_path / "cluster", agents=make_agents(tmp_path / "agents"),
                 model=model) as made:
        yield made
        made.check_clean()


def test_the_sdk_works_unmodified(cluster):
    sdk = pathlib.Path(os.environ["HEDDLE_SDK"])
    # Beside node_modules, where `import` looks for the package.
    program = sdk / "sdk_test.mjs"
    shutil.copyfile(HERE / "sdk_test.mjs", program)
    own = sdk / "node_modules/.bin/node"  # where the machine's is too old for the SDK's packages
    node = own if own.exists() else "node"
    done = subprocess.run([node, "--test-reporter=spec", program, cluster.url], timeout=150,
                          check=False)
    assert done.returncode == 0
