#!/usr/bin/env bash
#
# pgbench_pairs.sh [-s SCALE] [-T SECONDS] [-n PAIRS] [-a tablespace|server] [-o SETTING]...
#		Compare pgbench on an encrypted tablespace with the same on a plain one, in
#		alternating pairs, and print each pair.  See README.md beside this file.

set -euo pipefail

progname=pgbench_pairs.sh
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
# shellcheck source=contrib/lib-setup.sh
. "$top/contrib/lib-setup.sh"
# shellcheck source=tests/bench/lib-bench.sh
. "$top/tests/bench/lib-bench.sh"

usage()
{
	cat <<EOF
Usage: tests/bench/pgbench_pairs.sh [OPTION]...
  -s SCALE      pgbench's scale factor (default 50, about 750 MB per database)
  -T SECONDS    length of each run (default 60)
  -n PAIRS      pairs of runs (default 5)
  -c CLIENTS    clients (default 4; two threads)
  -a tablespace compare with a plain tablespace of the same server (default)
  -a server     compare with a server that does not load the module at all
  -o SETTING    one more line for postgresql.conf, e.g. "shared_buffers = 2GB"
EOF
}

scale=50 seconds=60 pairs=5 clients=4 against=tablespace work=""
settings=("shared_buffers = 1GB")
arguments=("$@")
while [ $# -gt 0 ]; do
	case $1 in
		-s) shift; scale=$1 ;;
		-T) shift; seconds=$1 ;;
		-n) shift; pairs=$1 ;;
		-c) shift; clients=$1 ;;
		-a) shift; against=$1 ;;
		-o) shift; settings+=("$1") ;;
		--work) shift; work=$1 ;;	# from ourselves, see below
		-\?|--help) usage; exit 0 ;;
		*) usage >&2; die "unrecognized argument \"$1\"" ;;
	esac
	shift
done
case $against in tablespace|server) ;; *) die "unrecognized value of -a: \"$against\"" ;; esac

bench_as_user
bench_begin tde plain
conf=$(printf '%s\n' "${settings[@]}")
mkdir -m 700 keys encrypted plain-ts
bench_make_server tde 5432 "$conf
shared_preload_libraries = 'pgx_tde'
pgx_tde.keystore_location = '$work/keys'"
bench_start tde
psql -X -q -p 5432 -d postgres -v ON_ERROR_STOP=1 >/dev/null <<EOF
CREATE EXTENSION pgx_tde;
SELECT pgx_set_master_key('pgbench passphrase');
CREATE TABLESPACE encrypted LOCATION '$work/encrypted' WITH (tablespace_encryption_algorithm = 'AES256');
CREATE TABLESPACE plain LOCATION '$work/plain-ts' WITH (tablespace_encryption_algorithm = 'none');
CREATE DATABASE encrypted TABLESPACE encrypted;
EOF
other_port=5432
if [ "$against" = server ]; then
	other_port=5433
	bench_make_server plain $other_port "$conf"
	bench_start plain
	psql -X -q -p $other_port -d postgres -c "CREATE DATABASE plain"
else
	psql -X -q -p $other_port -d postgres -c "CREATE DATABASE plain TABLESPACE plain"
fi
say "== Filling both databases, scale $scale"
pgbench -p 5432 -i -q -s "$scale" encrypted >>server.log 2>&1
pgbench -p $other_port -i -q -s "$scale" plain >>server.log 2>&1

bench_machine "$work"
printf '%s; ' "${settings[@]}"
say "pgbench -M prepared -c $clients -j 2 -T $seconds; against: plain $against"

one_run()
{
	local port=5432
	[ "$1" = encrypted ] || port=$other_port
	psql -X -q -p "$port" -d "$1" -c "CHECKPOINT"
	pgbench -n -p "$port" -M prepared -c "$clients" -j 2 -T "$seconds" "$1" 2>>server.log |
		sed -n 's/^tps = \([0-9.]*\).*/\1/p'
}

# One run of each that does not count: caches are filled then.
one_run encrypted >/dev/null
one_run plain >/dev/null

say "== Pairs (transactions per second)"
printf '%4s %12s %12s %8s\n' pair encrypted plain ratio
ratios=""
for ((i = 1; i <= pairs; i++)); do
	# AB, BA, AB, ...: what drifts with time falls on both alike.
	if ((i % 2)); then
		encrypted=$(one_run encrypted)
		plain=$(one_run plain)
	else
		plain=$(one_run plain)
		encrypted=$(one_run encrypted)
	fi
	[ -n "$encrypted" ] && [ -n "$plain" ] || die "pgbench gave no result; see $work/server.log"
	ratio=$(awk -v a="$encrypted" -v b="$plain" 'BEGIN { printf "%.4f", a / b }')
	ratios="$ratios$ratio
"
	printf '%4d %12.1f %12.1f %8s\n' "$i" "$encrypted" "$plain" "$ratio"
done
say "median ratio: $(printf '%s' "$ratios" | bench_median)"
