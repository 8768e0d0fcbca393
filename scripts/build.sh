#!/bin/sh
# Configures and builds one preset: build.sh PRESET [TARGET...]   (no target: all)
#
# Ninja shows its progress. One compiler process may take 1 GB, so a machine with little memory
# gets fewer of them than it has processors. HEDDLE_JOBS sets the number.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
cd "$here/.."

preset=${1:?preset}
shift

jobs_of_this_machine() {
    processors=$(nproc 2>/dev/null || echo 1)
    free_kb=$(awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo)
    by_memory=$((free_kb / 1100000))
    [ "$by_memory" -ge 1 ] || by_memory=1
    [ "$by_memory" -le "$processors" ] && echo "$by_memory" || echo "$processors"
}

# A build folder that was configured in another place (a moved or copied tree) cannot be used again.
cache=build/$preset/CMakeCache.txt
if [ -f "$cache" ] && ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$(pwd -P)" "$cache"; then
    say "build/$preset belongs to another folder; starting over"
    rm -rf "build/$preset"
fi

# A clone in another folder finds what this one has compiled.
CCACHE_BASEDIR=$(pwd -P)
export CCACHE_BASEDIR CCACHE_NOHASHDIR=1

began=$(now)
mkdir -p build
say "configuring preset $preset"
if ! cmake --preset "$preset" >"build/configure-$preset.log" 2>&1; then
    tail -n 30 "build/configure-$preset.log" >&2
    fail "configuring failed; all of it is in build/configure-$preset.log" \
        "Usually a package is missing: ./heddle doctor"
fi
jobs=${HEDDLE_JOBS:-$(jobs_of_this_machine)}
say "building preset $preset with $jobs jobs${1:+: $*} (the first time takes minutes)"
if [ -t 2 ] || [ -n "${NINJA_STATUS:-}" ]; then
    status=0
    cmake --build "build/$preset" --parallel "$jobs" ${1:+--target "$@"} >&2 || status=$?
else
    # Not a terminal: of ninja's steps one line every ten seconds, and whatever else it prints.
    status_file=build/build-$preset.status
    {
        status=0
        cmake --build "build/$preset" --parallel "$jobs" ${1:+--target "$@"} 2>&1 || status=$?
        echo "$status" >"$status_file"
    } | {
        last=0 step=
        while IFS= read -r line; do
            case $line in
            \[[0-9]*/[0-9]*\]*)
                step=$line
                if [ $(($(now) - last)) -ge 10 ]; then
                    printf '%s\n' "$step" >&2
                    last=$(now) step=
                fi ;;
            *) printf '%s\n' "$line" >&2 ;;
            esac
        done
        [ -z "$step" ] || printf '%s\n' "$step" >&2
    }
    status=$(cat "$status_file")
    rm -f "$status_file"
fi
[ "$status" -eq 0 ] || fail "the build failed; the compiler's messages are above" \
    "If nothing was changed here: ./heddle doctor, then rm -rf build/$preset and repeat."
say "built preset $preset in $(minutes $(($(now) - began)))"
