#!/usr/bin/env bash
#
# engine.sh [--rounds N] [--seconds N] [--scale N] [--only TEXT] [--with LIST] [--out DIR]
#		What encryption costs, workload by workload: plain PostgreSQL, pgx_tde with the
#		whole cluster encrypted, and what a user would pick instead, gocryptfs and
#		fscrypt, side by side in one run on one file system.  See README.md beside this file.
#
# Needs root for the file systems: an ext4 in a file, mounted through a loop device, and FUSE.

set -euo pipefail

progname=engine.sh
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
# shellcheck source=contrib/lib-setup.sh
. "$top/contrib/lib-setup.sh"

usage()
{
	cat <<EOF_USAGE
Usage: tests/bench/engine.sh [OPTION]...
  --rounds N     rounds (default 5)
  --seconds N    length of each run of pgbench (default 15)
  --scale N      pgbench's scale factor of the large database (default 100, 1.5 GB; the buffers are an eighth)
  --only TEXT    only workloads whose title contains this
  --with LIST    what to compare with plain (default pgx_tde,gocryptfs,fscrypt)
  --out DIR      where the table, the numbers and the plot go (default the current directory)
EOF_USAGE
}

with=pgx_tde,gocryptfs,fscrypt out=$PWD scale=100
options=()
while [ $# -gt 0 ]; do
	case $1 in
		--rounds|--seconds|--only) options+=("$1" "$2"); shift ;;
		--scale) options+=("$1" "$2"); scale=$2; shift ;;
		--with) shift; with=$1 ;;
		--out) shift; out=$1 ;;
		-\?|--help) usage; exit 0 ;;
		*) usage >&2; die "unrecognized argument \"$1\"" ;;
	esac
	shift
done
[ "$(id -u)" -eq 0 ] || die "must be run by root, who can mount file systems"

# shellcheck disable=SC2086 # lists of words
setup_packages $setup_build_packages e2fsprogs gocryptfs fuse3 fscrypt gnuplot-nox python3
setup_machine_id
setup_make_user
setup_make_work pgx-engine
mounted=()
# shellcheck disable=SC2317 # called by the trap
clean_up()
{
	local i
	cd /
	for ((i = ${#mounted[@]} - 1; i >= 0; i--)); do
		# What served a FUSE mount ends a little after it.
		for _ in $(seq 60); do
			umount "${mounted[i]}" 2>/dev/null && break
			sleep 0.3
		done
	done
	[ "${#mounted[@]}" -eq 0 ] || mountpoint -q "${mounted[0]}" || rm -rf "$work"
}
trap clean_up EXIT

setup_copy_sources "$top" "$work/src"
say "== Building"
setup_build
setup_env

disk=$work/disk
mkdir "$disk" "$work/run"
truncate -s $((scale * 120 + 8000))M "$work/disk.img"
mkfs.ext4 -q -O encrypt -E lazy_itable_init=0,lazy_journal_init=0 "$work/disk.img"
mount -o loop "$work/disk.img" "$disk"
mounted+=("$disk")
chown "$setup_user:" "$disk" "$work/run"

as_user()
{
	runuser -u "$setup_user" -- env HOME="$(setup_home_of "$setup_user")" "$@"
}

# A directory of the user's for one cluster, on the file system that is asked for.
make_gocryptfs()
{
	head -c 24 /dev/urandom | base64 >"$work/run/pass"
	chown "$setup_user:" "$work/run/pass"
	as_user mkdir "$disk/gocryptfs.d" "$disk/gocryptfs"
	as_user gocryptfs -q -init -passfile "$work/run/pass" "$disk/gocryptfs.d"
	as_user gocryptfs -q -nosyslog -passfile "$work/run/pass" "$disk/gocryptfs.d" "$disk/gocryptfs"
	mounted+=("$disk/gocryptfs")
}

make_fscrypt()
{
	head -c 32 /dev/urandom >"$work/run/key"
	[ -e /etc/fscrypt.conf ] || fscrypt setup --quiet --force >/dev/null
	fscrypt setup --quiet "$disk" >/dev/null || return 1
	mkdir "$disk/fscrypt"
	fscrypt encrypt --quiet --source=raw_key --name=bench --key="$work/run/key" "$disk/fscrypt" || return 1
	chown "$setup_user:" "$disk/fscrypt"
}

make_pgx_tde()
{
	as_user mkdir -m 700 "$disk/pgx_tde"
}

real_initdb=$setup_bindir/initdb
as_user mkdir "$disk/plain"
as_user "$real_initdb" -U postgres -A trust --data-checksums -D "$disk/plain/data" >/dev/null
servers=("plain=$disk/plain")
for name in ${with//,/ }; do
	if ! "make_$name"; then
		say "$name is left out: this machine cannot do it"
		continue
	fi
	if [ "$name" = pgx_tde ]; then
		printf 'a passphrase of the benchmark\n' | as_user "$PGX_SHIM_DIR/initdb" --encrypt=AES256 \
			--keystore-location "$disk/keys" --keystore-passphrase -U postgres -A trust --data-checksums \
			-D "$disk/pgx_tde/data" >/dev/null
		printf 'a passphrase of the benchmark\n' |
			as_user pgx_keystore --enable-auto-open "$disk/keys/keystore.ks" >/dev/null
	else
		as_user "$real_initdb" -U postgres -A trust --data-checksums -D "$disk/$name/data" >/dev/null
	fi
	servers+=("$name=$disk/$name")
done

say "== Measuring: ${servers[*]%%=*}"
# The servers' memory and disk caches are the measure, not what the build left behind.
sync
as_user python3 "$top/tests/bench/engine.py" --out "$work/run" ${options[@]+"${options[@]}"} "${servers[@]}"
(cd "$work/run" && gnuplot "$top/tests/bench/engine.gp")
mkdir -p "$out"
cp "$work/run/engine.md" "$work/run/engine.csv" "$work/run/engine.svg" "$out/"
cat "$work/run/engine.md"
