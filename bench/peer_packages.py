"""What the peers of `bench turn --peers` need from npm, once, below build/peers/."""
import hashlib
import pathlib
import shutil
import subprocess

import stack

SOURCES = pathlib.Path(__file__).resolve().parent / "peers"
INSTALL_SECONDS = 600
# The server's packages want Node 20; Debian 12 has 18.
NODE_MAJOR_MIN, NODE = 20, "node@20.20.2"


class Packages:
    """The folder in which npm has put everything, and the node that runs it."""

    def __init__(self, root):
        self.folder = root / "build/peers"
        self.node = self._find_node()
        for name in ("saver", "server"):
            self._install(name)

    def _find_node(self):
        version = subprocess.run([stack.tool("node"), "--version"], capture_output=True, text=True,
                                 check=True).stdout.strip()
        if int(version.lstrip("v").split(".")[0]) >= NODE_MAJOR_MIN:
            return stack.tool("node")
        node = self.folder / "node/node_modules/.bin/node"
        if not node.exists():
            print(f"this is node {version}: getting {NODE} from npm", flush=True)
            node.parents[2].mkdir(parents=True, exist_ok=True)
            (node.parents[2] / "package.json").write_text('{"private": true}\n')
            npm(node.parents[2], NODE)
        return str(node)

    def _install(self, name):
        folder = self.folder / name
        lock = (SOURCES / name / "package-lock.json").read_bytes()
        wanted, stamp = hashlib.sha256(lock).hexdigest(), folder / "installed"
        if stamp.exists() and stamp.read_text() == wanted:
            return
        print(f"installing the packages of the {name} from npm", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in ("package.json", "package-lock.json"):
            shutil.copy(SOURCES / name / file, folder)
        # Not `npm ci`: it wants the optional packages of systems on which no Heddle runs to be in
        # the lock file as well. What is in there is installed in exactly that version.
        npm(folder, "--ignore-scripts")
        stamp.write_text(wanted)

    def project(self, parent, name):
        """A fresh folder with the sources of a peer, in which node finds its packages."""
        folder = parent / name
        shutil.copytree(SOURCES / name.split("-")[0], folder)
        shutil.copy(SOURCES / "graphs.mjs", folder)
        (folder / "node_modules").symlink_to(self.folder / name.split("-")[0] / "node_modules")
        return folder


def npm(folder, *arguments):
    """`npm install` in that folder."""
    try:
        done = subprocess.run(
            [stack.tool("npm"), "install", "--no-audit", "--no-fund", "--loglevel=error",
             *arguments], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        raise stack.BenchError(f"npm: not within {INSTALL_SECONDS} s") from None
    if done.returncode != 0:
        raise stack.BenchError(f"npm could not install the peers:\n{done.stderr.strip()}")
