#!/usr/bin/env bash
#
# backup.sh [-s SCALE] [-n ROUNDS] [-j JOBS] [-c CPU]
#		Backup and restore by pgx_dmpall and pgx_rcvall, beside pgBackRest with its own encryption, in
#		alternating rounds; prints a table of medians.  See README.md beside this file.

set -euo pipefail

progname=backup.sh
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
# shellcheck source=contrib/lib-setup.sh
. "$top/contrib/lib-setup.sh"
# shellcheck source=tests/bench/lib-bench.sh
. "$top/tests/bench/lib-bench.sh"

usage()
{
	cat <<USAGE
Usage: tests/bench/backup.sh [OPTION]...
  -s SCALE      pgbench's scale factor (default 100, about 1.5 GB per server)
  -n ROUNDS     runs of each (default 5)
  -j JOBS       processes or threads of each (default 1)
  -c CPU        everything, servers too, on this one processor
USAGE
}

scale=100 rounds=5 jobs=1 cpu="" work=""
arguments=("$@")
while [ $# -gt 0 ]; do
	case $1 in
		-s) shift; scale=$1 ;;
		-n) shift; rounds=$1 ;;
		-j) shift; jobs=$1 ;;
		-c) shift; cpu=$1 ;;
		--work) shift; work=$1 ;;	# from ourselves, see below
		-\?|--help) usage; exit 0 ;;
		*) usage >&2; die "unrecognized argument \"$1\"" ;;
	esac
	shift
done

bench_as_user pgbackrest time
bench_begin tde plain
# What one process does may be in threads, ours, or in a process and its helper, pgBackRest's; on one processor it is
# all the same.
[ -z "$cpu" ] || taskset -p -c "$cpu" $$ >>server.log

# ---- two servers with the same data -----------------------------------------------------------------
# Ours encrypts; pgBackRest's users have a plain server and let the repository encrypt.

conf="shared_buffers = 512MB
autovacuum = off
archive_mode = on"
mkdir -m 700 keys encrypted area area/archived_wal repo repo/cbc repo/zst repo/log repo/lock repo/spool
bench_make_server tde 5432 "$conf
shared_preload_libraries = 'pgx_tde'
pgx_tde.keystore_location = '$work/keys'
pgx_tde.backup_destination = '$work/area'
archive_command = 'pgx_walcopy \"%p\" \"$work/area/archived_wal/%f\"'"
bench_make_server plain 5433 "$conf
archive_command = 'pgbackrest --config=$work/pgbackrest.conf --stanza=bench archive-push %p'"
cat >pgbackrest.conf <<CONF
[global]
repo1-path=$work/repo/cbc
repo1-cipher-type=aes-256-cbc
repo1-cipher-pass=bench-passphrase
repo1-retention-full=1
repo2-path=$work/repo/zst
repo2-cipher-type=aes-256-cbc
repo2-cipher-pass=bench-passphrase
repo2-retention-full=1
log-path=$work/repo/log
lock-path=$work/repo/lock
spool-path=$work/repo/spool
log-level-console=error
log-level-file=off
start-fast=y
process-max=$jobs

[bench]
pg1-path=$work/plain
pg1-port=5433
pg1-socket-path=$work/socket
pg1-user=postgres
CONF
chmod 600 pgbackrest.conf

# The archive takes what any option of "backup" leaves it; it is no part of what is measured.
pgbackrest_do()
{
	pgbackrest --config="$work/pgbackrest.conf" --stanza=bench "$@"
}

bench_start tde
bench_start plain
pgbackrest_do --no-online stanza-create >>server.log 2>&1 || pgbackrest_do stanza-create >>server.log
pgx_keystore create --kdf-cost 10 keys/keystore.ks >>server.log <<<'bench passphrase'
psql -X -q -p 5432 -d postgres -v ON_ERROR_STOP=1 >/dev/null <<SQL
CREATE EXTENSION pgx_tde;
SELECT pgx_set_master_key('bench passphrase');
CREATE TABLESPACE enc LOCATION '$work/encrypted' WITH (tablespace_encryption_algorithm = 'AES256');
CREATE DATABASE bench TABLESPACE enc;
SQL
pgx_keystore --enable-auto-open keys/keystore.ks >>server.log <<<'bench passphrase'
psql -X -q -p 5433 -d postgres -c "CREATE DATABASE bench"
say "== Filling both servers, scale $scale"
for port in 5432 5433; do
	pgbench -p $port -i -q -s "$scale" bench >>server.log 2>&1
	psql -X -q -p $port -d bench -c "CHECKPOINT"
done

bench_machine "$work"
say "$(pgbackrest version); data: $(psql -XAtq -p 5432 -d bench -c \
	"SELECT pg_size_pretty(sum(pg_database_size(oid))) FROM pg_database"); processes or threads: $jobs${cpu:+; all on processor $cpu}"

# ---- what is measured ------------------------------------------------------------------------------------

# Run a command under GNU time: a line "NAME WHAT SECONDS PEAK_KB" in results; its output is in measured.out.
measured()
{
	local name=$1 what=$2
	shift 2
	/usr/bin/time -o time.out -f '%e %M' "$@" >measured.out 2>>server.log || {
		tail -n 5 server.log
		die "$what by $name failed; see $work/server.log"
	}
	printf '%s %s %s\n' "$name" "$what" "$(cat time.out)" >>results
}

# A member of the JSON that pgx_rcvall wrote.
told()
{
	sed -n "s/^ *\"$1\": \([0-9.]*\),*\$/\1/p" measured.out | awk '{ printf "%.2f", $1 }'
}

# A second figure from two that are there: "NAME WHAT" is the sum of the last of two others.
sum_of_last()
{
	local name=$1 what=$2
	awk -v n="$name" -v a="$3" -v b="$4" '$1 == n && $2 == a { x = $3 } $1 == n && $2 == b { y = $3 }
		END { print x + y }' results | sed "s/^/$name $what /; s/\$/ 0/" >>results.sum
	cat results.sum >>results
	rm results.sum
}

bytes_below()
{
	du -sb --exclude=archive "$1" | cut -f1
}

newest_in_area()
{
	# shellcheck disable=SC2012 # names are ours
	ls -1d "$work"/area/20*_*-*-?? | grep -v incomplete | tail -n 1
}

empty_directory()
{
	find "$1" -mindepth 1 -delete
}

# pgBackRest's restore ends with files; so that both end alike, the server then recovers as ours does, to the end of
# the archive, and is stopped again.
recover_plain()
{
	local status=""
	# As ours: nobody can connect before the end, and "ready" means that.
	"$setup_bindir/pg_ctl" -D "$work/plain" -l "$work/plain.log" -W -o '-c hot_standby=off' start
	until [ "$status" = ready ]; do
		sleep 0.01
		status=$(sed -n '8s/ *$//p' "$work/plain/postmaster.pid" 2>/dev/null || true)
	done
	"$setup_bindir/pg_ctl" -D "$work/plain" -w stop
}
export -f recover_plain
export work setup_bindir

run_pgx()
{
	local name=$1
	shift
	rm -rf "$work"/area/20*
	psql -X -q -p 5432 -d bench -c "CHECKPOINT"
	measured "$name" backup pgx_dmpall -D "$work/tde" --keep 1 "$@"
	printf '%s size %s 0\n' "$name" "$(bytes_below "$(newest_in_area)")" >>results
	case $* in *--no-verify*) ;; *) return 0 ;; esac
	bench_stop tde
	empty_directory tde
	empty_directory encrypted
	measured "$name" restore pgx_rcvall -D "$work/tde" -B "$work/area" --json "${restore_options[@]}"
	printf '%s files %s 0\n%s own 0 %s\n' "$name" "$(told files_seconds)" "$name" "$(told peak_kilobytes)" >>results
	bench_start tde
}

run_pgbackrest()
{
	local name=$1 repo=$2 type=$3
	psql -X -q -p 5433 -d bench -c "CHECKPOINT"
	measured "$name" backup pgbackrest --config="$work/pgbackrest.conf" --stanza=bench --repo="$repo" \
		--type=full --compress-type="$type" backup
	printf '%s size %s 0\n' "$name" "$(bytes_below "$work/repo/$(basename "$(sed -n "s,^repo$repo-path=,,p" pgbackrest.conf)")/backup")" >>results
	bench_stop plain
	empty_directory plain
	# The default type: to the end of WAL, and then it begins a new timeline, as ours.
	measured "$name" files pgbackrest --config="$work/pgbackrest.conf" --stanza=bench --repo="$repo" restore
	measured "$name" recovery bash -c recover_plain
	sum_of_last "$name" restore files recovery
	bench_start plain
}

restore_options=()
[ "$jobs" -eq 1 ] || restore_options=(--jobs "$jobs")
names=(pgx-plain pgx-zstd pgx-zstd-verified pgbackrest-cbc pgbackrest-cbc-zst)
run_one()
{
	case $1 in
		pgx-plain) run_pgx "$1" --no-verify ;;
		pgx-zstd) run_pgx "$1" --no-verify --compress=zstd --jobs="$jobs" ;;
		pgx-zstd-verified) run_pgx "$1" --compress=zstd --jobs="$jobs" ;;
		pgbackrest-cbc) run_pgbackrest "$1" 1 none ;;
		pgbackrest-cbc-zst) run_pgbackrest "$1" 2 zst ;;
	esac
}

# One round that does not count; then forth and back: what drifts with time falls on all alike.
say "== Rounds: $rounds"
for name in "${names[@]}"; do run_one "$name"; done
: >results
for ((i = 1; i <= rounds; i++)); do
	if ((i % 2)); then
		for name in "${names[@]}"; do run_one "$name"; done
	else
		for ((k = ${#names[@]} - 1; k >= 0; k--)); do run_one "${names[k]}"; done
	fi
done
say "load after: $(cut -d' ' -f1-3 /proc/loadavg)"

median()
{
	awk -v n="$1" -v w="$2" -v c="$3" '$1 == n && $2 == w { print $c }' results | bench_median
}

# The peak of the command itself; of pgx_rcvall what it says of itself, since its server is its child.
peak()
{
	awk -v n="$1" -v w="$2" '$1 == n && $2 == w && $4 > m { m = $4 } END { if (m) printf "%.0f", m / 1024; else print "-" }' results
}

printf '\n| | backup, s | restore, files, s | and recovery, s | size, MiB | memory of backup, MiB | of restore, MiB |\n'
printf '|---|---|---|---|---|---|---|\n'
for name in "${names[@]}"; do
	case $name in pgx*) own=own ;; *) own=files ;; esac
	printf '| %s | %s | %s | %s | %.1f | %s | %s |\n' "$name" "$(median "$name" backup 3)" \
		"$(median "$name" files 3)" "$(median "$name" restore 3)" \
		"$(median "$name" size 3 | awk '{ print $1 / 1048576 }')" "$(peak "$name" backup)" "$(peak "$name" "$own")"
done
say "
All runs, in seconds, are in this order:"
awk '$2 != "size" && $2 != "own" { k = $1 " " $2; v[k] = v[k] " " $3; if (!(k in seen)) { seen[k] = 1; o[++n] = k } }
	END { for (i = 1; i <= n; i++) print o[i] ":" v[o[i]] }' results
