# The shell examples of README.md, run as they are printed there.

use strict;
use warnings;

use IPC::Run qw(run);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $readme = slurp_file("$ENV{PGX_SRCDIR}/README.md");
my %block;
while ($readme =~ /^<!-- run by tests\/t\/090_readme\.pl: (\w+) -->\n```sh\n(.*?)^```\n/gms)
{
	$block{$1} = $2;
}
is_deeply([ sort keys %block ], [ 'auto', 'first', 'start' ], 'README has the examples that are run here');
my @fences = $readme =~ /^```sh\n/gm;
is(scalar @fences, scalar keys %block, 'every shell example of README is run');

# What the reader's own environment would say.
my $dir = PostgreSQL::Test::Utils::tempdir;
my $sockets = PostgreSQL::Test::Utils::tempdir_short;
mkdir "$dir/keys" or die "$!";
$ENV{PGDATA} = "$dir/data";
$ENV{KEYS} = "$dir/keys";
$ENV{SPACE} = "$dir/space";
$ENV{PGHOST} = $sockets;
$ENV{PGPORT} = PostgreSQL::Test::Cluster::get_free_port();
delete $ENV{PGDATABASE};
$ENV{PATH} = "$dir/bin:$ENV{PGX_SHIM_DIR}:$ENV{PATH}";

# The default directory for sockets belongs to the system's own servers: an initdb in front of the real one
# names ours.
mkdir "$dir/bin" or die "$!";
append_to_file("$dir/bin/initdb", <<"EOF");
#!/bin/sh
PATH=\${PATH#*:}
initdb -A trust -N "\$@" &&
	printf "unix_socket_directories = '%s'\\nlisten_addresses = ''\\n" '$sockets' >>"\$PGDATA/postgresql.conf"
EOF
chmod 0755, "$dir/bin/initdb" or die "$!";

# Run an example with a passphrase on standard input, from a working directory of its own.
sub run_example
{
	my ($name, $input) = @_;
	my ($out, $err) = ('', '');
	my $ok = run([ 'sh', '-e', '-c', "cd '$dir'\n$block{$name}" ], '<', \$input, '>', "$dir/out",
		'2>', "$dir/err");
	note(slurp_file("$dir/out"), slurp_file("$dir/err"));
	ok($ok, "example \"$name\" runs");
	BAIL_OUT("no server to go on with") unless $ok;
	return;
}

sub query
{
	my ($db, $sql) = @_;
	my ($out, $err) = ('', '');
	run([ 'psql', '-X', '-qAt', '-d', $db, '-c', $sql ], '>', \$out, '2>', \$err);
	chomp $out;
	return $out . $err;
}

run_example('first', '');
is(query('postgres', 'SELECT status, active_master_key, wal_encryption FROM pgx_keystore_status'),
	'open|1|t', 'keystore is open and WAL encrypted');
is( query(
		'postgres', "SELECT spcencalgo FROM pgx_tablespaces JOIN pg_tablespace t ON t.oid = spctablespace
		WHERE spcname = 'secret'"),
	'AES256', 'tablespace is encrypted');
query('shop', "CREATE TABLE t AS SELECT 'Wilhelmina-Quackenbush' AS name");

run_example('start', "seven green bottles\n");
is(query('postgres', 'SELECT opened_by FROM pgx_keystore_status'), 'pg_ctl', 'pg_ctl opened the keystore');
is(query('shop', 'SELECT name FROM t'), 'Wilhelmina-Quackenbush', 'data is read after the restart');

run_example('auto', "seven green bottles\n");
is(query('postgres', 'SELECT opened_by, auto_open FROM pgx_keystore_status'),
	'auto-open|host', 'auto-open opened the keystore');
is(query('shop', 'SELECT name FROM t'), 'Wilhelmina-Quackenbush', 'data is read after the restart');

END
{
	local $?;
	system("pg_ctl -s -m immediate -D '$dir/data' stop >/dev/null 2>&1") if $dir && -e "$dir/data/postmaster.pid";
}

done_testing();
