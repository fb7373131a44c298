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
settings=("shared_buffers = 1GB" "max_wal_size = 8GB" "checkpoint_timeout = 30min")
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

if [ -z "$work" ]; then
	# shellcheck disable=SC2086 # a list of words
	setup_packages $setup_build_packages
	setup_make_work pgx-bench
	setup_run_unprivileged ../tests/bench/pgbench_pairs.sh "${arguments[@]}"
	[ "$status" -ne 0 ] || rm -rf "$work"
	exit "$status"
fi

say "== Building"
setup_build
setup_env
mkdir -m 700 "$work/socket"
export PGHOST=$work/socket PGUSER=postgres
cd "$work"
trap 'for s in tde plain; do "$setup_bindir/pg_ctl" -D $s -m immediate stop >/dev/null 2>&1 || true; done' EXIT
trap 'exit 1' INT TERM

# data directory, port, further lines of postgresql.conf
start_server()
{
	initdb -D "$1" -U postgres -A trust -k --no-instructions >>server.log
	{
		printf "listen_addresses = ''\nunix_socket_directories = '%s'\nport = %s\n" "$work/socket" "$2"
		printf '%s\n' "${settings[@]}"
		printf '%s' "${3:-}"
	} >>"$1/postgresql.conf"
	pg_ctl -D "$1" -l "$1.log" start >>server.log || { tail "$1.log"; die "could not start the server"; }
}

mkdir -m 700 keys encrypted plain-ts
start_server tde 5432 "shared_preload_libraries = 'pgx_tde'
pgx_tde.keystore_location = '$work/keys'
"
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
	start_server plain $other_port
	psql -X -q -p $other_port -d postgres -c "CREATE DATABASE plain"
else
	psql -X -q -p $other_port -d postgres -c "CREATE DATABASE plain TABLESPACE plain"
fi
say "== Filling both databases, scale $scale"
pgbench -p 5432 -i -q -s "$scale" encrypted >>server.log 2>&1
pgbench -p $other_port -i -q -s "$scale" plain >>server.log 2>&1

say "== Machine and settings"
sed -n 's/^model name[[:space:]]*: /CPU: /p' /proc/cpuinfo | sort | uniq -c | sed 's/^ *\([0-9]*\) CPU: /\1 x /'
grep -o -w -E 'aes|vaes|avx2|avx512f' /proc/cpuinfo | sort -u | tr '\n' ' '
sed -n 's/^MemTotal: */memory: /p' /proc/meminfo
say "kernel: $(uname -r); file system: $(df --output=fstype "$work" | tail -n 1); $(postgres --version)"
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
printf '%s' "$ratios" | sort -n |
	awk '{ r[NR] = $1 } END { m = NR % 2 ? r[(NR + 1) / 2] : (r[NR / 2] + r[NR / 2 + 1]) / 2; printf "median ratio: %.4f\n", m }'
