"""Tells doctor.sh about the Postgres server that is configured: what its settings cost.

    store_settings.py [--store URL] [--state DIR]

Without --store, of the instance in the state folder, if it uses Postgres. One finding a line, its
parts separated by tabs: good, note or bad; what was found; what to do. Changes nothing.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import urllib.parse

# As engine/storage/postgres/postgres_store.hpp says, and one that migrates.
CONNECTIONS_OF_AN_ENGINE = 9
SECONDS = 10
QUERY = """
SELECT json_object_agg(name, setting) FROM (
    SELECT name, current_setting(name) AS setting FROM pg_settings WHERE name IN ('fsync',
        'synchronous_commit', 'full_page_writes', 'wal_compression', 'max_connections',
        'superuser_reserved_connections', 'synchronous_standby_names', 'server_version')
    UNION ALL SELECT 'role', current_user
    UNION ALL SELECT 'is_standby', pg_is_in_recovery()::text
    UNION ALL SELECT 'standbys', count(*)::text FROM pg_stat_replication
        WHERE sync_state IN ('sync', 'quorum')
) found
"""


def configured_store(state):
    """The URL of the instance's store; None if that is not Postgres or nothing runs."""
    try:
        instance = json.loads((state / "run/instance.json").read_text())
    except (OSError, ValueError):
        return None
    store = instance["store"]
    if store == "postgres:local":
        host = urllib.parse.quote(f"{instance['sockets']}/pg", safe="")
        return f"postgres://heddle@/heddle?host={host}"
    if ":***@" in store:
        try:
            store = json.loads((state / "run/engine.yaml").read_text().partition(":")[2])
        except (OSError, ValueError):
            return None
    return store


def ask(url):
    """(settings, None) or (None, what is wrong). A password goes through the environment."""
    parts = urllib.parse.urlsplit(url)
    environment = dict(os.environ, PGCONNECT_TIMEOUT=str(SECONDS), PGAPPNAME="heddle doctor")
    if parts.password is not None:
        environment["PGPASSWORD"] = urllib.parse.unquote(parts.password)
        url = url.replace(f":{parts.password}@", "@", 1)
    try:
        done = subprocess.run(["psql", "-XAtqw", "-d", url, "-c", QUERY], env=environment, cwd="/",
                              capture_output=True, text=True, timeout=3 * SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return None, "it does not answer"
    if done.returncode != 0:
        return None, " ".join(done.stderr.split())
    return json.loads(done.stdout), None


def change(name, value):
    return f"ALTER SYSTEM SET {name} = {value}; SELECT pg_reload_conf();"


def check_disk(found):
    if found["fsync"] == "on":
        yield "good", "fsync is on: one flush of the disk a commit, shared by a whole batch", ""
    else:
        yield ("bad", "fsync is off: fast, but a power cut can destroy the database",
               change("fsync", "on"))
    if found["full_page_writes"] == "on":
        yield ("good", "full_page_writes is on: after a checkpoint a page is logged whole when it "
               "first changes; rarer checkpoints (max_wal_size) make that cheaper", "")
    else:
        yield ("bad", "full_page_writes is off: less to log, but a page that a power cut left half "
               "written cannot be mended", change("full_page_writes", "on"))
    if found["wal_compression"] == "off":
        yield ("note", "wal_compression is off: those whole pages are logged as they are; "
               "compressing them costs a little processor time and saves most of it",
               change("wal_compression", "lz4"))
    else:
        yield "good", f"wal_compression is {found['wal_compression']}", ""


def check_commit(found):
    value, names = found["synchronous_commit"], found["synchronous_standby_names"]
    if value == "off":
        yield ("note", "synchronous_commit is off: engines turn it on for what they acknowledge, but "
               "cannot through a pooler, and then refuse to start",
               f"ALTER ROLE \"{found['role']}\" SET synchronous_commit = on;")
    elif not names:
        yield ("good", f"synchronous_commit is {value}: what is acknowledged is on this server's disk "
               "(a flush a batch); a failover may lose what a standby did not have yet", "")
    elif value not in ("on", "remote_apply"):
        yield ("note", f"synchronous_commit is {value}: a failover may lose what was acknowledged, "
               "though there are synchronous standbys",
               f"ALTER ROLE \"{found['role']}\" SET synchronous_commit = on;")
    elif int(found["standbys"]) == 0:
        yield ("bad", f"no synchronous standby ({names}) is connected: every write waits for one",
               "Start it, or " + change("synchronous_standby_names", "''"))
    else:
        yield ("good", f"synchronous_commit is {value} with {found['standbys']} synchronous "
               "standby(s): a failover loses nothing; each batch waits for the way there and back", "")


def check_connections(found):
    most = int(found["max_connections"])
    engines = (most - int(found["superuser_reserved_connections"])) // CONNECTIONS_OF_AN_ENGINE
    text = (f"max_connections is {most}: room for {engines} engines with "
            f"{CONNECTIONS_OF_AN_ENGINE} connections each, some 10 MB of memory a connection")
    if engines >= 4:
        yield "good", text, ""
    else:
        yield ("note", text, f"ALTER SYSTEM SET max_connections = {most + 100}; and a restart, or "
               "pgbouncer in between")


def main():
    parser = argparse.ArgumentParser(prog="./heddle doctor", description=__doc__)
    parser.add_argument("--store", metavar="URL")
    parser.add_argument("--state", metavar="DIR", default=".heddle", type=pathlib.Path)
    options = parser.parse_args()
    url = options.store or configured_store(options.state)
    if url is None or not url.startswith(("postgres://", "postgresql://")):
        return
    findings = []
    if shutil.which("psql") is None:
        findings.append(("note", "psql is missing: the server's settings were not looked at",
                         "apt-get install postgresql-client"))
    else:
        found, wrong = ask(url)
        if found is None:
            findings.append(("bad", f"the store cannot be reached: {wrong}",
                             "Check that the server runs and lets this user in."))
        else:
            findings.append(("good", f"Postgres {found['server_version']} answers", ""))
            if found["is_standby"] == "true":
                findings.append(("note", "this server is a standby: engines look for the one that "
                                 "takes writes", "Name all of them: postgres://user@a,b/database"))
            for check in (check_disk, check_commit, check_connections):
                findings += check(found)
    for finding in findings:
        print("\t".join(finding))


main()
