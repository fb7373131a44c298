# shellcheck shell=bash
#
# lib-quickstart.sh
#		How contrib/quickstart shows and checks its steps, and what it asks of the two servers.  It sets "progname"
#		and "work" before it reads this.

# ---- how the steps are shown and checked ---------------------------------------

# The number goes on in the part that root adds at the end.
steps=0

step()
{
	steps=$((steps + 1))
	printf '\n== %d. %s\n' "$steps" "$1"
}

indent()
{
	sed 's/^/    /' "$work/out"
}

fail()
{
	printf '\n%s: step %d failed: %s\n' "$progname" "$steps" "$1" >&2
	exit 1
}

ok()
{
	printf '  ok: %s\n' "$1"
}

# Run a command line as shown, or a second one where what is shown would be too long, with its output
# below it; returns its exit code.
try()
{
	local code=0
	printf '  $ %s\n' "$1"
	eval "${2:-$1}" >"$work/out" 2>&1 </dev/null || code=$?
	indent
	return "$code"
}

run()
{
	try "$1" || fail "the command above ended with exit code $?"
}

# Run a command that has to fail: exit code, a text that it or the log must show, the command, the log.
refused()
{
	local want=$1 text=$2 command=$3 log=${4:-} before=0 code=0

	[ -z "$log" ] || before=$(stat -c %s "$log" 2>/dev/null || echo 0)
	try "$command" || code=$?
	[ "$code" -eq "$want" ] || fail "exit code $code where $want was expected"
	if [ -n "$log" ]; then
		tail -c +$((before + 1)) "$log" >>"$work/out"
		printf '  %s now ends with:\n' "$log"
		tail -c +$((before + 1)) "$log" | grep -E 'FATAL|ERROR|HINT|DETAIL' | tail -n 4 | sed 's/^/    /' || true
	fi
	grep -qF -- "$text" "$work/out" || fail "the message \"$text\" did not appear"
	ok "refused, with exit code $want"
}

# SQL from standard input: no passphrase in any argument list.  server, database, statements.
sql()
{
	local code=0
	printf '%s\n' "$3" | sed "s/^/  $1=# /"
	printf '%s\n' "$3" | psql -X -q -v ON_ERROR_STOP=1 -p "$(port_of "$1")" -d "$2" >"$work/out" 2>&1 || code=$?
	indent
	[ "$code" -eq 0 ] || fail "psql ended with exit code $code"
}

# One value, not shown.
value()
{
	psql -X -qAt -v ON_ERROR_STOP=1 -p "$(port_of "$1")" -d "$2" -c "$3" ||
		fail "the query on the $1 failed: $3"
}

port_of()
{
	case $1 in primary) echo 5432 ;; standby) echo 5433 ;; esac
}

# ---- the two servers ----------------------------------------------------------------

# A server's settings.
server_settings()
{
	cat <<EOF
listen_addresses = ''
unix_socket_directories = '$work/socket'
port = $(port_of "$1")
shared_preload_libraries = 'pgx_tde'
pgx_tde.keystore_location = '$work/keys/$1'
archive_mode = on
archive_command = 'test ! -f $work/archive/$1/%f && cp %p $work/archive/$1/%f'
wal_compression = off
log_min_messages = info
EOF
}

pid_of()
{
	head -n 1 "$1/postmaster.pid"
}

generation_of()
{
	pgx_keystore info "keys/$1/keystore.ks" | sed -n 's/^[Gg]eneration: *//p'
}

# Wait until the standby has replayed all that the primary has written.
wait_for_standby()
{
	local lsn tries=0
	lsn=$(value primary postgres "SELECT pg_current_wal_lsn()")
	until [ "$(value standby postgres "SELECT pg_last_wal_replay_lsn() >= '$lsn'")" = t ]; do
		tries=$((tries + 1))
		[ "$tries" -lt 600 ] || fail "the standby did not reach $lsn within a minute"
		sleep 0.1
	done
}

# One line that says what is in the encrypted database, for comparison between servers.
content_of()
{
	value "$1" shop "
		SELECT 'customers '  || count(*) || ' ' || md5(string_agg(c::text, '|' ORDER BY id)) FROM customers c
		UNION ALL
		SELECT 'accounts ' || count(*) || ' ' || sum(hashtextextended(a::text, 0)) FROM pgbench_accounts a
		UNION ALL
		SELECT 'history ' || count(*) || ' ' || sum(hashtextextended(h::text, 0)) FROM pgbench_history h"
}

same_content()
{
	local primary standby
	wait_for_standby
	primary=$(content_of primary)
	standby=$(content_of standby)
	printf '%s\n' "$standby" | sed 's/^/    /'
	[ "$primary" = "$standby" ] || fail "primary and standby differ:
$primary"
	ok "the same rows on both servers, by checksum of their content"
}

# pgbench keeps four sums equal in every transaction.
balanced()
{
	local sums
	sums=$(value "$1" shop "
		SELECT (SELECT sum(abalance) FROM pgbench_accounts) || ' ' || (SELECT sum(tbalance) FROM pgbench_tellers)
		       || ' ' || (SELECT sum(bbalance) FROM pgbench_branches)
		       || ' ' || (SELECT coalesce(sum(delta), 0) FROM pgbench_history)")
	# shellcheck disable=SC2086 # four words
	set -- $sums
	[ "$1" = "$2" ] && [ "$1" = "$3" ] && [ "$1" = "$4" ] || fail "the balances differ: $sums"
	ok "the balances agree: $sums"
}

# A server that was refused has left nothing running.
not_running()
{
	if pg_ctl -D "$1" status >/dev/null; then fail "the $1 is running"; fi
}
