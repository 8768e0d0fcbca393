"""bench edge: what a request through heddle_pass costs beside nginx's own ways of answering.

One front nginx answers all of them, so workers, sockets and logging are the same:
  return        the front answers itself: the ceiling of nginx and of the generator
  proxy_pass    over kept-alive TCP connections to a second nginx with one worker, `return 200`
  proxy_unix    the same over a UNIX socket, which is what our engine listens on
  heddle_pass   to one engine's GET /ok
All bodies are the engine's {"ok":true}. The load comes from wrk, one thread; the targets take
turns within each round, so that a slow moment of the machine meets all of them.
"""
import http.client
import subprocess

import profiling
import report
import stack

NAME = "edge"
BODY = '{"ok":true}'
TARGETS = {"return": "/return", "proxy_pass": "/proxy", "proxy_unix": "/unix",
           "heddle_pass": "/heddle/ok"}
BOUNDS = {"rps_64": (">=", 1.0), "p50_1": ("<=", 1.6)}

BACKEND = """
    server {
        listen 127.0.0.1:{port};
        listen unix:{folder}/backend.sock;
        location = /ok { default_type application/json; return 200 '{"ok":true}'; }
    }
"""
FRONT = """
    upstream tcp {
        server 127.0.0.1:%(backend_port)d;
        keepalive 128;
        keepalive_requests 1000000000;
    }
    upstream unix {
        server unix:%(backend_folder)s/backend.sock;
        keepalive 128;
        keepalive_requests 1000000000;
    }
%(pool)s
    server {
        listen 127.0.0.1:{port};
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        location = /return { default_type application/json; return 200 '{"ok":true}'; }
        location = /proxy { proxy_pass http://tcp/ok; }
        location = /unix { proxy_pass http://unix/ok; }
        location /heddle/ { heddle_pass engines; }
    }
"""


def run(settings):
    """Measures; returns {"cases": [...], "ratios": {...}} and prints both."""
    with stack.Stack() as here:
        backend = stack.Nginx(here, "backend", 1, BACKEND)
        engines = stack.Engines(here, settings.build, settings.root, "memory:", 1)
        front = stack.Nginx(here, "front", settings.workers, FRONT % {
            "backend_port": backend.port, "backend_folder": backend.folder,
            "pool": engines.pool("engines")}, settings.module)
        check_bodies(front)
        rounds = measure(front, settings)
        ceiling = [measure_ceiling(settings, front, c) for c in settings.edge_connections]
        if settings.profile:
            profile_heddle(front, engines, settings)
        front.check_log()
        backend.check_log()
    cases = [{"target": target, "connections": connections, "rounds": settings.rounds,
              **report.median_of(figures)}
             for (target, connections), figures in rounds.items()]
    ratios = report.edge_ratios(cases)
    ratios.update(report.edge_ratios(cases, peer="proxy_unix", suffix="_unix"))
    show(cases, ceiling, ratios)
    return {"cases": cases + ceiling, "ratios": ratios}


def check_bodies(front):
    """All targets must answer the same bytes, or the comparison is none."""
    for path in TARGETS.values():
        connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=10)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        if (answer.status, body) != (200, BODY):
            raise stack.BenchError(f"{path} answers {answer.status} {body!r}, not {BODY!r}")


def measure(front, settings):
    rounds = {(target, c): [] for c in settings.edge_connections for target in TARGETS}
    for number in range(settings.rounds + 1):
        for target, connections in rotated(list(rounds), number):
            # Round 0 warms caches and connections up and is not counted.
            seconds = 1 if number == 0 else settings.seconds
            figures = wrk(front.url(TARGETS[target]), connections, seconds)
            if number > 0:
                rounds[target, connections].append(figures)
    return rounds


def profile_heddle(front, engines, settings):
    for connections in settings.edge_connections:
        profiling.record(settings.profile, f"edge-{connections}",
                       {"engine": engines.pids, "nginx": front.workers()},
                       lambda: wrk(front.url(TARGETS["heddle_pass"]),  # noqa: B023
                                   connections, settings.seconds), settings.callers)


def rotated(items, by):
    by %= len(items)
    return items[by:] + items[:by]


def wrk(url, connections, seconds):
    done = subprocess.run([stack.tool("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s",
                           "--latency", url], capture_output=True, text=True)
    try:
        return report.parse_wrk(done.stdout)
    except report.WrkError as fault:
        raise stack.BenchError(f"wrk {url} with {connections} connections: {fault}") from fault


def measure_ceiling(settings, front, connections):
    result = stack.run_load(settings.build, front.url("/return"), "--connections", connections,
                            "--duration", settings.seconds, "--warmup", 0.5, "--expect", BODY)
    return {"target": "return (heddle-load)", "connections": connections,
            **report.parse_heddle_load(result)}


def show(cases, ceiling, ratios):
    rows = [[case["target"], case["connections"], case["rps"], case["p50_us"], case["p90_us"],
             case["p99_us"], case.get("rps_spread")] for case in cases + ceiling]
    print(report.table(["target", "conns", "requests/s", "p50 us", "p90 us", "p99 us", "spread"],
                       rows))
    print("generator: wrk, one thread; its ceiling is `return`, and heddle-load's the last lines")
    print("heddle_pass / proxy_pass (TCP, then UNIX socket):")
    print("\n".join(report.ratio_lines(ratios, BOUNDS)))
