"""What chaos is made with: nginx, three engines, a Postgres primary with its synchronous standby and a
model server, every way between two of them through a link that can be cut (tests/support/network.py)."""
import contextlib
import pathlib

from harness import SHORT_LEASE_MS, Cluster, Engine, ModelServer
from local.processes import LocalError, wait_until
from network import Network
from postgres_pair import PostgresPair

ENGINES = 3
WORKERS = 2
HERE = pathlib.Path(__file__).resolve().parent
ENGINE_NEEDS_STORE = 4  # exit status of an engine that finds no store when it starts
START_SECONDS = 60.0
# Little log on disk, so that a small disk is enough and its end is never far; a standby that was cut
# off finds what it missed; what is lost on the way is noticed within seconds.
SETTINGS = ("min_wal_size=32MB", "max_wal_size=64MB", "wal_keep_size=128MB",
            "wal_sender_timeout=5s", "wal_receiver_timeout=5s", "wal_retrieve_retry_interval=200ms",
            "log_min_error_statement=panic")

# What happens to threads and runs, told by the database itself and not by our own statements: who
# claimed a thread, who moved its head, and each end of a run. The rows are committed with what they
# tell of, so they survive a failover with it. The name of a session is that of one life of an engine.
AUDIT = """
CREATE SCHEMA chaos;
CREATE TABLE chaos.ownership (id bigserial PRIMARY KEY, at timestamptz NOT NULL,
    session text NOT NULL, thread_key bigint NOT NULL, is_claim boolean NOT NULL,
    epoch_before bigint, epoch bigint NOT NULL, owner_before uuid, owner uuid,
    head_before bigint, head bigint NOT NULL);
CREATE TABLE chaos.endings (id bigserial PRIMARY KEY, at timestamptz NOT NULL,
    session text NOT NULL, run_id uuid NOT NULL, what text NOT NULL, status smallint NOT NULL);

CREATE FUNCTION chaos.see_thread() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    name text := current_setting('application_name');
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO chaos.ownership (at, session, thread_key, is_claim, epoch, owner, head)
        VALUES (clock_timestamp(), name, NEW.thread_key, true, NEW.epoch, NEW.owner, NEW.head_seq);
    ELSIF OLD.epoch <> NEW.epoch OR OLD.head_seq <> NEW.head_seq
            OR NEW.owner IS DISTINCT FROM OLD.owner THEN
        INSERT INTO chaos.ownership (at, session, thread_key, is_claim, epoch_before, epoch,
            owner_before, owner, head_before, head)
        VALUES (clock_timestamp(), name, NEW.thread_key, OLD.epoch <> NEW.epoch, OLD.epoch,
            NEW.epoch, OLD.owner, NEW.owner, OLD.head_seq, NEW.head_seq);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_sees AFTER INSERT OR UPDATE ON heddle.threads
    FOR EACH ROW EXECUTE FUNCTION chaos.see_thread();

CREATE FUNCTION chaos.see_run() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    name text := current_setting('application_name');
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO chaos.endings (at, session, run_id, what, status)
        VALUES (clock_timestamp(), name, OLD.run_id, 'deleted', OLD.status);
        RETURN NULL;
    END IF;
    IF TG_OP = 'UPDATE' AND NOT OLD.is_open THEN
        INSERT INTO chaos.endings (at, session, run_id, what, status)
        VALUES (clock_timestamp(), name, NEW.run_id, 'changed after its end', NEW.status);
    ELSIF NOT NEW.is_open THEN
        INSERT INTO chaos.endings (at, session, run_id, what, status)
        VALUES (clock_timestamp(), name, NEW.run_id, 'ended', NEW.status);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_sees AFTER INSERT OR UPDATE OR DELETE ON heddle.runs
    FOR EACH ROW EXECUTE FUNCTION chaos.see_run();
"""


class ChaosEngine(Engine):
    """Behind a link from nginx, with a link of its own to either server."""

    def __init__(self, cluster, number, network, pair):
        name = f"engine-{number}"
        socket = pathlib.Path(cluster.sockets) / f"{name}.sock"
        self.front = network.link(f"nginx to {name}", socket)
        self.backs = {server: network.link(f"{name} to {server.name}", server.socket)
                      for server in pair.servers}
        hosts = ",".join(f"127.0.0.1:{link.port}" for link in self.backs.values())
        self._url = f"postgres://heddle@{hosts}/heddle?application_name={name}."
        self.life = 0
        super().__init__(cluster, number, endpoint=f"tcp://127.0.0.1:{self.front.port}",
                         store_url=self._url)
        self._url_at = self.command.index(self._url)

    @property
    def session(self):
        """How the database knows this life of it."""
        return f"{self.name}.{self.life}"

    def begin(self):
        self.life += 1
        self.command[self._url_at] = f"{self._url}{self.life}"
        super().begin()

    def start_until_ready(self):
        """As a service manager would: again while it ends for want of its store."""
        def is_ready():
            if not self.is_running():
                if self.process.returncode != ENGINE_NEEDS_STORE and not self.killed:
                    raise LocalError(f"{self.name} ended with {self.status_text()}", log=self.log)
                self.begin()
            return "ready" in self.output()
        wait_until(is_ready, f"{self.name} gets ready", START_SECONDS)

    def load(self):
        """Runs that it executes now; 0 if it does not answer."""
        try:
            return int(self.metrics()["heddle_scheduler_runs_running"])
        except (AssertionError, OSError):
            return 0


# For whoever follows a fault up: which way each request went.
LOG_FORMAT = """
    log_format chaos '$msec $request_time $status engine=$heddle_engine hops=$heddle_hops '
                     'run=$heddle_run_id error=$heddle_error "$request"';
"""


class ChaosCluster(Cluster):
    def __init__(self, folder, network, pair, **options):
        self._network, self._pair = network, pair
        super().__init__(folder, engines=ENGINES, workers=WORKERS, store="unused",
                         lease_ms=SHORT_LEASE_MS, agents=HERE / "agents", nginx_http=LOG_FORMAT,
                         nginx_server=f'        access_log "{folder}/access.log" chaos;', **options)

    def make_engine(self, number):
        return ChaosEngine(self, number, self._network, self._pair)


class Stack:
    """Everything that runs. `url` is where clients go, through a link as well.

    folder  for logs and configuration; disks: two folders for what the servers store
    """

    def __init__(self, folder, disks):
        self.folder, self.disks = pathlib.Path(folder), [pathlib.Path(disk) for disk in disks]
        self._stack = contextlib.ExitStack()
        self.network = self.pair = self.cluster = self.client_link = None
        self._replication = {}

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.network = stack.enter_context(Network())
            self.pair = stack.enter_context(PostgresPair(
                [disk / "data" for disk in self.disks], route=self._route, settings=SETTINGS,
                logs=self.folder))
            model = ModelServer(self.folder)
            model.start()
            stack.callback(model.stop)
            self.cluster = ChaosCluster(self.folder, self.network, self.pair, model=model)
            stack.push(self._end_cluster)
            self.cluster.up()
            self.pair.primary.ask(AUDIT, database="heddle")
            self.client_link = self.network.link("clients to nginx", self.edge.port)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *problem):
        return self._stack.__exit__(*problem)

    def _end_cluster(self, *_):
        self.network.heal()
        self.cluster.end()

    def end_gently(self):
        """What had to be killed, or ended with another status than 0."""
        try:
            self.cluster.down()
        except AssertionError as error:
            return [str(error)]
        return []

    def _route(self, follower, leader):
        if follower not in self._replication:
            self._replication[follower] = self.network.link(f"{follower.name} to {leader.name}",
                                                            leader.socket)
        return f"host=127.0.0.1 port={self._replication[follower].port}"

    @property
    def engines(self):
        return self.cluster.engines

    @property
    def edge(self):
        return self.cluster.edges[0]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.client_link.port}"

    @property
    def replication(self):
        """The link by which the present standby follows."""
        return self._replication[self.pair.standby]

    def disk_of(self, server):
        return self.disks[self.pair.servers.index(server)]

    def sql(self, statement):
        """Rows of texts; no value may hold a tab or a line feed."""
        text = self.pair.primary.ask(f"COPY ({statement}) TO STDOUT", database="heddle")
        return [line.split("\t") for line in text.splitlines()]
