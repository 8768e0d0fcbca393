#!/bin/sh
# clang-tidy 14 with .clang-tidy over the given files, or over shared/ and ngx_module/.
#
#   clang_tidy.sh [FILE.cpp...]
#
# Not part of every test run: it takes long, and clang 14 cannot read the coroutines of libstdc++ 12,
# so the engine's layers that use them are left to the warnings of g++.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
cd "$here/.."

command -v clang-tidy-14 >/dev/null 2>&1 || fail "clang-tidy-14 is missing" "./heddle doctor"
[ -f build/dev/compile_commands.json ] || cmake --preset dev >/dev/null
[ $# -gt 0 ] || set -- $(find shared ngx_module -name '*.cpp' | sort)
status=0
for file in "$@"; do
    say "$file"
    clang-tidy-14 -p build/dev --quiet --extra-arg=-Wno-unknown-warning-option "$file" || status=1
done
exit $status
