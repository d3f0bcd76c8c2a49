#!/bin/sh
# fsdm for the POSIX shell. Beyond POSIX it needs flock(1) (of util-linux), GNU's coreutils, and Linux's /proc.
#
#   FSDM_DATA_DIR=data sh fsdm.sh want FILE|-
#   FSDM_DATA_DIR=data sh fsdm.sh register [--exclusive] FILE|-
#   FSDM_DATA_DIR=data sh fsdm.sh delete ID
#   FSDM_DATA_DIR=data sh fsdm.sh list
#   FSDM_DATA_DIR=data sh fsdm.sh find DATASET BLOCK
#   FSDM_DATA_DIR=data sh fsdm.sh find --key NAME HEX|TEXT
#   FSDM_DATA_DIR=data sh fsdm.sh hold DATASET BLOCK -- CMD…
#   FSDM_DATA_DIR=data sh fsdm.sh acquire [--timeout S] ID|DATASET BLOCK -- CMD…
#
# Exit codes: 1 the chunk cannot be fetched, or is registered already (--exclusive), 2 wrong usage or input, 3 no such
# chunk is available (acquire: or registered), 4 it has not come in time, 6 the data directory cannot be used; that of
# CMD.
# shellcheck disable=SC3013  # dash, bash, ksh and busybox all have `test -ef`
set -eu

fail() { echo "fsdm.sh: $2" >&2; exit "$1"; }

stands() { [ -e "$1" ] || [ -L "$1" ]; }

is_id() {
    [ ${#1} -eq 64 ] || return 1
    case $1 in *[!0123456789abcdef]*) return 1 ;; esac
}

# The tokens of JSON, one a line.
TOKEN='"([^"\\]|\\.)*"|[][{}:,]|[^][{}:,"[:space:]]+'

# The value of a key in the outermost object of the JSON on standard input; of several, the last.
member() {
    LC_ALL=C grep -oE "$TOKEN" | LC_ALL=C awk -v key="\"$1\"" '
        /^[{[]/ { depth++ }
        depth == 1 && before == key && last == ":" { found = $0 }
        /^[]}]/ { depth-- }
        { before = last; last = $0 }
        END { print found }'
}

# ------------------------------------------------------------------------------------------------------------- asking

# place want|delete|known ID OPPOSITE…: standard input becomes the marker, which appears whole, by a rename (or by a
# link, where none stands), under the lock of intents. Then the opposite ones go: in this order, so that a crash in
# between never leaves neither.
place() {
    marker=$data/$1/$2 id=$2
    temporary=$(temporary "$1" "$2")
    (set -C; cat >"$temporary") || fail 6 "$data/$1 cannot be written to"
    shift 2
    exec 9<"$data/want"
    flock -w 0.005 9 || : # somebody sits on it: on without, and as exact as `touch` is
    if [ -n "$exclusive" ]; then
        ln -T -- "$temporary" "$marker" || { rm -f -- "$temporary"; fail 1 "$id is registered already"; }
        rm -f -- "$temporary"
    else
        mv -fT -- "$temporary" "$marker" || { rm -f -- "$temporary"; fail 6 "$marker is in the way"; }
    fi
    for opposite in "$@"; do
        [ -d "$data/$opposite/$id" ] || rm -f -- "$data/$opposite/$id"
    done
}

temporary() { echo "$data/$1/.$2.$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')"; }

# ask want|known FILE OPPOSITE…: place the document that is in a file.
ask() {
    [ "$2" = - ] || { command exec <"$2"; } 2>/dev/null || fail 2 "$2 cannot be read"
    document=$(head -c 1048577)
    [ "$(printf %s "$document" | wc -c)" -le 1048576 ] || fail 2 "the want has more than 1 MiB"
    id=$(printf %s "$document" | member id)
    id=${id#\"} id=${id%\"} kind=$1
    is_id "$id" || fail 2 "the want has no id of 64 lower-case hex digits"
    shift 2
    printf '%s\n' "$document" | place "$kind" "$id" "$@"
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

deleted() { stands "$data/delete/${1##*-}"; }

# Of the lines DATASET/START-END-ID those that are available.
available() {
    while read -r place; do
        if [ ! -L "$data/chunks/$place" ] && stands "$data/chunks/$place/READY" && ! deleted "$place"; then
            echo "$place"
        fi
    done
}

list() {
    cd -- "$data/chunks"
    printf '%s\n' */*/READY | sed 's|/READY$||' | places | available | sed 's/.*-//'
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
    ls -f -- "$data/chunks/$1" 2>/dev/null | sed "s|^|$1/|" | places "$2" | by_responsibility
}

by_responsibility() { LC_ALL=C sort -t - -k 1,1r -k 2; }

# take DATASET/START-END-ID: a ref, on descriptor 9. Whatever runs from now on inherits it.
take() {
    # Before the lock as well, for fairness: who keeps asking must not keep the reconciler from its claim.
    ! deleted "$1" || return 1
    stands "$data/chunks/$1/READY" || return 1 # so it is no FIFO either, whose other end the shell would wait for
    { command exec 9<"$data/chunks/$1"; } 2>/dev/null || return 1
    # The order is the whole safety argument: lock, then READY through the descriptor, then the marker.
    if [ "$(readlink /proc/self/fd/9)" = "$data/chunks/$1" ] && # not through a symlink
        flock -s -n 9 && stands /proc/self/fd/9/READY && ! deleted "$1"; then
        return 0
    fi
    exec 9<&-
    return 1
}

# become DATASET/START-END-ID CMD…: this shell becomes CMD, so that the chunk is held for as long as CMD, or a child of
# it, runs.
become() {
    export FSDM_CHUNK_PATH="$data/chunks/$1/data" FSDM_CHUNK_ID="${1##*-}"
    shift
    exec "$@"
}

# position DATASET BLOCK: both are checked; the block is padded.
position() {
    is_id "$1" || fail 2 "$1 is not an id of 64 lower-case hex digits"
    padded=$(block "$2") || fail 2 "$2 is not a block number within 0 … 2^64-1"
    [ ! -d "$data/chunks/$1" ] || [ -r "$data/chunks/$1" ] || fail 6 "$data/chunks/$1 cannot be read"
}

hold() {
    position "$1" "$2"
    for place in $(candidates "$1" "$padded"); do
        if take "$place"; then
            shift 2
            become "$place" "$@"
        fi
    done
    fail 3 "no available chunk of $1 holds block $2"
}

# ---------------------------------------------------------------------------------------------------------- acquiring

# Of the names want/ID or known/ID on standard input: DATASET/START-END-ID of each document that is whole.
documents() {
    cd -- "$data"
    { LC_ALL=C xargs -r grep -sHoE "$TOKEN" || :; } | LC_ALL=C awk '
        function number(n) {
            if (n ~ /^[0-9]+$/) while (length(n) < 20) n = "0" n
            return n
        }
        function end() {
            if (whole && (!("\"id\"" in is) || is["\"id\""] == "\"" id "\""))
                print is["\"dataset_id\""] "/" number(is["\"start\""]) "-" number(is["\"end\""]) "-" id
            split("", is)
            depth = whole = in_range = 0
            before = last = ""
        }
        {
            colon = index($0, ":")
            token = substr($0, colon + 1)
            if (substr($0, 1, colon - 1) != of) {
                end()
                of = substr($0, 1, colon - 1)
                id = substr(of, index(of, "/") + 1)
            }
            if (token ~ /^[{[]/ && ++depth == 2) in_range = last == ":" && before == "\"block_range\""
            if (last == ":" && depth == 1 && before ~ /^"(dataset_)?id"$/) is[before] = token
            if (last == ":" && depth == 2 && in_range) is[before] = token
            if (token ~ /^[]}]/) whole = --depth == 0
            before = last
            last = token
        }
        END { end() }' | tr -d '"' | places "$@"
}

# The places where the chunk of an id has READY, whether it is deleted or not.
here() { (cd -- "$data/chunks" && printf '%s\n' */*-"$1"/READY | sed 's|/READY$||' | places); }

# where ID, or DATASET BLOCK: the place of that chunk, or of the one that is responsible for the block.
where() {
    if [ $# -eq 1 ]; then
        { here "$1"; for kind in want known; do echo "$kind/$1" | documents; done; } | head -n 1
    else
        { candidates "$1" "$2" | available; registered "$1" "$2"; } | by_responsibility | head -n 1
    fi
}

# The places of the registered chunks of a dataset that hold a block, but of those that are available anywhere.
registered() {
    (cd -- "$data" && printf '%s\n' known/*) | grep -xE 'known/[0-9a-f]{64}' | documents "$2" | grep "^$1/" |
        while read -r place; do
            [ -n "$(here "${place##*-}" | available)" ] || echo "$place"
        done
}

# join ID: have a share in acquire/ID, on descriptor 8; `since` is the time of that.
join() {
    marker=$data/acquire/$1
    [ ! "$marker" -ef /proc/self/fd/8 ] || return 0
    exec 8<&-
    if ! stands "$marker"; then
        temporary=$(temporary acquire "$1")
        (set -C; echo held >"$temporary") || fail 6 "$data/acquire cannot be written to"
        exec 8<"$temporary"
        flock -s 8 # nobody else has it: it is never there unlocked
        ln -T -- "$temporary" "$marker" 2>/dev/null || : # another one has come meanwhile
        rm -f -- "$temporary"
    elif [ -d "$marker" ] || [ -L "$marker" ]; then
        fail 6 "$marker is in the way"
    else
        { [ -f "$marker" ] && command exec 8<"$marker"; } 2>/dev/null && flock -s -n 8 || return 1
    fi
    # It may be on its way out: only the one that stands there now counts.
    [ "$marker" -ef /proc/self/fd/8 ] || return 1
    since=$(date +%s.%N) # before the touch, so that no failure in between is missed
    # As fine as it is, and so another time than it had. Another user's refuses it.
    touch -c -d "@$since" /proc/self/fd/8 2>/dev/null || :
}

# Whether failed/ID tells that this attempt has failed: one that waits for room has not.
has_failed() {
    told=$(cat -- "$data/failed/$1" 2>/dev/null) || return 1
    [ "$(printf %s "$told" | member kind)" != '"room"' ] || return 1
    LC_ALL=C awk -v at="$(printf %s "$told" | member last_at)" -v since="$since" 'BEGIN { exit at + 0 < since + 0 }'
}

# A use is noted about once a minute, where the chunk may be evicted: by a touch of acquire/ID.
note_use() {
    path=$data/chunks/$1 id=${1##*-}
    if [ -e "$path/CACHED" ]; then
        [ $(($(date +%s) - $(stat -c %Y -- "$path/CACHED"))) -ge 60 ] || return 0
    else # was it registered since it was wanted?
        [ -n "$(find "$data/known/$id" -newer "$path/WANT" -cnewer "$path/WANT" 2>/dev/null)" ] || return 0
    fi
    touch -- "$data/acquire/$id" 2>/dev/null || :
}

# until_late S: sets the time when so many seconds are over, in hundredths of the machine's uptime.
until_late() {
    deadline=$(LC_ALL=C awk -v s="$1" '{ if (s !~ /^[0-9]+(\.[0-9]+)?$/) exit 1; printf "%.0f", ($1 + s) * 100 }' \
        /proc/uptime) || fail 2 "$1 is no number of seconds"
}

is_late() {
    read -r uptime _ </proc/uptime
    [ -n "$deadline" ] && [ "${uptime%.*}${uptime#*.}" -ge "$deadline" ]
}

# acquire DATASET/START-END-ID CMD…
acquire() {
    [ -n "$1" ] || fail 3 "that chunk is neither here nor registered"
    place=$1 id=${1##*-}
    shift
    until take "$place"; do
        stands "$data/want/$id" || stands "$data/known/$id" || fail 3 "$id is neither here nor registered"
        is_now=$(where "$id")
        place=${is_now:-$place}
        if join "$id" && has_failed "$id"; then
            fail 1 "$id cannot be fetched: $(printf %s "$told" | member error)"
        fi
        ! is_late || fail 4 "$id has not come in time"
        sleep 0.05 8<&- 9<&- # which is not to ask for it any longer than this shell
    done
    note_use "$place"
    exec 8<&- # not before the ref is taken: until then it is not evicted
    become "$place" "$@"
}

# ------------------------------------------------------------------------------------------------------------ indexes

hex() { od -An -v -tx1 | tr -d ' \n'; }

# bytes FILE OFFSET COUNT
bytes() { tail -c +$(($2 + 1)) -- "$1" | head -c "$3"; }

u64() { bytes "$1" "$2" 8 | od -An --endian=little -tu8 | tr -d ' '; }

# Whether FILE is a whole index that begins with these 8 bytes (in hex); sets how many records it has, and where its
# buckets and what follows them begin.
is_index() {
    [ -f "$1" ] && [ "$(head -c 8 -- "$1" | hex)" = "$2" ] || return 1
    [ "$(bytes "$1" 144 16 | hex)" = "$(head -c 144 -- "$1" | sha256sum | head -c 32)" ] || return 1
    [ "$(u64 "$1" 24)" = "$(stat -c %s -- "$1")" ] || return 1
    count=$(u64 "$1" 8) bits=$(u64 "$1" 16)
    buckets=$((160 + 20 * count))
    rest=$((buckets + 8 * ((1 << bits) + 1)))
}

# numbers FILE HASH: those of the records with this hash.
numbers() {
    first=$(printf %.8s "$2")
    bound=$((buckets + 8 * (0x$first >> (32 - bits))))
    begin=$(u64 "$1" $bound) end=$(u64 "$1" $((bound + 8)))
    bytes "$1" $((160 + 20 * begin)) $((20 * (end - begin))) | od -An -v -tx1 -w20 | tr -d ' ' |
        sed -n "s/^$2\(..\)\(..\)\(..\)\(..\)$/0x\4\3\2\1/p"
}

# rows RUN HASH: DATASET/START-END-ID and the SHA-256 of READY, of each chunk that a run says to have the hash.
rows() {
    is_index "$1" 6673646d72756e31 || return 0
    for number in $(numbers "$1" "$2"); do
        row=$((rest + 112 * number))
        [ $((number)) -lt "$(u64 "$1" 32)" ] || continue
        echo "$(bytes "$1" $row 32 | hex)/$(block "$(u64 "$1" $((row + 64)))")-$(block "$(u64 "$1" $((row + 72)))")-$(
            bytes "$1" $((row + 32)) 32 | hex) $(bytes "$1" $((row + 80)) 32 | hex)"
    done
}

# holds DATASET/START-END-ID NAME KEY IDENTITY: whether a chunk has a key (in hex), by its own index, where that is whole
# and of its READY; else by the run.
holds() {
    own=$data/chunks/$1/index/$2
    ready=$(sha256sum <"$data/chunks/$1/READY" | head -c 64)
    if is_index "$own" 6673646d69647831 && [ "$(bytes "$own" 48 32 | hex)" = "$ready" ]; then
        for number in $(numbers "$own" "$(hash "$3")"); do
            entry=$((rest + 32 * number)) begin=0
            [ $((number)) -eq 0 ] || begin=$(u64 "$own" $((entry - 32)))
            key=$(bytes "$own" $((rest + 32 * count + begin)) $(($(u64 "$own" $entry) - begin)) | hex)
            [ "$key" != "$3" ] || return 0
        done
        return 1
    fi
    [ "$ready" = "$4" ]
}

# The hash of a key that is given in hex.
hash() { printf %s "$1" | tr a-f A-F | basenc --base16 -d | sha256sum | head -c 32; }

# find_key NAME KEY: the paths of the available chunks that hold a key (in hex).
find_key() {
    hash=$(hash "$2")
    while :; do # again, where a run has gone since it was listed: then another has what it had
        gone='' runs=$(cd -- "$data/index/$1" && printf '%s\n' * | sed -nE '/^run-[0-9a-f]{16}$/p')
        found=$(for run in $runs; do rows "$data/index/$1/$run" "$hash" 2>/dev/null; done)
        for run in $runs; do stands "$data/index/$1/$run" || gone=1; done
        [ -n "$gone" ] || break
    done
    printf '%s\n' "$found" | LC_ALL=C sort -u | while read -r place identity; do
        if [ -n "$place" ] && take "$place" && holds "$place" "$1" "$2" "$identity"; then
            echo "$data/chunks/$place/data"
        fi
    done
}

# A key is taken for bytes where it is hex digits, and for text where no chunk holds these.
find_keys() {
    case $1 in '' | [!a-z0-9]* | *[!a-z0-9_-]*) fail 2 "$1 cannot be the name of an index" ;; esac
    [ -d "$data/index/$1" ] || fail 2 "there is no index $1 over all chunks"
    [ -n "$2" ] || fail 2 "an empty key"
    found=''
    bytes=$(printf %s "${2#0x}" | tr A-F a-f)
    if [ $((${#bytes} % 2)) -eq 0 ] && [ "$bytes" = "$(printf %s "$bytes" | tr -cd 0-9a-f)" ]; then
        found=$(find_key "$1" "$bytes")
    fi
    [ -n "$found" ] || found=$(find_key "$1" "$(printf %s "$2" | hex)")
    [ -n "$found" ] || fail 3 "no available chunk holds that key of index $1"
    printf '%s\n' "$found"
}

usage() { fail 2 "see the head of $0 for how it is called"; }

[ -n "${FSDM_DATA_DIR:-}" ] || fail 2 "which data directory? Set FSDM_DATA_DIR"
data=$(CDPATH='' cd -P -- "$FSDM_DATA_DIR" 2>/dev/null && pwd) || fail 6 "$FSDM_DATA_DIR is not a directory"
[ -f "$data/fsdm.json" ] || fail 6 "$data is not a data directory"
[ "$(member format <"$data/fsdm.json")" = 1 ] || fail 6 "$data is not of format 1"
stands "$data/delete/." || fail 6 "$data/delete may not be searched: nobody could see there that a chunk is deleted"
exclusive='' deadline=''

case ${1:-} in
want)
    [ $# -eq 2 ] || usage
    ask want "$2" delete
    ;;
register)
    [ "${2:-}" != --exclusive ] || { exclusive=1; shift; }
    [ $# -eq 2 ] || usage
    ask known "$2" delete want
    ;;
delete)
    [ $# -eq 2 ] || usage
    is_id "$2" || fail 2 "$2 is not an id of 64 lower-case hex digits"
    place delete "$2" want known </dev/null
    ;;
list)
    [ $# -eq 1 ] || usage
    list
    ;;
find)
    if [ $# -eq 4 ] && [ "$2" = --key ]; then
        find_keys "$3" "$4"
    else
        [ $# -eq 3 ] || usage
        hold "$2" "$3" printenv FSDM_CHUNK_PATH
    fi
    ;;
hold)
    [ $# -ge 5 ] || usage
    [ "$4" = -- ] || usage
    dataset=$2 number=$3
    shift 4
    hold "$dataset" "$number" "$@"
    ;;
acquire)
    shift
    if [ "${1:-}" = --timeout ] && [ $# -gt 2 ]; then
        until_late "$2"
        shift 2
    fi
    if [ $# -gt 2 ] && [ "$2" = -- ]; then
        is_id "$1" || fail 2 "$1 is not an id of 64 lower-case hex digits"
        what=$(where "$1")
        shift 2
    elif [ $# -gt 3 ] && [ "$3" = -- ]; then
        position "$1" "$2"
        what=$(where "$1" "$padded")
        shift 3
    else
        usage
    fi
    acquire "$what" "$@"
    ;;
*) usage ;;
esac
