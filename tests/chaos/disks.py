"""Small disks that can be full: a file system in memory for each server, mounted in a name space of our
own, so that nobody else sees it and nothing of it outlives the processes."""
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

from local.processes import LocalError

MB = 1 << 20
# An ordinary user is root in a user name space to mount, and in another one himself again: Postgres
# refuses to run as root.
AS_ROOT = ["unshare", "--mount"]
AS_USER = ["unshare", "--user", "--map-root-user", "--mount"]
SCRIPT = """\
set -eu
folder=$1 size=$2 become=$3
shift 3
for disk in a b; do
    mount -t tmpfs -o "size=$size,mode=711" heddle-chaos "$folder/$disk"
done
exec $become "$@"
"""


def run_with_disks(command, size_mb):
    """Runs `command` + [folder]: two mounted disks, a and b, lie in it. Returns its status."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="heddle-chaos-", dir="/tmp"))
    folder.chmod(0o711)
    try:
        for name in ("a", "b"):
            (folder / name).mkdir()
        become = "" if os.geteuid() == 0 else \
            f"unshare --user --map-user={os.geteuid()} --map-group={os.getegid()}"
        inside = ["sh", "-c", SCRIPT, "sh", folder, size_mb * MB, become, *command, folder]
        child = subprocess.Popen([str(part) for part in
                                  (AS_ROOT if os.geteuid() == 0 else AS_USER) + inside])
        # Ctrl-C reaches it as well; it ends what it started and says so with its status.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        return child.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def disks_in(folder):
    """The two; LocalError if they are not what they must be."""
    disks = [pathlib.Path(folder) / name for name in ("a", "b")]
    for disk in disks:
        if not os.path.ismount(disk):
            raise LocalError(f"{disk} is no file system of its own",
                             "Mounting needs root, or user name spaces for everybody "
                             "(sysctl kernel.unprivileged_userns_clone=1).")
    return disks


def free_mb():
    """Of this machine's memory."""
    text = pathlib.Path("/proc/meminfo").read_text()
    kilobytes = next(line.split()[1] for line in text.splitlines() if line.startswith("MemAvailable"))
    return int(kilobytes) // 1024


if __name__ == "__main__":
    sys.exit("this is a module of ./heddle chaos")
