#!/bin/sh
# A program of PostgreSQL that parses WAL, run by "pgx_keystore exec" with the key of the data directory (or
# backup) that is among its arguments; as it is where there is none.  Installed by tests/core/run.
real=@BINDIR@/@PROGRAM@

# The data directory is the one that is worked on: pg_rewind's target, not its source.  pg_waldump may be given the
# path of a segment instead.
datadir=""
waldir=""
before=""
for argument; do
	value=${argument#--*=}
	case $argument in
		--source-pgdata=*) ;;
		--wal-directory=*) waldir=$value ;;
		*)
			if [ "$before" = -w ] || [ "$before" = --wal-directory ]; then
				waldir=$value
			elif [ -f "$value/pgx_tde/keys" ]; then
				datadir=$value
			elif [ -f "$value/../pgx_tde/keys" ]; then
				datadir=$value/..
			elif [ -f "$value" ] && [ -f "${value%/*}/../pgx_tde/keys" ]; then
				datadir=${value%/*}/..
			fi
	esac
	before=$argument
done
[ -n "$datadir" ] || exec "$real" "$@"
# Where pg_wal is a link, its target is the directory of the segments too.
: "${waldir:=$(readlink -f "$datadir/pg_wal")}"
exec pgx_keystore exec -D "$datadir" --wal-directory "$waldir" -- "$real" "$@"
