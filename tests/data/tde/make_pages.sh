#!/bin/sh
# Take a few real pages from a fresh PostgreSQL 15 cluster with data checksums, then compute what
# lib/tde has to make of them.  The results are committed; this is the recipe, not a part of the tests.
#
# Usage: make_pages.sh BINDIR, as a user who may run initdb.
# Written files differ from run to run, since initdb chooses a system identifier.
set -eu

bindir=$1
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$bindir/initdb" --data-checksums --auth=trust --username=postgres --encoding=UTF8 --locale=C \
	--pgdata="$work/data" >"$work/log"

# page FILE BLOCK NAME
page()
{
	dd if="$1" of="$here/$3.page" bs=8192 skip="$2" count=1 status=none
}

page "$work/data/base/5/1259" 0 heap
page "$work/data/base/5/1259_fsm" 2 fsm

# The first page of a segment has the long header.  The last page that is in use ends in zeros.
segment="$work/data/pg_wal/000000010000000000000001"
page "$segment" 0 wal_long
page "$segment" 1 wal_short
end=$("$bindir/pg_controldata" "$work/data" | sed -n 's/^Latest checkpoint location: *0\///p')
page "$segment" $(((0x$end & 0xffffff) / 8192)) wal_tail

exec python3 "$here/make_known_answers.py" "$here"
