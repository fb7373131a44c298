# 193_pg_upgrade.pl
#		pg_upgrade copies relation files into a cluster that does not have their keys: while either is encrypted it is
#		refused, with nothing changed; decrypted by pgx_encrypt it goes through, and the new one can be encrypted.
#
# The majors are the same, which pg_upgrade accepts where there are no tablespaces.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use File::Basename qw(dirname);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PgxCommand qw(run_cmd);
use PgxTde;
use Test::More;

my ($pg_upgrade) = grep { -x } map { "$_/pg_upgrade" } split /:/, $ENV{PATH};
plan skip_all => 'pg_upgrade is not installed' if !$pg_upgrade;

my $refused = qr/FATAL:  pg_upgrade cannot be used with an encrypted data directory\n.*HINT:  Decrypt it with pgx_encrypt --decrypt/s;
my $runs = 0;

# Returns exit code, what was said, and what the servers logged meanwhile.
sub pg_upgrade
{
	my ($from, $to, @options) = @_;
	my $dir = work_dir() . '/upgrade_' . ++$runs;
	mkdir $dir;
	my ($rc, $out, $err) = run_cmd(
		[
			'sh', '-c', 'cd "$0" && exec "$@"', $dir, $pg_upgrade, '-b', dirname($pg_upgrade), '-B', dirname($pg_upgrade),
			'-d', $from->data_dir, '-D', $to->data_dir, '-p', $from->port, '-P', $to->port, '-s', $from->host, @options
		]);
	my @logs = map { slurp_raw($_) // '' } glob("$dir/pg_upgrade_server.log"), glob($to->data_dir . '/pg_upgrade_output.d/*/log/pg_upgrade_server.log');
	return ($rc, "$out$err", join '', @logs);
}

sub fresh
{
	my ($name) = @_;
	return new_primary($name, checksums => 1, master_key => 0, open => 'none', start => 0);
}

my $old = new_primary('old', checksums => 1, conf => "autovacuum = off\n");
$old->safe_psql('postgres',
	'CREATE TABLE kept AS SELECT n, md5(n::text) AS content FROM generate_series(1, 2000) n; CREATE INDEX ON kept (content); VACUUM kept');
my $content = q{SELECT count(*), md5(string_agg(content, ',' ORDER BY n)) FROM kept};
my $expected = $old->safe_psql('postgres', $content);
$old->stop;

sub is_unchanged
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$old->start;
	is($old->safe_psql('postgres', $content), $expected, "$name: the old server has its data");
	$old->stop;
	return;
}

# ---- the old one is encrypted ---------------------------------------------------------------------------

my ($code, $out, $err) = run_cmd([ 'pgx_encrypt', '-D', $old->data_dir ], stdin => "$PASSPHRASE\n");
is($code, 0, 'the old cluster is encrypted as a whole') or diag($err);
my $new = fresh('new');
my ($rc, $said, $log);
foreach my $how ('--check', '--link', '--jobs=2')
{
	($rc, $said, $log) = pg_upgrade($old, $new, $how);
	isnt($rc, 0, "$how: pg_upgrade fails");
	like($log, $refused, "$how: the server says why") or diag($said);
	is_unchanged($how);
}

# An encrypted tablespace is enough.
my $spaces = new_primary('spaces', checksums => 1);
$spaces->safe_psql('postgres', "CREATE TABLESPACE enc LOCATION '" . tablespace_dir($spaces, 'enc') . "' WITH (tablespace_encryption_algorithm = 'AES256')");
$spaces->stop;
($rc, $said, $log) = pg_upgrade($spaces, $new);
isnt($rc, 0, 'one tablespace: pg_upgrade fails');
like($log, $refused, 'one tablespace: the server says why') or diag($said);

# ---- decrypted, but the new one is encrypted --------------------------------------------------------------

($code, $out, $err) = run_cmd([ 'pgx_encrypt', '-D', $old->data_dir, '--decrypt' ], stdin => "$PASSPHRASE\n");
is($code, 0, 'the old cluster is decrypted') or diag($err);
my $encrypted = new_primary('encrypted', checksums => 1, start => 0);
($code, $out, $err) = run_cmd([ 'pgx_encrypt', '-D', $encrypted->data_dir ], stdin => "$PASSPHRASE\n");
is($code, 0, 'the new cluster is encrypted as a whole') or diag($err);
($rc, $said, $log) = pg_upgrade($old, $encrypted);
isnt($rc, 0, 'new one encrypted: pg_upgrade fails');
like($log, $refused, 'new one encrypted: the server says why') or diag($said);
is_unchanged('new one encrypted');

# ---- no relation is encrypted: WAL alone, in both; then the new one is encrypted -----------------------------

$old->start;
$old->safe_psql('postgres', 'SELECT pgx_set_master_key()');
is(status_of($old, 'wal_encryption'), 't', 'the old server encrypts WAL again');
$old->safe_psql('postgres', 'UPDATE kept SET content = md5(content)');
$expected = $old->safe_psql('postgres', $content);
$old->stop;
my $next = new_primary('next', checksums => 1);
$next->safe_psql('postgres', 'DROP EXTENSION pgx_tde');
$next->stop;
($rc, $said, $log) = pg_upgrade($old, $next);
is($rc, 0, 'WAL alone: pg_upgrade') or diag($said, $log);
($code, $out, $err) = run_cmd([ 'pgx_encrypt', '-D', $next->data_dir ], stdin => "$PASSPHRASE\n");
is($code, 0, 'the new cluster is encrypted') or diag($err);
$next->start;
is($next->safe_psql('postgres', $content), $expected, 'with the data of the old one');
is(status_of($next, 'wal_encryption'), 't', 'WAL is encrypted');
rotate($next);

# ---- a dump says nothing of encryption: the setting does, which the manual recommends -----------------------

$spaces->start;
my ($dumped, $dump) = run_program([ 'pg_dumpall', '--tablespaces-only', '-h', $spaces->host, '-p', $spaces->port ]);
is($dumped, 0, 'pg_dumpall');
like($dump, qr/^CREATE TABLESPACE enc /m, 'control: the tablespace is in the dump');
$spaces->safe_psql('postgres', 'DROP TABLESPACE enc');
$spaces->stop;
$next->safe_psql('postgres', "SET pgx_tde.tablespace_encryption_algorithm = 'AES256';\n$dump");
is($next->safe_psql('postgres', q{SELECT spcencalgo FROM pgx_tablespaces JOIN pg_tablespace t ON t.oid = spctablespace WHERE spcname = 'enc'}),
	'AES256', 'a tablespace from a dump is encrypted');
$next->stop;
($code, $out) = run_cmd([ 'pgx_encrypt', '--check', '-D', $next->data_dir ], stdin => "$PASSPHRASE\n");
is($code, 0, 'everything is') or diag($out);

done_testing();
