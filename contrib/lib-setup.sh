# shellcheck shell=bash disable=SC2034,SC2154,SC2164
# lib-setup.sh
#		What contrib/quickstart and contrib/run-tests do before their own work:
#		packages, an unprivileged user, a copy of the sources, the build, and a
#		temporary installation.  To be sourced by bash; it starts nothing by itself.
#
# The caller sets progname.  Nothing here writes into the checkout, into the
# server's own folders or below /usr/local.

# The major version of PostgreSQL: the one asked for in PG_MAJOR, or whose pg_config is named in PG_CONFIG, or the
# one that this release of Debian has.
setup_major=${PG_MAJOR:-}
if [ -z "$setup_major" ] && [ -x "${PG_CONFIG:-}" ]; then
	setup_major=$("$PG_CONFIG" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
fi
if [ -z "$setup_major" ]; then
	case $(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release 2>/dev/null) in
		trixie) setup_major=17 ;;
		forky|sid) setup_major=18 ;;
		*) setup_major=15 ;;
	esac
fi

# The one place that lists what Debian has to provide.
setup_build_packages="build-essential autoconf automake libtool pkg-config libssl-dev libpq-dev
	check libjansson-dev libtss2-dev libzstd-dev liblz4-dev postgresql-$setup_major postgresql-client-$setup_major
	postgresql-server-dev-$setup_major procps"
setup_test_packages="libipc-run-perl libio-pty-perl openssh-server openssh-client mandoc python3 strace gdb
	python3-cryptography swtpm pgbackrest barman"
# What PostgreSQL's own suites need besides.
setup_core_packages="dpkg-dev lz4 zstd gzip"

# Who runs the servers when root starts us: PostgreSQL refuses to run as root.
setup_user=${PGX_TEST_USER:-pgxtest}

# The pg_config of that major version; the one in PATH may be of another.
setup_pg_config=${PG_CONFIG:-/usr/lib/postgresql/$setup_major/bin/pg_config}

say()
{
	printf '%s\n' "$*"
}

die()
{
	printf '%s: error: %s\n' "$progname" "$*" >&2
	exit 1
}

# Run a command with its output in a file; show the end of it if the command fails.
setup_logged()
{
	local what=$1 log=$2
	shift 2
	if ! "$@" >>"$log" 2>&1; then
		printf '%s\n' "--- the last lines of $log:" >&2
		tail -n 60 "$log" >&2
		die "could not $what"
	fi
}

# Install what is missing of the packages named.  Takes the mirror from apt's own configuration.
setup_packages()
{
	local package missing="" as_root=""

	if ! command -v dpkg-query >/dev/null; then
		say "This is not a Debian system: configure will name what is missing."
		return 0
	fi
	for package in "$@"; do
		case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) in
			installed) ;;
			*) missing="$missing $package" ;;
		esac
	done
	[ -n "$missing" ] || return 0

	if [ "$(id -u)" -ne 0 ]; then
		# sudo may ask for a password, but only where somebody can answer.
		if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
			as_root=sudo
		else
			die "packages are missing, and neither root nor sudo is there to install them; have this run:
  apt-get update && apt-get install --no-install-recommends$missing"
		fi
	fi
	say "Installing:$missing"
	$as_root apt-get -q update >/dev/null || die "could not update the package lists (apt-get update)"
	# shellcheck disable=SC2086 # both are lists of words
	$as_root env DEBIAN_FRONTEND=noninteractive \
		apt-get -q install -y --no-install-recommends $missing >/dev/null ||
		die "could not install the packages:$missing"
}

# Automatic opening binds a keystore to the machine's ID.  An installed Debian has one; a container or a bare
# chroot may not.  What is made here is what systemd-machine-id-setup makes.
setup_machine_id()
{
	local as_root=""

	if grep -qsxE '[0-9a-f]{32}' /etc/machine-id /var/lib/dbus/machine-id; then
		return 0
	fi
	if [ "$(id -u)" -ne 0 ]; then
		if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
			as_root=sudo
		else
			die "this machine has no ID in /etc/machine-id; have root run:
  systemd-machine-id-setup    (or: tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id)"
		fi
	fi
	say "Making /etc/machine-id, which this machine lacks."
	$as_root sh -c 'tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id && chmod 444 /etc/machine-id' ||
		die "could not make /etc/machine-id"
}

# Make the unprivileged user if there is none.  Auto-open keeps its host secret in the home directory,
# so it has to be a real one.
setup_make_user()
{
	if ! getent passwd "$setup_user" >/dev/null; then
		say "Making the system user \"$setup_user\": PostgreSQL refuses to run as root."
		useradd --system --create-home --shell /bin/sh "$setup_user" ||
			die "could not make the user \"$setup_user\""
	fi
	[ -d "$(setup_home_of "$setup_user")" ] ||
		die "the user \"$setup_user\" has no home directory"
}

setup_home_of()
{
	getent passwd "$1" | cut -d: -f6
}

# Run a command as another user with an environment that has nothing of root's in it.
setup_as_user()
{
	local user=$1
	shift
	runuser -u "$user" -- env -i \
		HOME="$(setup_home_of "$user")" USER="$user" LOGNAME="$user" \
		PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin \
		LANG="${LANG:-C.UTF-8}" ${TERM:+TERM="$TERM"} \
		${CC:+CC="$CC"} ${CFLAGS:+CFLAGS="$CFLAGS"} ${TMPDIR:+TMPDIR="$TMPDIR"} \
		PG_MAJOR="$setup_major" ${PG_CONFIG:+PG_CONFIG="$PG_CONFIG"} \
		"$@"
}

# A perl program that makes itself the one who takes over the orphans of its descendants, and then becomes the
# command in its arguments.  Servers outlive the pg_ctl that started them; in a container whose first process
# does not wait for children, a killed server would stay as a zombie, and its data directory
# as in use.  bash and our perl do wait, and the setting outlives exec.
# shellcheck disable=SC2016 # perl's variables
setup_reaper='
	my %prctl = (x86_64 => 157, aarch64 => 167);
	chomp(my $machine = `uname -m`);
	syscall($prctl{$machine}, 36, 1, 0, 0, 0) if $prctl{$machine};	# PR_SET_CHILD_SUBREAPER
	exec @ARGV or die "could not run $ARGV[0]: $!\n";'

# Run a copy of one of our scripts, in $work, as a user that is not root: script, then its arguments.
# As root that is the unprivileged user, who then owns $work.  Sets status.
setup_run_unprivileged()
{
	local script=$1
	shift
	say "== Copying the sources to $work"
	setup_copy_sources "$top" "$work/src"
	status=0
	if [ "$(id -u)" -eq 0 ]; then
		setup_make_user
		chown -R "$setup_user:" "$work"
		cd "$work"
		setup_as_user "$setup_user" test -x "$work/src" ||
			die "the user \"$setup_user\" cannot reach \"$work\"; set TMPDIR to a directory that it can"
		setup_as_user "$setup_user" perl -e "$setup_reaper" \
			"$work/src/contrib/$script" --work "$work" "$@" || status=$?
	else
		perl -e "$setup_reaper" "$work/src/contrib/$script" --work "$work" "$@" || status=$?
	fi
	cd /
}

# A new folder for everything that follows.  Others may pass through it but not list it: a second user is
# let into one folder of quickstart.
setup_make_work()
{
	work=$(mktemp -d "${TMPDIR:-/tmp}/$1.XXXXXX") || die "could not make a temporary directory"
	setup_check_work
}

setup_check_work()
{
	work=$(cd "$work" && pwd -P)
	# Sockets lie in it, and the path of a socket has at most 107 bytes.
	[ ${#work} -le 70 ] || die "the path \"$work\" is too long; 70 bytes are the most"
	chmod 711 "$work"
}

# Copy the checkout as it is (what git knows or would add; without git, all but build products).  The copy
# is what is built, so a checkout that is read-only, another user's or configured in place will do.
setup_copy_sources()
{
	local from=$1 to=$2 name

	mkdir -p "$to"
	if [ -e "$from/.git" ] && command -v git >/dev/null; then
		(cd "$from" && git -c safe.directory='*' ls-files -z --cached --others --exclude-standard |
			while IFS= read -r -d '' name; do
				# A file that was removed but not yet from the index is no error.
				if [ -e "$name" ] || [ -L "$name" ]; then printf '%s\0' "$name"; fi
			done |
			tar -c --null -T - -f -) | tar -x -C "$to" -f -
	else
		(cd "$from" && tar -c --exclude=.git --exclude='*.o' --exclude='*.lo' --exclude='*.la' \
			--exclude=.libs --exclude=.deps --exclude=config.status --exclude=Makefile \
			--exclude=config.h --exclude=autom4te.cache -f - .) | tar -x -C "$to" -f -
	fi
	[ -f "$to/configure.ac" ] || die "could not copy the sources from \"$from\""
}

# Build $work/src in $work/build and install it into $work/inst.
setup_build()
{
	local log=$work/build.log jobs

	jobs=$(nproc 2>/dev/null || echo 1)
	[ -x "$setup_pg_config" ] || setup_pg_config=$(command -v pg_config || true)
	[ -n "$setup_pg_config" ] || die "could not find pg_config; install the package postgresql-server-dev-$setup_major"

	setup_logged "create configure" "$log" autoreconf -fi "$work/src"
	mkdir -p "$work/build"
	cd "$work/build"
	setup_logged "configure" "$log" ../src/configure --disable-dependency-tracking \
		--with-pg-config="$setup_pg_config" "$@"
	setup_logged "build" "$log" make -j"$jobs"
	setup_copy_server "$work/inst"
	setup_logged "install" "$log" make install DESTDIR="$work/inst"
	cd "$work"
}

# PostgreSQL 15 loads modules and extensions from its own folders only, and those are root's.  But its tree
# may be moved as a whole: postgres finds its other files relative to itself.  So copy the distribution's
# files, unmodified, to where our files can be installed beside them.
setup_copy_server()
{
	local to=$1 bindir sharedir top

	bindir=$("$setup_pg_config" --bindir)
	sharedir=$("$setup_pg_config" --sharedir)
	top=$(dirname "$bindir")
	[ -x "$bindir/postgres" ] || die "could not find the server in \"$bindir\"; install the package postgresql-$setup_major"
	mkdir -p "$to$top" "$to$sharedir"
	# Symbolic links are followed: one that points out of the tree would lead back to the original.
	cp -RL "$top/." "$to$top/" || die "could not copy the server's programs"
	cp -RL "$sharedir/." "$to$sharedir/" 2>>"$work/build.log" || true
	[ -f "$to$sharedir/postgres.bki" ] || die "could not copy the server's files from \"$sharedir\""
	setup_bindir=$to$bindir
	[ "$("$setup_bindir/pg_config" --pkglibdir)" = "$to$("$setup_pg_config" --pkglibdir)" ] ||
		die "the copied server does not look for its modules beside itself"
	cmp -s "$bindir/postgres" "$setup_bindir/postgres" || die "the copied server differs from the installed one"
}

# Environment of everything that uses the temporary installation.
setup_env()
{
	export TMP_INSTALL=$work/inst
	export PGX_SHIM_DIR=$TMP_INSTALL/usr/local/libexec/pgx
	export LD_LIBRARY_PATH=$TMP_INSTALL/usr/local/lib
	export PATH=$TMP_INSTALL/usr/local/bin:$setup_bindir:$PATH
	export TMPDIR=$work/tmp
	mkdir -p "$TMPDIR"
	# What the user's own environment says about servers is not for these.
	unset PGHOST PGPORT PGUSER PGDATABASE PGDATA PGSERVICE PGSERVICEFILE PGPASSFILE PGOPTIONS PGX_SERVERS
}
