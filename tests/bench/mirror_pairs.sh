#!/usr/bin/env bash
#
# mirror_pairs.sh [-s SCALE] [-T SECONDS] [-n ROUNDS] [-c "CLIENTS ..."] [-m DIR]
#		What does a second copy of WAL cost?  pgbench without one, with mirrored WAL, and
#		with pg_receivewal as a synchronous standby, in alternating runs on one server.
#		See README.md beside this file.

set -euo pipefail

progname=mirror_pairs.sh
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
# shellcheck source=contrib/lib-setup.sh
. "$top/contrib/lib-setup.sh"
# shellcheck source=tests/bench/lib-bench.sh
. "$top/tests/bench/lib-bench.sh"

usage()
{
	cat <<EOF
Usage: tests/bench/mirror_pairs.sh [OPTION]...
  -s SCALE      pgbench's scale factor (default 20)
  -T SECONDS    length of each run (default 20)
  -n ROUNDS     rounds of three runs (default 5)
  -c "CLIENTS"  numbers of clients (default "1 8")
  -m DIR        where the second copies go, e.g. on another disk (default: beside the server)
EOF
}

scale=20 seconds=20 rounds=5 clients="1 8" second="" work=""
arguments=("$@")
while [ $# -gt 0 ]; do
	case $1 in
		-s) shift; scale=$1 ;;
		-T) shift; seconds=$1 ;;
		-n) shift; rounds=$1 ;;
		-c) shift; clients=$1 ;;
		-m) shift; second=$1 ;;
		--work) shift; work=$1 ;;	# from ourselves, see below
		-\?|--help) usage; exit 0 ;;
		*) usage >&2; die "unrecognized argument \"$1\"" ;;
	esac
	shift
done

bench_as_user
bench_begin data
second=${second:-$work}
mkdir -m 700 "$second/mirror" "$second/received" "$work/keys"
export PGPORT=5432 PGDATABASE=postgres
receiver=""
trap '[ -z "$receiver" ] || kill "$receiver" 2>/dev/null; bench_end' EXIT

bench_make_server data 5432 "shared_buffers = 512MB
shared_preload_libraries = 'pgx_tde'
pgx_tde.keystore_location = '$work/keys'
pgx_tde.online_wal_directory = '$second/mirror'"
bench_start data
ask() { psql -X -q -A -t -v ON_ERROR_STOP=1 -c "$1"; }
ask "CREATE EXTENSION pgx_tde"
ask "SELECT pgx_set_master_key('pgbench passphrase')" >/dev/null
ask "SELECT pg_create_physical_replication_slot('received')" >/dev/null
pgbench -i -q -s "$scale" >>server.log 2>&1

bench_machine "$work" "$second"
say "pgbench -M prepared -T $seconds, scale $scale, $rounds rounds"

# What the next run has.  Each change is waited for.
use_mirror()
{
	[ "$(ask "SELECT pgx_is_wal_multiplexing_paused()")" = f ] || ask "SELECT pgx_resume_wal_multiplexing()" >/dev/null
}
use_no_mirror()
{
	[ "$(ask "SELECT pgx_is_wal_multiplexing_paused()")" = t ] || ask "SELECT pgx_pause_wal_multiplexing()" >/dev/null
}
use_receiver()
{
	PGAPPNAME=received pg_receivewal -D "$second/received" -S received --synchronous --no-loop >>server.log 2>&1 &
	receiver=$!
	ask "ALTER SYSTEM SET synchronous_standby_names = 'received'"
	ask "SELECT pg_reload_conf()" >/dev/null
	for ((k = 0; k < 300; k++)); do
		[ "$(ask "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'")" != 1 ] || return 0
		sleep 0.1
	done
	die "pg_receivewal does not become a synchronous standby; see $work/server.log"
}
use_no_receiver()
{
	[ -n "$receiver" ] || return 0
	ask "ALTER SYSTEM RESET synchronous_standby_names"
	ask "SELECT pg_reload_conf()" >/dev/null
	kill -INT "$receiver"
	wait "$receiver" || true
	receiver=""
}

# one_run WHAT CLIENTS: transactions per second, to the file tps
one_run()
{
	if [ "$1" = mirror ]; then use_mirror; else use_no_mirror; fi
	[ "$1" != received ] || use_receiver
	ask "CHECKPOINT"
	pgbench -n -M prepared -c "$2" -j 2 -T "$seconds" 2>>server.log | sed -n 's/^tps = \([0-9.]*\).*/\1/p' >tps
	use_no_receiver
}

for c in $clients; do
	say "== $c clients (transactions per second, and as a ratio to none)"
	one_run none "$c"			# does not count: caches are filled then
	printf '%5s %10s %10s %10s %8s %8s\n' round none mirror received mirror received
	: >ratios.mirror
	: >ratios.received
	for ((i = 0; i < rounds; i++)); do
		# Each of the three is first, second and last in turn: what drifts with time falls on all alike.
		for ((j = 0; j < 3; j++)); do
			case $(((i + j) % 3)) in
				0) one_run none "$c"; none=$(cat tps) ;;
				1) one_run mirror "$c"; mirror=$(cat tps) ;;
				2) one_run received "$c"; received=$(cat tps) ;;
			esac
		done
		[ -n "$none" ] && [ -n "$mirror" ] && [ -n "$received" ] || die "pgbench gave no result; see $work/server.log"
		awk -v n="$none" -v m="$mirror" -v r="$received" -v i="$i" 'BEGIN {
			printf "%5d %10.1f %10.1f %10.1f %8.3f %8.3f\n", i + 1, n, m, r, m / n, r / n
			print m / n >>"ratios.mirror"; print r / n >>"ratios.received" }'
	done
	say "median ratio: mirror $(bench_median <ratios.mirror), received $(bench_median <ratios.received)"
done
[ "$(ask "SELECT failures FROM pgx_wal_mirror_status")" = 0 ] || die "mirroring has failed; see $work/data.log"
