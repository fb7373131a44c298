# lib-bench.sh
#		What the shell benchmarks share; sourced by them after contrib/lib-setup.sh.
# shellcheck shell=bash disable=SC2154
# (the variables are those of lib-setup.sh, and of the script: progname, arguments, work)

# bench_as_user [PACKAGE]...: unless $work is set, which is then a working directory of that user's: install what is
# needed, become the unprivileged user and run this script again in a copy of the sources; does not return then.
bench_as_user()
{
	[ -z "$work" ] || return 0
	# shellcheck disable=SC2086 # a list of words
	setup_packages $setup_build_packages "$@"
	setup_machine_id
	setup_make_work pgx-bench
	setup_run_unprivileged "../tests/bench/$progname" "${arguments[@]}"
	[ "$status" -ne 0 ] || rm -rf "$work"
	exit "$status"
}

# bench_begin SERVER...: build, and be in $work with PATH and libpq set for servers in these directories there, which are
# stopped at the end however it comes.
bench_begin()
{
	bench_servers=("$@")
	say "== Building"
	setup_build
	setup_env
	mkdir -m 700 "$work/socket"
	export PGHOST=$work/socket PGUSER=postgres
	cd "$work" || exit
	trap bench_end EXIT
	trap 'exit 1' INT TERM
}

# shellcheck disable=SC2317 # called by the trap
bench_end()
{
	local server
	for server in "${bench_servers[@]}"; do
		"$setup_bindir/pg_ctl" -D "$work/$server" -m immediate stop >/dev/null 2>&1 || true
	done
}

# bench_make_server SERVER PORT LINES: the lines go into postgresql.conf.
bench_make_server()
{
	initdb -D "$1" -U postgres -A trust -k --no-instructions >>server.log
	printf "listen_addresses = ''\nunix_socket_directories = '%s'\nport = %s\nmax_wal_size = 8GB\n%s\n%s\n" \
		"$work/socket" "$2" "checkpoint_timeout = 30min" "$3" >>"$1/postgresql.conf"
}

bench_start()
{
	"$setup_bindir/pg_ctl" -D "$1" -l "$1.log" start >>server.log || { tail "$1.log"; die "could not start the server"; }
}

bench_stop()
{
	"$setup_bindir/pg_ctl" -D "$1" stop >>server.log
}

# bench_machine DIRECTORY...: the machine, and what these directories lie on.
bench_machine()
{
	say "== Machine and settings"
	sed -n 's/^model name[[:space:]]*: /CPU: /p' /proc/cpuinfo | sort | uniq -c | sed 's/^ *\([0-9]*\) CPU: /\1 x /'
	grep -o -w -E 'aes|vaes|avx2|avx512f' /proc/cpuinfo | sort -u | tr '\n' ' '
	sed -n 's/^MemTotal: */memory: /p' /proc/meminfo
	say "kernel: $(uname -r); file systems: $(df --output=source,fstype "$@" | tail -n +2 | tr -s ' \n' ' '); $(postgres --version)"
	say "load before: $(cut -d' ' -f1-3 /proc/loadavg)"
}

# The median of the numbers on standard input, one a line.
bench_median()
{
	sort -n | awk '{ v[NR] = $1 } END { if (NR) printf "%.4g\n", NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2; else print "-" }'
}
