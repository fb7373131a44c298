#!/bin/sh
# A program of PostgreSQL that parses WAL, run by "pgx_keystore exec" with the key of the data directory (or
# backup) that is among its arguments; as it is where there is none.  Installed by tests/core/run.
real=@BINDIR@/@PROGRAM@

set_keys()
{
	if [ -z "$datadir" ] && [ -f "$1/pgx_tde/keys" ]; then
		datadir=$1
	elif [ -z "$datadir" ] && [ -f "$1/../pgx_tde/keys" ]; then
		datadir=$1/..
	fi
}

datadir=""
for argument; do
	set_keys "${argument#--*=}"
	[ ! -f "$argument" ] || set_keys "$(dirname "$argument")"
done
[ -n "$datadir" ] || exec "$real" "$@"
exec pgx_keystore exec -D "$datadir" -- "$real" "$@"
