#!/bin/sh
# fsdm for the POSIX shell. Beyond POSIX it needs flock(1) (util-linux, busybox), `mv -T`, `grep -o`, and Linux's /proc.
#
#   FSDM_DATA_DIR=data sh fsdm.sh want FILE|-
#   FSDM_DATA_DIR=data sh fsdm.sh delete ID
#   FSDM_DATA_DIR=data sh fsdm.sh list
#   FSDM_DATA_DIR=data sh fsdm.sh find DATASET BLOCK
#   FSDM_DATA_DIR=data sh fsdm.sh hold DATASET BLOCK -- CMD…
#
# Exit codes: 2 wrong usage or input, 3 no such chunk is available, 6 the data directory cannot be used; that of CMD.
set -eu

fail() { echo "fsdm.sh: $2" >&2; exit "$1"; }

stands() { [ -e "$1" ] || [ -L "$1" ]; }

is_id() {
    [ ${#1} -eq 64 ] || return 1
    case $1 in *[!0123456789abcdef]*) return 1 ;; esac
}

# The value of a key in the outermost object of the JSON on standard input; of several, the last.
member() {
    LC_ALL=C grep -oE '"([^"\\]|\\.)*"|[][{}:,]|[^][{}:,"[:space:]]+' | LC_ALL=C awk -v key="\"$1\"" '
        /^[{[]/ { depth++ }
        depth == 1 && before == key && last == ":" { found = $0 }
        /^[]}]/ { depth-- }
        { before = last; last = $0 }
        END { print found }'
}

# ------------------------------------------------------------------------------------------------------------- asking

# place want|delete ID: standard input becomes the marker, which appears whole, by a rename, under the lock of intents.
# Then the opposite marker goes: in this order, so that a crash in between never leaves neither.
place() {
    if [ "$1" = want ]; then opposite=delete; else opposite=want; fi
    temporary=$data/$1/.$2.$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')
    (set -C; cat >"$temporary") || fail 6 "$data/$1 cannot be written to"
    exec 9<"$data/want"
    flock -w 0.005 9 || : # somebody sits on it: on without, and as exact as `touch` is
    mv -fT -- "$temporary" "$data/$1/$2" || { rm -f -- "$temporary"; fail 6 "$data/$1/$2 is in the way"; }
    [ -d "$data/$opposite/$2" ] || rm -f -- "$data/$opposite/$2"
}

want() {
    [ "$1" = - ] || { command exec <"$1"; } 2>/dev/null || fail 2 "$1 cannot be read"
    document=$(head -c 1048577)
    [ "$(printf %s "$document" | wc -c)" -le 1048576 ] || fail 2 "the want has more than 1 MiB"
    id=$(printf %s "$document" | member id)
    id=${id#\"} id=${id%\"}
    is_id "$id" || fail 2 "the want has no id of 64 lower-case hex digits"
    printf '%s\n' "$document" | place want "$id"
}

# ------------------------------------------------------------------------------------------------------------ reading

# Of the lines DATASET/START-END-ID those that are chunk directories; with a block, those whose range holds it.
# The x before them has awk compare them as text: as numbers, they would be rounded.
places() {
    LC_ALL=C awk -F '[/-]' -v block="${1:+x$1}" '
        function id(text) { return length(text) == 64 && text !~ /[^0-9a-f]/ }
        function u64(text) { return length(text) == 20 && text !~ /[^0-9]/ && "x" text <= "x18446744073709551615" }
        NF == 4 && id($1) && u64($2) && u64($3) && id($4) && "x" $2 < "x" $3 &&
            (block == "" || ("x" $2 <= block && block < "x" $3))'
}

list() {
    cd -- "$data/chunks"
    printf '%s\n' */*/READY | sed 's|/READY$||' | places | while read -r place; do
        if [ ! -L "$place" ] && stands "$place/READY" && ! stands "$data/delete/${place##*-}"; then
            echo "${place##*-}"
        fi
    done
}

# A block number as 20 digits.
block() {
    LC_ALL=C awk -v n="$1" 'BEGIN {
        if (n !~ /^[0-9]+$/) exit 1
        sub(/^0+/, "", n)
        while (length(n) < 20) n = "0" n
        if (length(n) > 20 || "x" n > "x18446744073709551615") exit 1
        print n
    }'
}

# Those that hold the block, the responsible one first: the greatest start, then the smallest end, the smallest id.
candidates() {
    # shellcheck disable=SC2012  # what is no chunk directory's name is left out by `places`
    ls -f -- "$data/chunks/$1" | sed "s|^|$1/|" | places "$2" | LC_ALL=C sort -t - -k 1,1r -k 2
}

# take DATASET/START-END-ID: a ref, on descriptor 9. Whatever runs from now on inherits it.
take() {
    # Before the lock as well, for fairness: who keeps asking must not keep the reconciler from its claim.
    ! stands "$data/delete/${1##*-}" || return 1
    stands "$data/chunks/$1/READY" || return 1 # so it is no FIFO either, whose other end the shell would wait for
    { command exec 9<"$data/chunks/$1"; } 2>/dev/null || return 1
    # The order is the whole safety argument: lock, then READY through the descriptor, then the marker.
    if [ "$(readlink /proc/self/fd/9)" = "$data/chunks/$1" ] && # not through a symlink
        flock -s -n 9 && stands /proc/self/fd/9/READY && ! stands "$data/delete/${1##*-}"; then
        return 0
    fi
    exec 9<&-
    return 1
}

# hold DATASET BLOCK CMD…: this shell becomes CMD, so that the chunk is held for as long as CMD, or a child of it, runs.
hold() {
    is_id "$1" || fail 2 "$1 is not an id of 64 lower-case hex digits"
    padded=$(block "$2") || fail 2 "$2 is not a block number within 0 … 2^64-1"
    [ -d "$data/chunks/$1" ] || fail 3 "there is no dataset $1"
    [ -r "$data/chunks/$1" ] || fail 6 "$data/chunks/$1 cannot be read"
    for place in $(candidates "$1" "$padded"); do
        if take "$place"; then
            export FSDM_CHUNK_PATH="$data/chunks/$place/data" FSDM_CHUNK_ID="${place##*-}"
            shift 2
            exec "$@"
        fi
    done
    fail 3 "no available chunk of $1 holds block $2"
}

usage() { fail 2 "want FILE|-, delete ID, list, find DATASET BLOCK, or hold DATASET BLOCK -- CMD…"; }

[ -n "${FSDM_DATA_DIR:-}" ] || fail 2 "which data directory? Set FSDM_DATA_DIR"
data=$(CDPATH='' cd -P -- "$FSDM_DATA_DIR" 2>/dev/null && pwd) || fail 6 "$FSDM_DATA_DIR is not a directory"
[ -f "$data/fsdm.json" ] || fail 6 "$data is not a data directory"
[ "$(member format <"$data/fsdm.json")" = 1 ] || fail 6 "$data is not of format 1"
stands "$data/delete/." || fail 6 "$data/delete may not be searched: nobody could see there that a chunk is deleted"

case ${1:-} in
want)
    [ $# -eq 2 ] || usage
    want "$2"
    ;;
delete)
    [ $# -eq 2 ] || usage
    is_id "$2" || fail 2 "$2 is not an id of 64 lower-case hex digits"
    place delete "$2" </dev/null
    ;;
list)
    [ $# -eq 1 ] || usage
    list
    ;;
find)
    [ $# -eq 3 ] || usage
    hold "$2" "$3" printenv FSDM_CHUNK_PATH
    ;;
hold)
    [ $# -ge 5 ] || usage
    [ "$4" = -- ] || usage
    dataset=$2 number=$3
    shift 4
    hold "$dataset" "$number" "$@"
    ;;
*) usage ;;
esac
