# shellcheck shell=bash disable=SC2034,SC2154
# lib-roots.sh
#		Debian releases other than this machine's, each in a folder of its own, made
#		by debootstrap and kept; and running something in them.  To be sourced by bash
#		after lib-setup.sh.
#
# A root is used in namespaces of its own for mounts and processes: what was mounted or
# started for a run is gone when the run ends, however it ends.

roots_cache=${PGX_ROOTS:-/var/cache/pgx-tde}

# The release of Debian that has a major version of PostgreSQL; nothing if none has.
roots_suite()
{
	case $1 in
		15) echo bookworm ;;
		17) echo trixie ;;
		18) echo sid ;;
	esac
}

# Where packages come from is what apt of this machine says.
roots_mirror()
{
	# shellcheck disable=SC2016 # apt's own format
	apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' 2>/dev/null |
		sed -n 's|/*$||; /\/debian$/p' | head -n 1
}

# Why no root can be made for a major version here; nothing if it can.
roots_reason()
{
	local major=$1

	if [ -z "$(roots_suite "$major")" ]; then
		echo "no release of Debian has PostgreSQL $major"
	elif [ "$(id -u)" -ne 0 ]; then
		echo "only root can make the root of another release"
	elif ! command -v apt-get >/dev/null || [ -z "$(roots_mirror)" ]; then
		echo "apt of this machine names no mirror of Debian"
	elif ! unshare --mount --propagation private --pid --fork chroot / mount -t proc proc /proc 2>/dev/null; then
		echo "this machine does not allow namespaces, chroot and mounts"
	fi
}

# Make the root of a release, if it is not there yet.  Sets root.  Returns 1 if it cannot be made; the reason is
# at the end of $root.log.
roots_make()
{
	local suite=$1

	root=$roots_cache/$suite
	mkdir -p "$roots_cache"
	if [ ! -d "$root" ]; then
		say "== Making a root of Debian $suite in $root"
		rm -rf "$root.new"
		if ! timeout -k 10 1800 debootstrap --variant=minbase --include=ca-certificates "$suite" "$root.new" \
			"$(roots_mirror)" >"$root.log" 2>&1; then
			return 1
		fi
		# These roots are made again when they are lost; nothing in them has to survive a crash.
		echo force-unsafe-io >"$root.new/etc/dpkg/dpkg.cfg.d/unsafe-io"
		# A mirror of sid that is some days behind is good enough to test on.
		echo 'Acquire::Check-Valid-Until "false";' >"$root.new/etc/apt/apt.conf.d/90valid-until"
		apt-config dump | grep -i '^Acquire::.*Proxy' >"$root.new/etc/apt/apt.conf.d/90proxy" || true
		mv "$root.new" "$root"
	fi
	cp -L /etc/resolv.conf "$root/etc/resolv.conf" 2>/dev/null || true
}

# Run a command in $root, as root, with an environment of its own; the variables named before "--" are added.
roots_run()
{
	local environment=()

	while [ "$1" != -- ]; do
		environment+=("$1")
		shift
	done
	shift
	# shellcheck disable=SC2016 # expanded inside
	unshare --mount --propagation private --pid --fork --kill-child sh -c '
		root=$1
		shift
		mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" &&
			exec chroot "$root" env -i "$@"' \
		sh "$root" PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
		LANG=C.UTF-8 ${environment[@]+"${environment[@]}"} "$@"
}

# Put the checkout into $root as /srv/pgx-tde.
roots_copy_sources()
{
	rm -rf "$root/srv/pgx-tde"
	setup_copy_sources "$top" "$root/srv/pgx-tde"
}
