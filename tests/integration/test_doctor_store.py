"""./heddle doctor about a Postgres server: what is dangerous, what it costs, what to do."""
import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest

from harness import ROOT
from local.postgres import Postgres

SAFE = ("wal_compression=lz4",)
UNSAFE = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=20",
          "wal_compression=off")


@pytest.fixture
def server():
    """Starts a server with given settings; ended after the test."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="heddle-test-pg-", dir="/tmp"))
    folder.chmod(0o711)
    started = []

    def start(settings):
        postgres = Postgres(folder / "data", folder, folder / "postgres.log", settings=settings)
        started.append(postgres)
        postgres.start()
        postgres.wait_ready()
        return postgres
    yield start
    for postgres in started:
        postgres.stop()
    shutil.rmtree(folder, ignore_errors=True)


def findings(*options):
    """(exit status, what stands below `store`)."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    done = subprocess.run([ROOT / "heddle", "doctor", *options], capture_output=True, text=True,
                          env=kept, timeout=60, check=False)
    return done.returncode, done.stdout.partition("\nstore\n")[2]


def test_a_safe_server_is_ok(server):
    _, text = findings("--store", server(SAFE).url)
    assert "ok       fsync is on" in text
    assert "ok       synchronous_commit is on" in text
    assert "ok       full_page_writes is on" in text
    assert "ok       wal_compression is lz4" in text
    assert "ok       max_connections is 200: room for 21 engines" in text
    assert "WRONG" not in text and "note" not in text


def test_a_dangerous_server_is_told_with_what_to_do(server):
    status, text = findings("--store", server(UNSAFE).url)
    assert status != 0
    assert "WRONG    fsync is off" in text and "ALTER SYSTEM SET fsync = on" in text
    assert "WRONG    full_page_writes is off" in text
    assert "note     synchronous_commit is off" in text
    assert 'ALTER ROLE "heddle" SET synchronous_commit = on' in text
    assert "note     wal_compression is off" in text
    assert "note     max_connections is 20: room for 1 engines" in text


def test_a_standby_that_is_missing_is_told(server):
    postgres = server(SAFE)
    postgres.ask("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    postgres.ask("SELECT pg_reload_conf()")
    status, text = findings("--store", postgres.url)
    assert status != 0
    assert "WRONG    no synchronous standby (nobody) is connected" in text


def test_a_server_that_is_not_there_is_told_without_its_password(tmp_path):
    status, text = findings("--store", f"postgres://heddle:hush-hush@/x?host={tmp_path}")
    assert status != 0
    assert "WRONG    the store cannot be reached" in text
    assert "hush" not in text


def test_no_word_about_postgres_where_none_is_configured(tmp_path):
    assert findings("--state", tmp_path)[1] == ""
    assert findings("--store", "sqlite:x.db")[1] == ""
