#!/usr/bin/env bash
#
# engine.sh [--rounds N] [--seconds N] [--scale N] [--only TEXT,...] [--with LIST] [--major N] [--disk DIR] [--out DIR]
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
# shellcheck source=contrib/lib-roots.sh
. "$top/contrib/lib-roots.sh"

usage()
{
	cat <<EOF_USAGE
Usage: tests/bench/engine.sh [OPTION]...
  --rounds N       rounds (default 3), after one that is not counted
  --seconds N      length of each run of pgbench (default 6)
  --scale N        pgbench's scale factor of the large database (default 30, 450 MB; the buffers are an eighth)
  --only TEXT,...  only workloads whose title contains one of these
  --with LIST      what to compare with plain (default pgx_tde,gocryptfs,fscrypt)
  --major N        major version of PostgreSQL; where this release of Debian has another, it is run in the root
                   that contrib/run-matrix uses, with pgx_tde alone unless --with says more
  --disk DIR       where the file system's file lies (default \$TMPDIR); /dev/shm takes the disk out of the figures
  --out DIR        where engine-MAJOR.md, .csv and .svg go (default tests/bench/results)
EOF_USAGE
}

with="" out=$top/tests/bench/results scale=30 major=$setup_major disk_dir=""
options=()
while [ $# -gt 0 ]; do
	case $1 in
		--rounds|--seconds|--only) options+=("$1" "$2"); shift ;;
		--scale) options+=("$1" "$2"); scale=$2; shift ;;
		--with) shift; with=$1 ;;
		--major) shift; major=$1 ;;
		--disk) shift; disk_dir=$1 ;;
		--out) shift; out=$1 ;;
		-\?|--help) usage; exit 0 ;;
		*) usage >&2; die "unrecognized argument \"$1\"" ;;
	esac
	shift
done
[ "$(id -u)" -eq 0 ] || die "must be run by root, who can mount file systems"

# Another release's server: this script again, in that release's root.
if [ "$major" != "$setup_major" ]; then
	reason=$(roots_reason "$major")
	[ -z "$reason" ] || die "PostgreSQL $major cannot be measured: $reason"
	setup_packages debootstrap
	roots_make "$(roots_suite "$major")" || die "debootstrap failed, see $root.log"
	inside=/srv/pgx-tde-engine
	rm -rf "${root:?}$inside"
	setup_copy_sources "$top" "$root$inside"
	roots_run PG_MAJOR="$major" -- "$inside/tests/bench/engine.sh" --with "${with:-pgx_tde}" \
		--out "$inside/results" ${options[@]+"${options[@]}"} ${disk_dir:+--disk "$disk_dir"}
	mkdir -p "$out"
	cp "$root$inside/results/engine-$major".* "$out/"
	exit 0
fi
with=${with:-pgx_tde,gocryptfs,fscrypt}

peer_packages=""
case ,$with, in *,gocryptfs,*) peer_packages="gocryptfs fuse3" ;; esac
case ,$with, in *,fscrypt,*) peer_packages="$peer_packages fscrypt" ;; esac
# shellcheck disable=SC2086 # lists of words
setup_packages $setup_build_packages e2fsprogs mount gnuplot-nox python3 $peer_packages
setup_machine_id
setup_make_user
setup_make_work pgx-engine
image=${disk_dir:-$work}/${work##*/}.img
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
	rm -f "$image"
	[ "${#mounted[@]}" -eq 0 ] || mountpoint -q "${mounted[0]}" || rm -rf "$work"
}
trap clean_up EXIT

setup_copy_sources "$top" "$work/src"
say "== Building"
setup_build
setup_env

disk=$work/disk
mkdir "$disk" "$work/run"
truncate -s $((scale * 160 + 8000))M "$image"
mkfs.ext4 -q -O encrypt -E lazy_itable_init=0,lazy_journal_init=0 "$image"
mount -o loop "$image" "$disk"
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

say "== Measuring PostgreSQL $major: ${servers[*]%%=*}"
# The servers' memory and disk caches are the measure, not what the build left behind.
sync
as_user python3 "$top/tests/bench/engine.py" --out "$work/run" ${options[@]+"${options[@]}"} "${servers[@]}"
(cd "$work/run" && gnuplot "$top/tests/bench/engine.gp")
mkdir -p "$out"
for suffix in md csv svg; do
	cp "$work/run/engine.$suffix" "$out/engine-$major.$suffix"
done
cat "$work/run/engine.md"
