#!/bin/sh
# clang-format 14 over our C and C++: format.sh (check, the CTest test tidy/format) or format.sh --fix
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
cd "$here/.."

command -v clang-format-14 >/dev/null 2>&1 || fail "clang-format-14 is missing" "./heddle doctor"
mode="--dry-run -Werror"
[ "${1:-}" != --fix ] || mode=-i
# shellcheck disable=SC2086 # options, one word each
find engine shared ngx_module tests bench -name '*.[ch]pp' -o -name '*.[ch]' | sort |
    xargs clang-format-14 --style=file $mode
