#!/usr/bin/python3
"""Checks docker/ against the rest of the repository, where no Docker engine runs: CTest's
tidy/docker-lint. With a `docker compose` client at hand its own check of the file is run too.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCKER = ROOT / "docker"


def instructions(text):
    """[(line number, NAME, arguments)] of a Dockerfile, continuation lines joined."""
    found, pending, start = [], "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or (not pending and not line.strip()):
            continue
        start = start if pending else number
        pending += line.rstrip().removesuffix("\\") + " "
        if not line.rstrip().endswith("\\"):
            name, _, arguments = pending.strip().partition(" ")
            found.append((start, name, arguments.strip()))
            pending = ""
    return found


def ignored(name):
    """Whether Dockerfile.dockerignore keeps a path out of the build's context."""
    kept = [line[1:] for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
            if line.startswith("!")]
    return not any(name == one or name.startswith(one + "/") for one in kept)


def check_copy(number, arguments, stages):
    words = arguments.split()
    stage = next((word.split("=", 1)[1] for word in words if word.startswith("--from=")), None)
    for source in [word for word in words if not word.startswith("--")][:-1]:
        if stage is None:
            if not (ROOT / source).exists():
                yield f"docker/Dockerfile:{number}: COPY {source}: there is no such path"
            elif ignored(source.rstrip("/")):
                yield f"docker/Dockerfile:{number}: COPY {source}: Dockerfile.dockerignore hides it"
        elif stage not in stages:
            yield f"docker/Dockerfile:{number}: COPY --from={stage}: there is no such stage"
        elif not re.search(r"/build/release/(engine/app/heddle-engine|ngx_module/\w+\.so)$", source):
            yield f"docker/Dockerfile:{number}: COPY {source}: the build makes no such file"


def check_run(number, arguments):
    groups = {row.split()[0] for row in (ROOT / "scripts/packages.txt").read_text().splitlines()
              if row.strip() and not row.startswith("#")}
    for wanted in re.findall(r"packages\.sh install ([\w ]+?)(?: &&|$)", arguments):
        for group in set(wanted.split()) - groups:
            yield f"docker/Dockerfile:{number}: scripts/packages.txt has no group {group}"
    for script in re.findall(r"\bscripts/[\w.]+", arguments):
        if not (ROOT / script).exists():
            yield f"docker/Dockerfile:{number}: there is no {script}"


def check_dockerfile():
    """(problems, names of the stages)"""
    stages, problems = {"base"}, []
    for number, name, arguments in instructions((DOCKER / "Dockerfile").read_text()):
        if name == "FROM":
            image, _, stage = arguments.partition(" AS ")
            if image not in stages and ":" not in image:
                problems.append(f"docker/Dockerfile:{number}: FROM {image}: no stage, and no tag")
            stages.add(stage)
        elif name == "COPY":
            problems += check_copy(number, arguments, stages)
        elif name == "RUN":
            problems += check_run(number, arguments)
        elif name not in ("WORKDIR", "USER", "EXPOSE", "ENTRYPOINT", "CMD", "STOPSIGNAL", "ENV"):
            problems.append(f"docker/Dockerfile:{number}: unknown instruction {name}")
    return problems, stages


def engine_options():
    text = (ROOT / "engine/app/options.cpp").read_text()
    return {"--" + name for name in re.findall(r'\badd\("([a-z-]+)"', text)} | {"--config"}


def check_service(name, service, services, stages):
    where = f"docker/compose.yaml: {name}"
    build = service.get("build")
    if build is not None:
        if not (DOCKER / build["context"] / build["dockerfile"]).exists():
            yield f"{where}: there is no {build['dockerfile']} in {build['context']}"
        if build.get("target") not in stages:
            yield f"{where}: the Dockerfile has no stage {build.get('target')}"
    elif ":" not in service.get("image", ""):
        yield f"{where}: an image from elsewhere needs a tag"
    for other in service.get("depends_on", []):
        if other not in services:
            yield f"{where}: depends_on {other}, which is no service"
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        if source.startswith(".") and not (DOCKER / source).exists():
            yield f"{where}: there is no {source}"
    if service.get("image") == "heddle-engine":
        options = {word for word in service["command"] if word.startswith("--")}
        for unknown in sorted(options - engine_options()):
            yield f"{where}: heddle-engine has no option {unknown}"


def check_compose(stages):
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    services = compose["services"]
    for name, service in services.items():
        yield from check_service(name, service, services, stages)
    advertised = {word for service in services.values() for word in service.get("command", [])
                  if str(word).startswith("tcp://") and "0.0.0.0" not in word}
    conf = (DOCKER / "nginx.conf").read_text()
    configured = set(re.findall(r"^\s*engine (\S+);", conf, re.M))
    if advertised != configured:
        yield (f"docker/nginx.conf: its engines are {sorted(configured)}, those of compose.yaml "
               f"advertise {sorted(advertised)}")


def check_with_client():
    """What Docker's own client says of compose.yaml; nothing if there is none."""
    if shutil.which("docker") is None or subprocess.run(
            ["docker", "compose", "version"], capture_output=True, check=False).returncode != 0:
        return
    done = subprocess.run(["docker", "compose", "-f", DOCKER / "compose.yaml", "config", "-q"],
                          capture_output=True, text=True, check=False,
                          env=os.environ | {"HEDDLE_DB_PASSWORD": "x"})
    if done.returncode != 0:
        yield f"docker compose config: {done.stderr.strip()}"


def main():
    problems, stages = check_dockerfile()
    problems += check_compose(stages)
    problems += check_with_client()
    print("\n".join(problems) if problems else "docker: Dockerfile, compose.yaml and nginx.conf agree")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
