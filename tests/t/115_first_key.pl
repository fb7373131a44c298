# 115_first_key.pl
#		The first master key reaches those who have a copy of the data from before: a
#		standby that streams without a keystore, and recoveries from the archive.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PgxTde;
use Test::More;

# Tablespaces in place: the standby replays their creation on the same machine.
my $primary = new_primary(
	'primary',
	archive => 1,
	master_key => 0,
	open => 'none',
	conf => "allow_in_place_tablespaces = on\nwal_keep_size = '1GB'\nautovacuum = off");
$primary->safe_psql('postgres', q{CREATE TABLE t AS SELECT g, 'MARK_plain' || g AS x FROM generate_series(1, 1000) g});

sub more
{
	my ($name) = @_;
	$primary->safe_psql('postgres', "CREATE TABLE $name AS SELECT g, 'MARK_$name' || g AS x FROM generate_series(1, 3000) g;
		INSERT INTO t SELECT g, '$name' FROM generate_series(1, 1000) g");
	return;
}

# ---- copies of the data from before the first key ---------------------------------------------

my $standby = new_standby($primary, 'standby', copy => 0, open => 'none');
$standby->start;
is(status_of($standby, 'status, wal_encryption'), 'closed|f', 'a standby without a keystore, before the first key');
my $archived = new_standby($primary, 'archived', copy => 0, options => [ '-X', 'none' ]);
my $pitr = new_standby($primary, 'pitr', copy => 0, options => []);
my $closed = new_standby($primary, 'closed', copy => 0, open => 'none', options => []);
more('before');
caught_up($primary, $standby);
same_content($primary, $standby, ['postgres'], 'it follows');

# ---- the first key --------------------------------------------------------------------------------

my $size = log_size($standby);
create_keystore($primary, $PASSPHRASE);
$primary->safe_psql('postgres', "SELECT pgx_set_master_key('$PASSPHRASE')");
$primary->safe_psql('postgres', q{
	CREATE TABLESPACE enc LOCATION '' WITH (tablespace_encryption_algorithm = 'AES256')});
$primary->safe_psql('postgres', q{SET default_tablespace = 'enc';
	CREATE TABLE secret AS SELECT g, 'MARK_secret' || g AS x FROM generate_series(1, 5000) g;
	CREATE INDEX ON secret (x)});
more('after_first');

wait_until(sub { !is_running($standby) });
ok(!is_running($standby), 'the standby stops where it can go no further');
$standby->_update_pid(-1);
my $log = log_since($standby, $size);
like($log, qr/FATAL:  could not encrypt or decrypt data because the keystore is not open/, 'with the message');
like($log, qr/DETAIL:  Recovery reached a change of the key table\./, 'its detail');
like($log, qr/HINT:  Copy the primary's keystore .*"pgx_keystore copy".*"pg_ctl --keystore-passphrase start"/,
	'and what to do');
like(start_fails($standby), qr/FATAL:  keystore .*does not exist/, 'it does not start again without a keystore');
rmdir keystore_dir($standby);
copy_keystore($primary, $standby);
like(start_fails($standby), qr/FATAL:  could not encrypt or decrypt data because the keystore is not open/,
	'nor with one that is closed');
my ($rc) = shim_start($standby, $PASSPHRASE);
is($rc, 0, 'but with one that pg_ctl opens');
caught_up($primary, $standby);
same_content($primary, $standby, ['postgres'], 'nothing is lost');
is_same_file(keystore_file($primary), keystore_file($standby), 'the keystores are the same');
is(status_of($standby, 'status, wal_encryption'), 'open|t', 'the standby knows that WAL is encrypted');

# ---- two more keys -------------------------------------------------------------------------------------

foreach my $node ($archived, $pitr)
{
	rmdir keystore_dir($node);
	copy_keystore($primary, $node);
}
my $old_keystore = slurp_raw(keystore_file($pitr));
rotate($primary);
more('after_second');
$primary->safe_psql('postgres', q{SELECT pg_create_restore_point('middle')});
my $middle = fingerprint($primary, 'postgres');
my $middle_generation = status_of($primary, 'generation');
more('after_middle');
rotate($primary);
more('after_third');
my $last = finish_segment($primary);
$primary->poll_query_until('postgres', "SELECT last_archived_wal >= '$last' FROM pg_stat_archiver")
  or die 'the last segment was not archived';
caught_up($primary, $standby);
same_content($primary, $standby, ['postgres'], 'the standby follows two more keys');
is_same_file(keystore_file($primary), keystore_file($standby), 'and so does its keystore');

# ---- recovery from the archive ------------------------------------------------------------------------------

sub recover
{
	my ($node, @conf) = @_;
	# Nothing of WAL but what is in the archive.
	unlink grep { -f $_ } glob($node->data_dir . '/pg_wal/0*');
	$node->append_conf('postgresql.conf',
		join("\n", "restore_command = 'cp " . $primary->archive_dir . "/%f %p'", 'archive_mode = off', @conf));
	$node->append_conf('recovery.signal', '');
	return;
}
recover($closed);
plain_start($closed);
wait_until(sub { !is_running($closed) });
ok(!is_running($closed), 'recovery without a keystore stops at the first key');
$closed->_update_pid(-1);
like(log_since($closed, 0), qr/FATAL:  could not encrypt or decrypt data because the keystore is not open/,
	'with the message');
unlike(log_since($closed, 0), qr/archive recovery complete/, 'and does not take it for the end of WAL');

recover($archived);
$archived->start;
$archived->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die 'recovery did not end';
is_content(fingerprint($archived, 'postgres'), fingerprint($primary, 'postgres'),
	'recovery from the archive reaches its end, across three keys');
is($archived->safe_psql('postgres', 'SHOW recovery_prefetch'), 'off',
	'it did not read ahead of the first key');
is(status_of($archived, 'generation'), status_of($primary, 'generation'), 'and has the newest keystore');
is($archived->safe_psql('postgres', q{SET enable_seqscan = off; SELECT g FROM secret WHERE x = 'MARK_secret4711'}),
	'4711', 'an index in the encrypted tablespace');

recover($pitr, "recovery_target_name = 'middle'", "recovery_target_action = 'promote'");
$pitr->start;
$pitr->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die 'recovery did not end';
is_content(fingerprint($pitr, 'postgres'), $middle, 'recovery to a point between two keys');
is(status_of($pitr, 'generation'), $middle_generation, 'with the keystore of that moment');
isnt(slurp_raw(keystore_file($pitr)), $old_keystore, 'which is newer than the copy it began with');

# It goes on from there: a history of its own, keys included.
rotate($pitr);
$pitr->safe_psql('postgres', 'SET default_tablespace = enc; CREATE TABLE branch AS SELECT * FROM secret; CHECKPOINT');
my $branch = fingerprint($pitr, 'postgres');
$pitr->stop('immediate');
$pitr->start;
is_content(fingerprint($pitr, 'postgres'), $branch, 'and survives a crash on its new timeline');

is_deeply(
	[
		files_with(
			{ map { $_ => "MARK_$_" } qw(secret after_first after_second after_middle after_third) },
			map { $_->data_dir . '/pg_wal' } $primary, $standby, $archived, $pitr)
	],
	[], 'no mark from after the first key in any WAL');
isnt(scalar files_with({ before => 'MARK_before' }, $primary->archive_dir), 0, 'control: one from before it is found');

$_->stop foreach $standby, $archived, $pitr, $primary;
done_testing();
