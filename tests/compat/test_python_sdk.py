"""The official Python SDK in HEDDLE_PYTHON_SDK against a cluster; python_sdk_tour.py is the program."""
import os
import pathlib
import subprocess

from clusters import slow_cluster

HERE = pathlib.Path(__file__).resolve().parent


def test_the_sdk_works_unmodified(tmp_path):
    with slow_cluster(tmp_path, latency=1.0, engines=2, workers=2) as cluster:
        python = pathlib.Path(os.environ["HEDDLE_PYTHON_SDK"]) / "bin/python"
        done = subprocess.run([python, "-B", HERE / "python_sdk_tour.py", cluster.url], timeout=150,
                              check=False)
        assert done.returncode == 0
        cluster.check_clean()
