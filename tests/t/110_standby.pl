# 110_standby.pl
#		A primary and its standbys: building one with stock tools, opening its keystore in
#		each way, changes of keys and passphrase that reach it by themselves, cascading,
#		promotion, and ciphertext that is the same everywhere.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PgxTde;
use Test::More;
use Time::HiRes qw(usleep);

my ($second, $third) = ('the second passphrase', 'the third passphrase');

my $primary = new_primary(
	'primary',
	archive => 1,
	checksums => 1,
	conf => "wal_keep_size = '1GB'\nautovacuum = off");
my $dir = tablespace_dir($primary, 'enc');
$primary->safe_psql('postgres',
	"CREATE TABLESPACE enc LOCATION '$dir' WITH (tablespace_encryption_algorithm = 'AES256')");
$primary->safe_psql('postgres', 'CREATE DATABASE e TABLESPACE enc');
$primary->safe_psql('e', q{
	CREATE TABLE t AS SELECT g AS id, 'MARK_standby' || g AS x FROM generate_series(1, 50000) g;
	CREATE INDEX ON t (x)});
my $rows = 0;

# New rows, in a table that grows at each step.
sub more
{
	my ($node) = @_;
	$rows++;
	$node->safe_psql('e', "CREATE TABLE IF NOT EXISTS steps (n int, x text);
		INSERT INTO steps SELECT $rows, 'MARK_step' || g FROM generate_series(1, 1000) g;
		UPDATE t SET x = 'MARK_standby_' || $rows || '_' || id WHERE id % 50 = $rows");
	return;
}

sub converged
{
	my ($from, $node, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	caught_up($from, $node);
	same_content($from, $node, ['e'], "$name: content");
	is_same_file(keystore_file($from), keystore_file($node), "$name: keystores are the same");
	is_same_file(keytable_file($from), keytable_file($node), "$name: key tables are the same");
	return;
}

# ---- building it, and a closed or wrong start -------------------------------------------

auto_open($primary, $PASSPHRASE);
my $standby = new_standby($primary, 'standby', open => 'none');
is_same_file(keystore_file($primary), keystore_file($standby), 'the keystore has been copied');
is((stat(keystore_dir($standby)))[2] & 07777, 0700, 'the directory is its own');
is_deeply([ sort grep { !/^\./ } slurp_dir(keystore_dir($standby)) ],
	[ 'keystore.ks', 'keystore.lock' ], 'the auto-open file has not been copied');
unlink keystore_dir($primary) . '/keystore.aks';

my $log = start_fails($standby);
like($log, qr/FATAL:  could not encrypt or decrypt data because the keystore is not open/, 'a closed start is refused');
like($log, qr/HINT:  Start the server with "pg_ctl --keystore-passphrase start"/, 'with the command to run');
like($log, qr/"pgx_keystore --enable-auto-open \Q@{[keystore_file($standby)]}\E"/, 'and the other');
unlike($log, qr/redo starts|entering standby mode/, 'before any recovery');
ok(!-e $standby->data_dir . '/postmaster.pid', 'nothing is running');

my $size = log_size($standby);
my ($rc, $out, $err) = shim_start($standby, 'not the passphrase');
is($rc, 2, 'wrong passphrase: exit code 2');
like($err, qr/passphrase is wrong/, 'wrong passphrase: message');
is(log_size($standby), $size, 'wrong passphrase: nothing was started');
ok(!-e $standby->data_dir . '/postmaster.pid', 'wrong passphrase: nothing is running');

# ---- the three ways of opening ------------------------------------------------------------

($rc, $out, $err) = shim_start($standby, $PASSPHRASE);
is($rc, 0, 'started with the passphrase on standard input');
is(status_of($standby, 'status, opened_by'), 'open|pg_ctl', 'opened by pg_ctl');
more($primary);
converged($primary, $standby, 'opened by pg_ctl');
$standby->stop;

set_passphrase($standby, 'not the passphrase');
$standby->append_conf('postgresql.conf', "pgx_tde.keystore_passphrase_command = 'cat " . pass_file($standby) . "'");
like(start_fails($standby), qr/FATAL:  could not open keystore "[^"]+": passphrase is wrong/,
	'the command prints a wrong passphrase');
set_passphrase($standby, $PASSPHRASE);
$standby->start;
is(status_of($standby, 'status, opened_by'), 'open|passphrase command', 'opened by the passphrase command');
more($primary);
converged($primary, $standby, 'opened by the passphrase command');
$standby->stop;

$standby->append_conf('postgresql.conf', "pgx_tde.keystore_passphrase_command = ''");
auto_open($standby, $PASSPHRASE);
$standby->start;
is(status_of($standby, 'status, opened_by, auto_open'), 'open|auto-open|host', 'opened by auto-open');
more($primary);
converged($primary, $standby, 'opened by auto-open');

# ---- a standby changes nothing itself ---------------------------------------------------------

foreach my $call ('pgx_set_master_key()', "pgx_set_master_key('$PASSPHRASE')",
	"pgx_set_keystore_passphrase('$PASSPHRASE', '$second')")
{
	(my $function = $call) =~ s/\(.*/()/;
	like(query_fails($standby, 'postgres', "SELECT $call"),
		qr/ERROR:  recovery is in progress\nHINT:  Run \Q$function\E on the primary/, "on the standby: $function");
}
like(query_fails($standby, 'postgres',
		"CREATE TABLESPACE more LOCATION '$dir' WITH (tablespace_encryption_algorithm = 'AES256')"),
	qr/ERROR:  cannot execute CREATE TABLESPACE in a read-only transaction|recovery/,
	'on the standby: CREATE TABLESPACE');

# ---- changes on the primary ---------------------------------------------------------------------

my @pids = map { is_running($_) } $primary, $standby;
my $generation = status_of($primary, 'generation');
rotate($primary);
more($primary);
$primary->safe_psql('postgres', "SELECT pgx_set_keystore_passphrase('$PASSPHRASE', '$second')");
rotate($primary);
more($primary);
converged($primary, $standby, 'after two master keys and a passphrase');
is(status_of($standby, 'generation'), $generation + 3, 'the standby knows the generation');
is(status_of($standby, 'active_master_key'), status_of($primary, 'active_master_key'), 'and the active key');
is(status_of($standby, 'auto_open'), 'host', 'and auto-open is still valid');
is_deeply([ map { is_running($_) } $primary, $standby ], \@pids, 'both servers have been up all the time');
set_passphrase($primary, $second);

$standby->restart;
is(status_of($standby, 'opened_by'), 'auto-open', 'auto-open works after the changes');
unlink keystore_dir($standby) . '/keystore.aks';
($rc, $out, $err) = shim($standby, [ 'restart', '--keystore-passphrase' ], "$PASSPHRASE\n");
is($rc, 2, 'restart with the old passphrase: exit code 2');
ok(is_running($standby), 'and the server was not stopped');
($rc, $out, $err) = shim($standby, [ 'restart', '--keystore-passphrase' ], "$second\n");
is($rc, 0, 'restart with the new passphrase');
is(status_of($standby, 'opened_by'), 'pg_ctl', 'opened by it');
$standby->stop;
($rc, $out, $err) = shim_start($standby, $PASSPHRASE);
is($rc, 2, 'start with the old passphrase: exit code 2');

# ---- the standby is away meanwhile -----------------------------------------------------------------

my $old_file = slurp_raw(keystore_file($standby));
rotate($primary, 2);
more($primary);
$primary->safe_psql('postgres', "SELECT pgx_set_keystore_passphrase('$second', '$third')");
rotate($primary);
more($primary);
set_passphrase($primary, $third);
is(slurp_raw(keystore_file($standby)), $old_file, 'the keystore of a stopped standby is as it was');
($rc, $out, $err) = shim_start($standby, $third);
is($rc, 2, 'so it does not know the new passphrase');
($rc, $out, $err) = shim_start($standby, $second);
is($rc, 0, 'and starts with the old one');
converged($primary, $standby, 'after three master keys and a passphrase while it was away');
($rc, $out, $err) = shim($standby, [ 'restart', '--keystore-passphrase' ], "$third\n");
is($rc, 0, 'from now on with the new one');

# ---- keys change while a base backup is running --------------------------------------------------------

my $before = slurp_raw(keystore_file($primary));
my $late = new_standby(
	$primary, 'late',
	passphrase => $third,
	options => [ '-R', '-r', '4M' ],
	meanwhile => sub {
		$primary->poll_query_until('postgres',
			q{SELECT count(*) = 1 FROM pg_stat_progress_basebackup WHERE phase = 'streaming database files'})
		  or die 'no base backup is running';
		rotate($primary, 2);
		more($primary);
		is($primary->safe_psql('postgres', 'SELECT count(*) FROM pg_stat_progress_basebackup'),
			'1', 'the base backup was still running after two new master keys');
	});
is(slurp_raw(keystore_file($late)), $before, 'the copy of the keystore is from before');
is_same_file(keytable_file($primary), keytable_file($late), 'the key table in the backup is from after');
$size = log_size($late);
$late->start;
like(log_since($late, $size), qr/LOG:  keystore "[^"]+" was older than the data and has been brought up to date/,
	'the missing keys were in the key table');
converged($primary, $late, 'a base backup across new master keys');

# ---- cascading ------------------------------------------------------------------------------------------

my $cascade = new_standby($standby, 'cascade', passphrase => $third);
$cascade->start;
rotate($primary);
more($primary);
converged($primary, $standby, 'upstream');
converged($standby, $cascade, 'a standby of a standby');

# ---- ciphertext is the same everywhere --------------------------------------------------------------------

sub wal_dir { return $_[0]->data_dir . '/pg_wal'; }

my $last = finish_segment($primary);
more($primary);
caught_up($primary, $standby);
caught_up($standby, $cascade);
$primary->poll_query_until('postgres', "SELECT last_archived_wal >= '$last' FROM pg_stat_archiver")
  or die 'the last segment was not archived';
foreach my $pair (
	[ 'the archive', $primary->archive_dir ],
	[ 'the standby', wal_dir($standby) ],
	[ 'the cascading standby', wal_dir($cascade) ])
{
	my ($same, @different) = same_wal(wal_dir($primary), $pair->[1], $last);
	is("@different", '', "WAL segments of the primary and $pair->[0] are the same");
	cmp_ok($same, '>=', 1, "$same of them were compared");
}
is_deeply(
	[
		files_with(
			{ mark => 'MARK_' },
			(map { wal_dir($_) } $primary, $standby, $late, $cascade),
			$primary->archive_dir, $dir, map { $_->basedir . '/ts_enc' } $standby, $late, $cascade)
	],
	[], 'no mark in any WAL or tablespace');

# ---- promotion ------------------------------------------------------------------------------------------------

$late->stop;
my $known = fingerprint($primary, 'e');
$primary->stop('immediate');
$standby->promote;
$standby->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die 'not promoted';
is_content(fingerprint($standby, 'e'), $known, 'promoted: content');
rotate($standby);
more($standby);
$standby->safe_psql('e', 'CREATE TABLE after_promotion AS SELECT * FROM t');
converged($standby, $cascade, 'the cascading standby follows to the new timeline');
$known = fingerprint($standby, 'e');
$standby->stop('immediate');
($rc, $out, $err) = shim_start($standby, $third);
is($rc, 0, 'promoted: recovers from a crash');
is_content(fingerprint($standby, 'e'), $known, 'promoted: content after a crash');

# pg_rewind reads WAL without the keys.  It must stop before it changes anything.
my $keys = slurp_raw(keytable_file($primary));
$primary->start;
$primary->stop;
command_fails_like(
	[ 'pg_rewind', '-D', $primary->data_dir, '--source-server', $standby->connstr('postgres'), '-N' ],
	qr/pg_rewind: error: could not (?:find previous|read) WAL record/, 'pg_rewind cannot read the WAL');
is(slurp_raw(keytable_file($primary)), $keys, 'and has changed nothing');

# So the old primary comes back by a base backup, with the keystore that it has: older by one master key.
system_or_bail('rm', '-rf', $primary->data_dir, $dir);
base_backup($standby, $primary);
$primary->append_conf('postgresql.conf',
	"pgx_tde.keystore_location = '" . keystore_dir($primary) . "'\n"
	  . "pgx_tde.keystore_passphrase_command = 'cat " . pass_file($primary) . "'");
$primary->start;
more($standby);
rotate($standby);
converged($standby, $primary, 'the old primary as a standby');

$_->stop foreach $primary, $cascade, $standby;
done_testing();
