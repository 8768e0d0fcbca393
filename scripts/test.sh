#!/bin/sh
# Runs the tests, from nothing: installs what is missing, builds, runs. ./heddle test [SUITE...]
#
# A suite is a label of CTest in one build, or a sanitizer build with the labels that make sense
# there. Everything that was asked for is run, also after a failure; the status is 0 only if every
# suite ran, had tests, and none of them failed or was skipped.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
cd "$here/.."

asan_targets="heddle-unit heddle-conformance heddle-engine ngx_http_heddle_module"
tsan_targets=heddle-unit
all="tidy unit conformance sim scenarios integration chaos compat asan tsan fuzz"
usage() {
    cat <<'END'
usage: ./heddle test [SUITE...]     (no suite: all of them)

  tidy         layer rules, style, format, docker and packaging files
  unit         each layer alone
  conformance  every storage driver against the one suite
  sim          engines, network and database simulated from seeds: a minute (HEDDLE_SIM_SECONDS)
  scenarios    what users measured elsewhere, while nothing is built beside it
  integration  real nginx, engines, Postgres, an MCP server (needs the Python package index once)
  chaos        one round of every nemesis of ./heddle chaos, and whether its checker sees faults
  compat       the official SDKs, unmodified (needs the npm registry and the Python package index once)
  asan         unit and conformance with AddressSanitizer and UBSan, and the module in a real nginx
  tsan         unit with ThreadSanitizer
  fuzz         60 s of hostile frames for shared/wire, with clang's libFuzzer
END
}

suites=
for argument in "$@"; do
    case $argument in
    -h | --help | --list) usage; exit 0 ;;
    -*) fail "there is no option $argument" "./heddle test --list names the suites." ;;
    esac
    case " $all " in *" $argument "*) suites="$suites $argument" ;;
    *) usage >&2; fail "there is no suite $argument" "The suites are listed above." ;;
    esac
done
[ -n "$suites" ] || suites=$all

"$here/packages.sh" install build run postgres test

reports=$(pwd)/build/test
mkdir -p "$reports"
results=$reports/results.txt
failures=$reports/failures.txt
: >"$results"
: >"$failures"
started=$(now)

# Prints what CTest prints, and judges its report: CTest itself forgives a skipped test.
run_ctest() { # SUITE BUILD CTEST-OPTION...
    suite=$1 build=$2
    shift 2
    report=$reports/$suite.xml
    rm -f "$report"
    began=$(now)
    say "suite $suite"
    ctest --test-dir "build/$build" --no-tests=error --output-on-failure --timeout 300 \
        --output-junit "$report" "$@" || true
    verdict=$("$PYTHON" -B "$here/junit.py" "$report" 2>>"$failures") || true
    printf '%-22s %-44s %s\n' "$suite" "$verdict" "$(minutes $(($(now) - began)))" >>"$results"
}

# Suites that wait more than they compute leave processors idle: meanwhile the sanitizers' builds
# take what is left over. Whatever becomes of that, build() goes over it again and judges.
ahead=
build_ahead() {
    commands=
    case " $suites " in *" asan "*) commands="scripts/build.sh asan $asan_targets;" ;; esac
    case " $suites " in *" tsan "*) commands="$commands scripts/build.sh tsan $tsan_targets" ;; esac
    if [ -z "$commands" ] || [ -n "$ahead" ]; then
        return 0
    fi
    setsid nice -n 19 sh -c "$commands" >"$reports/built-ahead.txt" 2>&1 &
    ahead=$!
    trap 'kill -- "-$ahead" 2>/dev/null || true' EXIT
    trap 'exit 130' INT TERM
}

# A build that fails fails its suites, and the others still run.
built=
build() { # PRESET SUITE [TARGET...]
    preset=$1 suite=$2
    shift 2
    case " $built " in *" $preset "*) return 0 ;; esac
    if [ -n "$ahead" ]; then
        wait "$ahead" || true
        trap - EXIT
        ahead=
    fi
    if "$here/build.sh" "$preset" "$@"; then
        built="$built $preset"
        return 0
    fi
    printf '%-22s %-44s\n' "$suite" "FAILED to build preset $preset" >>"$results"
    return 1
}

run_suite() {
    case $1 in
    tidy | unit)
        build release "$1" && run_ctest "$1" release -L "^$1\$" -j 2 ;;
    conformance | sim)
        build release "$1" && run_ctest "$1" release -L "^$1\$" -j 2 ;;
    integration)
        build release "$1" || return 0
        build_ahead
        run_ctest "$1" release -L "^$1\$" -j 2 ;;
    scenarios | chaos | compat)
        build release "$1" && run_ctest "$1" release -L "^$1\$" ;;
    asan)
        build asan asan $asan_targets || return 0
        export ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1
        export UBSAN_OPTIONS=print_stacktrace=1
        run_ctest asan-unit asan -L '^unit$' -j 2
        run_ctest asan-conformance asan -L '^conformance$' -R 'memory|sqlite|postgres$' -j 2
        run_ctest asan-integration asan -L '^integration$' -R 'smoke|bad_input|limits|streams|edge_frames' \
            -j 2
        unset ASAN_OPTIONS UBSAN_OPTIONS ;;
    tsan)
        build tsan tsan $tsan_targets || return 0
        TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1 \
            run_ctest tsan-unit tsan -L '^unit$' -j 2 ;;
    fuzz)
        if "$here/build.sh" clang heddle-fuzz; then
            run_ctest fuzz clang -L '^fuzz$'
        else
            printf '%-22s %-44s\n' fuzz "FAILED to build preset clang" >>"$results"
        fi ;;
    esac || true
}

for suite in $suites; do
    run_suite "$suite"
done

printf '\n%-22s %-44s %s\n' suite result time
cat "$results"
printf '%-22s %-44s %s\n' all "" "$(minutes $(($(now) - started)))"
if [ -s "$failures" ]; then
    printf '\nwhat the failed tests printed last:\n'
    cat "$failures"
fi
if grep -qv ' passed' "$results"; then
    fail "not every suite passed" \
        "What a test printed is above; build/test/SUITE.xml holds it too. One suite: ./heddle test SUITE"
fi
