# 150_exec.pl
#		Stock programs that parse WAL, run by "pgx_keystore exec": pg_waldump,
#		pg_verifybackup and pg_rewind.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PgxTde;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_primary('primary');
$primary->append_conf('postgresql.conf', "wal_log_hints = on\nwal_keep_size = '256MB'");
$primary->restart;
$primary->safe_psql('postgres', "SELECT pgx_set_master_key()");
$primary->safe_psql('postgres', 'CREATE TABLE t AS SELECT g FROM generate_series(1, 1000) g');

sub exec_program
{
	my ($node, $options, @command) = @_;
	return run_program(
		[ 'pgx_keystore', 'exec', '-D', $node->data_dir, @$options, '--', @command ],
		stdin => "$PASSPHRASE\n", env => { PGHOST => $node->host });
}

# ---- pg_waldump

my $start = $primary->safe_psql('postgres', 'SELECT pg_current_wal_insert_lsn()');
my $segment = $primary->safe_psql('postgres', "SELECT pg_walfile_name('$start')");
$primary->safe_psql('postgres', 'INSERT INTO t VALUES (4711)');
my $end = $primary->safe_psql('postgres', 'SELECT pg_current_wal_flush_lsn()');
my @waldump = ('pg_waldump', '-p', $primary->data_dir . '/pg_wal', '-s', $start, '-e', $end);

my ($rc, $out, $err) = run_program(\@waldump);
isnt($rc, 0, 'pg_waldump by itself sees ciphertext');
($rc, $out, $err) = exec_program($primary, [], @waldump);
is($rc, 0, 'pg_waldump reads the WAL');
like($out, qr/rmgr: Heap .* INSERT/, 'and shows the row that was inserted');
like($out, qr/rmgr: Transaction .* COMMIT/, 'and its commit');

my $elsewhere = work_dir() . '/elsewhere';
mkdir $elsewhere or die "could not create \"$elsewhere\": $!";
run_program([ 'cp', $primary->data_dir . "/pg_wal/$segment", $elsewhere ]);
@waldump = ('pg_waldump', '-p', $elsewhere, '-s', $start, '-e', $end);
($rc, $out, $err) = exec_program($primary, [], @waldump);
isnt($rc, 0, 'segments of another directory are left alone');
($rc, $out, $err) = exec_program($primary, [ '--wal-directory', $elsewhere ], @waldump);
is($rc, 0, 'unless it is named');
like($out, qr/rmgr: Heap .* INSERT/, 'and then it is read');

# ---- what it refuses

($rc, $out, $err) = run_program(
	[ 'pgx_keystore', 'exec', '-D', $primary->data_dir, '--', 'true' ],
	stdin => "not the passphrase\n");
is($rc, 2, 'a wrong passphrase');
like($err, qr/passphrase is wrong/, 'and it is said');
($rc, $out, $err) = run_program([ 'pgx_keystore', 'exec', '--', 'true' ]);
is($rc, 1, 'no data directory');
like($err, qr/no data directory is specified/, 'and it is said');
($rc, $out, $err) = exec_program($primary, [], 'no-such-program');
is($rc, 1, 'a program that does not exist');
like($err, qr/could not run program "no-such-program"/, 'and it is said');

# The program gets the key of WAL, and nothing else of the keystore, in a descriptor.
($rc, $out, $err) = exec_program($primary, [], 'env');
like($out, qr/^PGX_TDE_WAL_KEY_FD=\d+$/m, 'the environment has a number');
unlike($out, qr/\Q$PASSPHRASE\E/, 'and no passphrase');

# ---- pg_verifybackup with its WAL

my $backup = work_dir() . '/verified';
$primary->command_ok([ 'pg_basebackup', '-D', $backup, '-h', $primary->host, '-p', $primary->port, '-c', 'fast' ],
	'a base backup');
($rc, $out, $err) = exec_program($primary, [ '--wal-directory', "$backup/pg_wal" ],
	'pg_verifybackup', $backup);
is($rc, 0, 'pg_verifybackup parses the WAL of a backup too');
like($out, qr/backup successfully verified/, 'and finds it good');

# ---- pg_rewind: a primary that went its own way comes back as a standby

my $standby = new_standby($primary, 'standby');
$standby->start;
caught_up($primary, $standby);
$standby->promote;
$primary->safe_psql('postgres', 'INSERT INTO t SELECT generate_series(10001, 11000)');
$standby->safe_psql('postgres', 'INSERT INTO t SELECT generate_series(20001, 21000)');
$standby->safe_psql('postgres', 'SELECT pgx_set_master_key()');
$standby->safe_psql('postgres', 'CHECKPOINT');
$primary->stop;

my @rewind = (
	'pg_rewind', '--target-pgdata', $primary->data_dir, '--source-server',
	$standby->connstr('postgres'), '--write-recovery-conf');
my $config = slurp_raw($primary->data_dir . '/postgresql.conf');
# It would note the name of this test as the standby's.
delete $ENV{PGAPPNAME};
($rc, $out, $err) = exec_program($primary, [], @rewind);
is($rc, 0, 'pg_rewind rewinds the old primary');
like($err, qr/servers diverged at WAL location/, 'which had to be rewound');

# pg_rewind has copied the other server's configuration; this server has its own.
write_file($primary->data_dir . '/postgresql.conf', $config);
$primary->start;
caught_up($standby, $primary);
is( $primary->safe_psql('postgres', 'SELECT count(*), max(g) FROM t'),
	$standby->safe_psql('postgres', 'SELECT count(*), max(g) FROM t'),
	'it follows the new primary');
is_same_file(keystore_file($primary), keystore_file($standby),
	'and has its keystore, with the key that was set meanwhile');

$primary->stop;
$standby->stop;
done_testing();
