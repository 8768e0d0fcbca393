# Sourced by the shell scripts: messages, and a clock for what takes long.

say() { printf '%s\n' "heddle: $*" >&2; }

# fail WHAT [WHAT_TO_DO]: every failure says what to do.
fail() {
    say "error: $1"
    [ $# -lt 2 ] || printf '%s\n' "        $2" >&2
    exit 1
}

is_root() { [ "$(id -u)" -eq 0 ]; }

# /usr/sbin holds nginx and is not in the PATH of an ordinary user on Debian.
PATH="$PATH:/usr/sbin:/sbin"

# Debian's interpreter: another python3 in the PATH has none of Debian's modules.
PYTHON=/usr/bin/python3

now() { date +%s; }

# minutes SECONDS: 75 becomes 1:15
minutes() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }
