#!/bin/sh
# Finds and installs the packages of scripts/packages.txt.
#
#   packages.sh list GROUP...       all packages of the groups
#   packages.sh missing GROUP...    those that this machine does not have, one a line
#   packages.sh install GROUP...    says what is missing, then installs it; nothing if all is there
#   packages.sh command GROUP...    the command that would install what is missing
#
# HEDDLE_DRY_RUN=1 makes install print what it would run.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
list=${HEDDLE_PACKAGES:-$here/packages.txt}

has_package() {
    status=$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) || return 1
    [ "$status" = installed ]
}

rows() { # GROUP... -> "package command"
    for group in "$@"; do
        awk -v group="$group" '$1 == group { print $2, $3 }' "$list"
    done | sort -u
}

missing() {
    rows "$@" | while read -r package command; do
        if [ -n "$command" ] && command -v "$command" >/dev/null 2>&1; then
            continue
        fi
        has_package "$package" || printf '%s\n' "$package"
    done
}

as_root() {
    if [ -n "${HEDDLE_DRY_RUN:-}" ]; then
        say "would run: $*"
    elif is_root; then
        "$@"
    else
        sudo -- "$@"
    fi
}

# Nothing that we install may start a service, and no service that runs already may be restarted by
# it. Debian's tools ask /usr/sbin/policy-rc.d; ours forbids for as long as this script lives, so a
# copy left behind by a power cut is harmless. A policy that is there already stays.
policy=/usr/sbin/policy-rc.d
no_cluster=/etc/postgresql-common/createcluster.d/heddle-install.conf
our_policy=
our_no_cluster=

hold_services() {
    if [ ! -e "$policy" ]; then
        text="#!/bin/sh\n# Made by heddle while it installs packages; safe to remove.\n"
        text="$text[ -d /proc/$$ ] && exit 101\nexit 0\n"
        as_root sh -c "printf '$text' >$policy && chmod 755 $policy"
        our_policy=1
    fi
    case " $1 " in *" postgresql "*)
        as_root sh -c "mkdir -p ${no_cluster%/*} && echo 'create_main_cluster = false' >$no_cluster"
        our_no_cluster=1 ;;
    esac
}

release_services() {
    [ -z "$our_policy" ] || as_root rm -f "$policy"
    [ -z "$our_no_cluster" ] || as_root rm -f "$no_cluster"
    our_policy= our_no_cluster=
}

# Newly installed servers are not to start with the next boot either: Heddle runs its own.
disable_services() {
    command -v systemctl >/dev/null 2>&1 || return 0
    for service in nginx postgresql pgbouncer; do
        case " $1 " in *" $service "*)
            as_root systemctl disable --quiet "$service.service" 2>/dev/null || true ;;
        esac
    done
}

apt() {
    as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get -q -y \
        -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@"
}

install() {
    packages=$(missing "$@" | tr '\n' ' ')
    packages=${packages% }
    [ -n "$packages" ] || return 0
    say "missing packages: $packages"
    command -v apt-get >/dev/null 2>&1 || fail "this machine has no apt-get" \
        "Install what corresponds to these packages yourself (scripts/packages.txt), then repeat."
    if ! is_root && [ -z "${HEDDLE_DRY_RUN:-}" ]; then
        command -v sudo >/dev/null 2>&1 || fail "installing them needs root, and sudo is missing" \
            "As root: apt-get update && apt-get install --no-install-recommends $packages"
        say "installing them needs sudo, which may ask for your password"
    fi
    began=$(now)
    trap release_services EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    hold_services "$packages"
    say "apt-get update"
    apt update >/dev/null || fail "apt-get update failed" \
        "Look at its messages above; the network and /etc/apt/sources.list are the usual causes."
    say "apt-get install $packages"
    # shellcheck disable=SC2086 # one word a package
    apt install --no-install-recommends $packages || fail "apt-get install failed" \
        "Mend what it says above (often: apt-get -f install), then repeat."
    disable_services "$packages"
    release_services
    trap - EXIT INT TERM HUP
    say "installed in $(minutes $(($(now) - began)))"
}

verb=${1:-}
[ $# -gt 1 ] || fail "usage: packages.sh list|missing|install|command GROUP..."
shift
for group in "$@"; do
    grep -q "^$group[[:space:]]" "$list" || fail "there is no group $group in $list"
done
case $verb in
list) rows "$@" | cut -d' ' -f1 | sort -u ;;
missing) missing "$@" ;;
install) install "$@" ;;
command)
    packages=$(missing "$@" | tr '\n' ' ')
    [ -z "$packages" ] || {
        is_root || printf 'sudo '
        printf 'apt-get install --no-install-recommends %s\n' "${packages% }"
    } ;;
*) fail "packages.sh: no verb $verb" ;;
esac
