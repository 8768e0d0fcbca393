"""An nginx of our own: its configuration, generated; nothing of the system's nginx is used but the
program. The same for `./heddle up` and for tests."""
import os
import pathlib
import resource
import signal
import subprocess

from local.processes import LocalError, Service, tool

# QUIT lets requests end; streams of clients that stay are cut by TERM.
STEPS = ((signal.SIGQUIT, 5.0), (signal.SIGTERM, 5.0))
FILES_MAX = 65536

HEAD = """\
# Generated; changes are lost with the next start. conf/nginx.conf.example explains the directives.
{load_module}
{user}daemon off;
pid "{folder}/nginx.pid";
error_log "{error_log}" {level};
worker_processes {workers};
worker_rlimit_nofile {files};
worker_shutdown_timeout {shutdown};
{main}
events {{ worker_connections {connections}; }}

http {{
    access_log {access_log};
    default_type application/json;
    client_max_body_size 32m;
    keepalive_requests 100000;
    client_body_temp_path "{temporary}/body";
    proxy_temp_path "{temporary}/proxy";
    fastcgi_temp_path "{temporary}/fastcgi";
    uwsgi_temp_path "{temporary}/uwsgi";
    scgi_temp_path "{temporary}/scgi";

{http}
}}
"""


def raise_file_limit():
    """Lets this process and its children open as many files as they may, at most FILES_MAX."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def pool(name, endpoints):
    engines = "\n".join(f'        engine "{endpoint}";' for endpoint in endpoints)
    return f"    heddle_pool {name} {{\n        zone {name} 1m;\n{engines}\n    }}\n"


class Nginx(Service):
    """`http` is the content of the http block. `folder` gets nginx.conf and the pid file."""

    def __init__(self, folder, http, *, name="nginx", module, workers=2, error_log, access_log="off",
                 temporary, level="notice", main="", shutdown="10s", env=None, pid_file=None,
                 output=None):
        self.folder = pathlib.Path(folder)
        self.conf = self.folder / "nginx.conf"
        self.error_log = pathlib.Path(error_log)
        files = raise_file_limit()
        # Whoever may start a program as root runs its workers as root too: a private instance has
        # no account of its own, and the engines' sockets are root's. A production nginx has both.
        user = "user root;\n" if os.geteuid() == 0 else ""
        access = access_log if access_log == "off" else f'"{access_log}"'
        self.conf.write_text(HEAD.format(
            load_module=f'load_module "{module}";', user=user, folder=self.folder, level=level,
            error_log=self.error_log, workers=workers, files=files, main=main, shutdown=shutdown,
            connections=min(8192, files // 2), access_log=access, temporary=temporary, http=http))
        pathlib.Path(temporary).mkdir(exist_ok=True)
        command = [tool("nginx", "nginx"), "-p", self.folder, "-c", self.conf, "-e", self.error_log]
        super().__init__(name, command, output or self.error_log, steps=STEPS, env=env,
                         pid_file=pid_file)

    def check(self):
        """LocalError with nginx's words if it refuses its configuration."""
        done = subprocess.run(self.command + ["-t"], capture_output=True, text=True, env=self.env,
                              check=False)
        if done.returncode != 0:
            raise LocalError(f"nginx refuses its configuration:\n{done.stderr.strip()}",
                             f"The file is {self.conf}. If it names the module: the nginx that runs "
                             "and the headers it was built with differ; ./heddle doctor tells.")

    def workers(self):
        """The pids of the worker processes, those that are still ending included."""
        children = pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [int(pid) for pid in children]
