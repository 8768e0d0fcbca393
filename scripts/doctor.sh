#!/bin/sh
# Tells what is missing or wrong on this machine, and the command that mends it. Changes nothing.
#
#   doctor.sh [--store URL] [--state DIR]    and about the Postgres that is named, or in use there
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
cd "$here/.."

wrong=0
good() { printf '  ok       %s\n' "$1"; }
note() { printf '  note     %s\n' "$1"; [ -z "${2:-}" ] || printf '           %s\n' "$2"; }
bad() { printf '  WRONG    %s\n' "$1"; [ -z "${2:-}" ] || printf '           %s\n' "$2"; wrong=1; }

at_least() { # FOUND WANTED
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

check_system() {
    name=unknown
    [ ! -r /etc/os-release ] || name=$(. /etc/os-release && printf '%s' "${PRETTY_NAME:-unknown}")
    if ! command -v apt-get >/dev/null 2>&1; then
        bad "$name has no apt-get" "Install what corresponds to scripts/packages.txt yourself."
    else
        good "$name"
    fi
    is_root || command -v sudo >/dev/null 2>&1 ||
        note "neither root nor sudo: packages must be installed by somebody else"
}

check_group() { # GROUP what for
    missing=$("$here/packages.sh" missing "$1" | tr '\n' ' ')
    if [ -z "$missing" ]; then
        good "packages to $2"
    elif [ "$1" = build ] || [ "$1" = run ]; then
        bad "packages to $2: ${missing% }" "$("$here/packages.sh" command "$1")    (./heddle up does it)"
    else
        note "packages to $2: ${missing% }" "$("$here/packages.sh" command "$1")"
    fi
}

check_version() { # WHAT FOUND WANTED HINT
    if [ -z "$2" ]; then
        return 0
    elif at_least "$2" "$3"; then
        good "$1 $2"
    else
        bad "$1 $2 is older than $3" "$4"
    fi
}

check_tools() {
    check_version g++ "$(g++ -dumpfullversion 2>/dev/null || true)" 12 \
        "Debian 12 or Ubuntu 24.04 have it; or set CXX for cmake."
    check_version cmake "$(cmake --version 2>/dev/null | awk 'NR == 1 { print $3 }')" 3.25 \
        "Debian 12 or Ubuntu 24.04 have it."
    if [ -x "$PYTHON" ]; then
        check_version python3 "$("$PYTHON" -c 'import platform; print(platform.python_version())')" \
            3.10 "Debian 12 or Ubuntu 22.04 have it."
    fi
}

# A module fits one version of nginx, built --with-compat.
check_nginx() {
    command -v nginx >/dev/null 2>&1 || return 0
    runs=$(nginx -v 2>&1 | sed 's,.*nginx/\([0-9.]*\).*,\1,')
    headers=$(sed -n 's/^#define NGINX_VERSION *"\(.*\)"/\1/p' \
        /usr/share/nginx/src/src/core/nginx.h 2>/dev/null || true)
    if [ -n "$headers" ] && [ "$runs" != "$headers" ]; then
        bad "nginx is $runs ($(command -v nginx)), its headers are $headers: the module would not load" \
            "apt-get install nginx nginx-dev, or build with -DHEDDLE_NGINX_DIR=<the sources of $runs>"
    elif ! nginx -V 2>&1 | grep -q -- --with-compat; then
        bad "nginx $runs is built without --with-compat" "apt-get install nginx"
    else
        good "nginx $runs"
    fi
}

check_machine() {
    free_mb=$(df -Pm . | awk 'NR == 2 { print $4 }')
    [ "$free_mb" -ge 3000 ] && good "$free_mb MB free here" ||
        bad "$free_mb MB free here; a build needs about 3000" "Make room, or clone it to another disk."
    memory_mb=$(awk '$1 == "MemAvailable:" { print int($2 / 1024) }' /proc/meminfo)
    [ "$memory_mb" -ge 1500 ] && good "$memory_mb MB of memory free" ||
        note "$memory_mb MB of memory free; a compiler process takes up to 1000" "HEDDLE_JOBS=1 ./heddle up"
    files=$(ulimit -Hn)
    [ "$files" = unlimited ] || [ "$files" -ge 4096 ] && good "$files open files allowed" ||
        note "only $files open files allowed, so few clients at once" "ulimit -Hn 65536, as root"
    [ -w . ] && good "may write in $(pwd)" ||
        bad "may not write in $(pwd), where build/ and .heddle/ go" "Clone it to a folder of yours."
}

check_port() {
    [ -x "$PYTHON" ] || return 0
    if "$PYTHON" - <<'END' 2>/dev/null
import socket
probe = socket.socket()
probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
probe.bind(("127.0.0.1", 8080))
END
    then
        good "port 8080 is free"
    elif [ -d .heddle ] && ./heddle status >/dev/null 2>&1; then
        good "Heddle runs: ./heddle status"
    else
        note "port 8080 is in use by another program" "./heddle up --port 8081"
    fi
}

check_build() {
    if [ -x build/release/engine/app/heddle-engine ]; then
        libraries=$(ldd build/release/engine/app/heddle-engine | awk '/not found/ { print $1 }' | tr '\n' ' ')
        [ -z "$libraries" ] && good "heddle-engine is built" ||
            bad "heddle-engine does not find $libraries" "rm -rf build/release, then ./heddle up"
    else
        note "not built yet" "./heddle up builds it"
    fi
}

# What the settings of a Postgres that is configured cost.
check_store() {
    [ -x "$PYTHON" ] || return 0
    findings=$("$PYTHON" -B "$here/store_settings.py" "$@") || exit 1
    [ -n "$findings" ] || return 0
    echo "store"
    while IFS="$(printf '\t')" read -r kind text remedy; do
        "$kind" "$text" "$remedy"
    done <<END
$findings
END
}

echo "machine"
check_system
check_machine
check_port
echo "packages"
check_group build "build"
check_group run "run"
check_group postgres "run on a Postgres of its own (postgres:local)"
check_group test "run the tests"
check_group bench "run the benchmarks"
echo "tools"
check_tools
check_nginx
check_build
check_store "$@"
[ "$wrong" -eq 0 ] || { echo; fail "what is marked WRONG must be mended first"; }
