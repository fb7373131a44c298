# The EXAMPLES of the man pages, run as they are printed there, but for the paths: /srv, /backup and the like lie
# in a directory of the test.  Every command that a page shows after "$ " has to be run here, or is named below with
# the test that runs it.

use strict;
use warnings;

use File::Path qw(make_path remove_tree);
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $passphrase = "seven green bottles\n";
my $dir = PostgreSQL::Test::Utils::tempdir;
my $sockets = PostgreSQL::Test::Utils::tempdir_short;

# What needs two hosts or two histories.
my %elsewhere = (
	qr/copy --ssh-option/ => '004_copy_ssh.pl',
	qr/-- pg_rewind/ => '150_exec.pl',
);

# ---- the pages ------------------------------------------------------------------

# The lines of a page's literal displays in EXAMPLES, as a reader sees them, continued lines joined.
sub examples_of
{
	my ($page) = @_;
	my $text = slurp_file("$ENV{PGX_SRCDIR}/man/$page");
	my ($section) = $text =~ /^\.Sh EXAMPLES\n(.*?)(?=^\.Sh )/ms or die "\"$page\" has no EXAMPLES";
	my (@lines, $literal);
	foreach my $line (split /\n/, $section)
	{
		if ($line =~ /^\.Bd -literal/) { $literal = 1; }
		elsif ($line =~ /^\.Ed/) { $literal = 0; }
		elsif ($line =~ /^\.Dl (.*)/) { push @lines, $1; }
		elsif ($literal) { push @lines, $line; }
	}
	my $shown = join '', map { s/\\e/\\/gr =~ s/\\&//gr . "\n" } @lines;
	$shown =~ s/\\\n\s*/ /g;
	return split /\n/, $shown;
}

# A path of the examples is one below our directory.
sub here
{
	my ($text) = @_;
	$text =~ s{/usr/local/libexec/pgx}{$ENV{PGX_SHIM_DIR}}g;
	$text =~ s{/usr/lib/postgresql/\d+/bin}{$dir/realbin}g;
	$text =~ s{(?<![a-z0-9.\}\/])/(srv|database|backup|etc/pgx|run/pgx|var/lib/postgresql)\b}{$dir/$1}g;
	return $text;
}

my %commands;	# page => its commands that have not been run yet
foreach my $path (glob "$ENV{PGX_SRCDIR}/man/*.1")
{
	my ($page) = $path =~ m{([^/]+)$};
	my @commands = map { /^\$ (.*)/ ? $1 : () } examples_of($page);
	foreach my $pattern (keys %elsewhere)
	{
		@commands = grep { $_ !~ $pattern } @commands;
	}
	$commands{$page} = \@commands;
}

# ---- running --------------------------------------------------------------------

sub run_shell
{
	my ($command, $input) = @_;
	write_input($input);
	# Not through a pipe, which a server that is started would keep open.
	my $ok = IPC::Run::run([ 'sh', '-e', '-c', "cd '$dir'\n$command" ], '<', "$dir/input", '>', "$dir/out", '2>', "$dir/err");
	note($command, "\n", slurp_file("$dir/out"), slurp_file("$dir/err"));
	return $ok;
}

sub write_input
{
	my ($input) = @_;
	open my $fh, '>', "$dir/input" or die "$!";
	print $fh $input // '';
	close $fh or die "$!";
	return;
}

# Run the first command of a page that is still to be run; it must match what the caller thinks that it is.
sub run_next
{
	my ($page, $like, $input, $out_like, $change) = @_;
	$change //= sub { $_[0] };
	my $command = shift @{ $commands{$page} } // '(none)';
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	like($command, $like, "$page: the next example is the expected one") or return;
	ok(run_shell($change->(here($command)), $input), "$page: $command");
	like(slurp_file("$dir/out"), $out_like, "$page: its output is the one shown") if $out_like;
	return;
}

sub query
{
	my ($sql) = @_;
	IPC::Run::run([ 'psql', '-X', '-qAt', '-d', 'postgres', '-c', $sql ], '>', \my $out, '2>&1');
	chomp $out;
	return $out;
}

sub stop_server
{
	my ($data) = @_;
	ok(run_shell("pg_ctl -s -D $data -m fast stop"), "stop $data");
	return;
}

# The default directory for sockets belongs to the system's own servers: an initdb in front of the real one
# names ours.
make_path("$dir/realbin", "$dir/srv", "$dir/backup", "$dir/database", "$dir/run/pgx", "$dir/bin");
my ($real) = grep { -x "$_/postgres" } split /:/, $ENV{PATH};
append_to_file("$dir/realbin/initdb", <<"EOT");
#!/bin/sh
PATH=$real:/usr/bin:/bin
initdb -A trust -N "\$@" || exit
while [ \$# -gt 0 ]; do case \$1 in -D) data=\$2 ;; esac; shift; done
printf "unix_socket_directories = '%s'\\nlisten_addresses = ''\\n" '$sockets' >>"\$data/postgresql.conf"
EOT
chmod 0755, "$dir/realbin/initdb" or die "$!";
$ENV{PGHOST} = $sockets;
$ENV{PGPORT} = PostgreSQL::Test::Cluster::get_free_port();
delete $ENV{$_} foreach qw(PGDATABASE PGDATA);
$ENV{PATH} = "$ENV{PGX_SHIM_DIR}:$dir/realbin:$ENV{PATH}";

# ---- initdb, pg_ctl -------------------------------------------------------------

run_next('pgx-initdb.1', qr/^PATH=/);
run_next('pgx-initdb.1', qr/^initdb .*--encrypt/, $passphrase x 2);
run_next('pgx-initdb.1', qr/^pg_ctl .* start/, $passphrase);
is(query('SELECT status, wal_encryption FROM pgx_keystore_status'), 'open|t', 'the new cluster is encrypted')
  if query('CREATE EXTENSION pgx_tde') eq '';
stop_server("$dir/srv/data");

remove_tree("$dir/srv/keystore");
mkdir "$dir/srv/keystore", 0700;
run_next('pgx-initdb.1', qr/^pgx_keystore create/, $passphrase x 2);
run_next('pgx-initdb.1', qr/^pgx_keystore --enable-auto-open/, $passphrase);
my ($script) = slurp_file("$ENV{PGX_SRCDIR}/man/pgx-initdb.1") =~ /^\$ cat bin\/initdb\n(.*?)^\.Ed/ms;
$script =~ s/\\e/\\/g;
append_to_file("$dir/bin/initdb", here($script) =~ s/PATH=(\S+)/PATH=$dir\/realbin:$real:\/usr\/bin:\/bin/r);
chmod 0755, "$dir/bin/initdb";
run_next('pgx-initdb.1', qr/^cat bin\/initdb/);
foreach my $n (1, 2)
{
	ok(run_shell("bin/initdb -D $dir/srv/many$n"), "the script makes cluster $n");
	ok(run_shell("pgx_encrypt --check -D $dir/srv/many$n"), 'and it is encrypted');
}

rename "$dir/srv/many1", "$dir/srv/standby" or die "$!";
run_next('pgx-pg_ctl.1', qr/^PATH=/);
run_next('pgx-pg_ctl.1', qr/^pg_ctl .* start/, $passphrase);
like(query('SELECT 1'), qr/^1$/, 'the server runs');
stop_server("$dir/srv/standby");

# ---- pgx_encrypt ----------------------------------------------------------------

remove_tree("$dir/srv");
make_path("$dir/srv/keystore", { mode => 0700 });
ok(run_shell("realbin/initdb -D srv/data && printf '%s\\n' \"shared_preload_libraries = 'pgx_tde'\" "
		  . "\"pgx_tde.keystore_location = '$dir/srv/keystore'\" >>srv/data/postgresql.conf"), 'a plain cluster');
run_next('pgx_encrypt.1', qr/^pgx_keystore create/, $passphrase x 2);
ok(run_shell("pg_ctl -s -w -l $dir/srv/log -D $dir/srv/data start"), 'the plain cluster starts');
run_next('pgx_encrypt.1', qr/^pg_ctl .* stop/);
ok(!run_shell("pgx_encrypt --check -D $dir/srv/data"), 'there is plaintext before');
run_next('pgx_encrypt.1', qr/^pgx_encrypt/, $passphrase, qr/^the data directory has been encrypted$/m);
run_next('pgx_encrypt.1', qr/^pg_ctl .* start/, $passphrase);
like(query('SELECT 1'), qr/^1$/, 'the server runs');
stop_server("$dir/srv/data");
ok(run_shell("pgx_encrypt --check -D $dir/srv/data", $passphrase), 'and none afterwards');

# ---- pgx_keystore, with the servers file of its page ----------------------------

remove_tree("$dir/srv/keystore");
make_path(map { +"$dir/srv/keystore/$_", { mode => 0700 } } 'primary');
append_to_file("$dir/servers.conf", here(join "\n", examples_of('pgx_servers.conf.5')) . "\n");
chmod 0600, "$dir/servers.conf";
$ENV{PGX_SERVERS} = "$dir/servers.conf";
run_next('pgx_keystore.1', qr/^pgx_keystore create/, $passphrase x 2);
run_next('pgx_keystore.1', qr/^pgx_keystore copy --to standby$/);
is(slurp_file("$dir/srv/keystore/primary/keystore.ks"), slurp_file("$dir/srv/keystore/standby/keystore.ks"),
	'the standby has the keystore');
run_next('pgx_keystore.1', qr/^pgx_keystore --enable-auto-open/, $passphrase,
	qr/^Automatic opening of the keystore is now enabled$/m);

# pg_waldump reads the segment that the page names; a cluster that has come as far is quickly made.
remove_tree("$dir/srv/data");
ok( run_shell("printf '$passphrase' | initdb --encrypt --keystore-location=$dir/srv/keystore/wal "
		  . "--keystore-passphrase -D $dir/srv/data"), 'an encrypted cluster');
ok(run_shell("pgx_keystore --enable-auto-open $dir/srv/keystore/wal/keystore.ks", $passphrase), 'that opens by itself');
append_to_file("$dir/srv/data/postgresql.conf", "wal_keep_size = 512MB\n");
ok(run_shell("pg_ctl -s -w -l $dir/srv/log -D $dir/srv/data start"), 'and runs');
query('CREATE TABLE IF NOT EXISTS t (n int); INSERT INTO t VALUES (1); SELECT pg_switch_wal()') for 1 .. 10;
stop_server("$dir/srv/data");
run_next('pgx_keystore.1', qr/-- pg_waldump/, '', qr/^rmgr: /m);

# ---- backups --------------------------------------------------------------------

remove_tree("$dir/database/inst1");
rename "$dir/srv/data", "$dir/database/inst1" or die "$!";
make_path("$dir/backup/inst1", { mode => 0700 });
my $moment;
foreach my $page ('pgx_dmpall.1', 'pgx_walcopy.1')
{
	my @settings = grep { /^[a-z_.]+ = / } examples_of($page);
	cmp_ok(scalar @settings, '>=', 2, "$page shows settings");
	# The module takes the place of the command, so the page that shows both has one of them.
	@settings = grep { !/^archive_library/ } @settings;
	append_to_file("$dir/database/inst1/postgresql.conf", here("$_\n")) foreach @settings;
	ok(run_shell("pg_ctl -s -w -l $dir/srv/log -D $dir/database/inst1 start"), "$page: a server starts with them");
	run_next($page, qr/^pgx_dmpall -D/, '', qr/^backup of database and configuration files completed successfully$/m)
	  while @{ $commands{$page} };

	# A moment that can be gone back to: after the backup, and something happens after it.
	sleep 2;
	$moment = query("SELECT to_char(clock_timestamp(), 'YYYY-MM-DD HH24:MI:SS')");
	query('INSERT INTO t VALUES (2)');
	my $segment = query('SELECT pg_walfile_name(pg_current_wal_insert_lsn()) FROM pg_switch_wal()');
	query('SELECT pg_switch_wal() FROM pg_create_restore_point(\'a\')');
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		last if -e "$dir/backup/inst1/archived_wal/$segment";
		select undef, undef, undef, 0.1;
	}
	ok(-e "$dir/backup/inst1/archived_wal/$segment", "$page: segment $segment is archived");
	stop_server("$dir/database/inst1");
}
append_to_file("$dir/database/inst1/postgresql.conf", "archive_command = ''\narchive_library = 'pgx_archive'\n");
ok(run_shell("pg_ctl -s -w -l $dir/srv/log -D $dir/database/inst1 start"), 'pgx_walcopy.1: the module is loaded');
my $segment = query('SELECT pg_walfile_name(pg_switch_wal()) FROM pg_create_restore_point(\'b\')');
for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	last if -e "$dir/backup/inst1/archived_wal/$segment";
	select undef, undef, undef, 0.1;
}
ok(-e "$dir/backup/inst1/archived_wal/$segment", 'pgx_walcopy.1: and archives');
stop_server("$dir/database/inst1");

# ---- pgx_rcvall -----------------------------------------------------------------

make_path("$dir/etc/pgx");
append_to_file("$dir/etc/pgx/passphrase", $passphrase);
chmod 0600, "$dir/etc/pgx/passphrase";
run_next('pgx_rcvall.1', qr/^mv /);
run_next('pgx_rcvall.1', qr/^pgx_rcvall -D \S+ -B \S+ --keystore-passphrase$/, $passphrase,
	qr/^Last replayed LSN: .*^Recovery of database completed successfully\.$/ms);
ok(run_shell("pg_ctl -s -w -l $dir/srv/log -D $dir/database/inst1 start"), 'the recovered server starts');
is(query('SELECT count(*) FROM t WHERE n = 2'), '2', 'and has what was committed last');
stop_server("$dir/database/inst1");
run_next('pgx_rcvall.1', qr/ --check /, '', qr/^Backup, WAL and keystore fit together\.$/m);
run_next('pgx_rcvall.1', qr/^pgx_rcvall -l/, '',
	qr/^Date +Status +Dir\n\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +COMPLETE +\Q$dir\E\/backup\/inst1\/\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d$/m);
rename "$dir/database/inst1", "$dir/database/inst1.newest" or die "$!";
run_next('pgx_rcvall.1', qr/ -e '/, $passphrase, qr/^Recovery of database completed successfully\.$/m,
	sub { $_[0] =~ s/-e '[^']*'/-e '$moment'/r });
ok(run_shell("pg_ctl -s -w -l $dir/srv/log -D $dir/database/inst1 start"), 'the server of that moment starts');
is(query('SELECT count(*) FROM t WHERE n = 2'), '1', 'and has not what came after it');
query('CREATE EXTENSION IF NOT EXISTS pgx_tde');
my $standby_port = PostgreSQL::Test::Cluster::get_free_port();
run_next('pgx_rcvall.1', qr/ --standby /, $passphrase,
	qr/^Keystore: .*\nAutomatic opening: enabled\nReplication slot: db2\nData directory: .*\nThe standby is streaming\.$/,
	sub { $_[0] =~ s/host=db1/host=$sockets/r . " --set port=$standby_port" });
stop_server("$dir/database/inst2");
stop_server("$dir/database/inst1");

foreach my $page (sort keys %commands)
{
	is(join("\n", @{ $commands{$page} }), '', "$page: every example was run");
}

END
{
	local $?;
	if ($dir)
	{
		system("pg_ctl -s -m immediate -D '$_' stop >/dev/null 2>&1")
		  foreach grep { -e "$_/postmaster.pid" } glob("$dir/srv/*"), glob("$dir/database/*");
	}
}

done_testing();
