# kill -9 in the middle of pgx_set_master_key(), before each of the system calls that change a file: whatever is
# on disk then, the server comes up with the same passphrase and reads everything, and primary and
# standby come to the same keystore.  strace kills the backend at the N-th call for N = 1, 2, 3, ... until the function
# gets to its end.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

use PgxCrash;
use PgxKillAt;
use PgxTde;

if (!can_kill_at())
{
	plan skip_all => 'strace (package strace) is needed, and that it may trace processes of this user';
}

my $conf = "fsync = on\nrestart_after_crash = on\nlog_statement = none\nwal_retrieve_retry_interval = 100ms\n"
  . "autovacuum = off\ncheckpoint_timeout = 1h\nallow_in_place_tablespaces = on\nwal_keep_size = 512MB\n";

my $case_number = 0;

# Run pgx_set_master_key(ARGUMENT) and kill its backend before the N-th of a system call.  Returns false if the
# function came to its end before.
sub killed_at
{
	my ($node, $argument, $call, $n) = @_;
	my $case = "case_" . ++$case_number;
	my $go = work_dir() . "/$case.go";
	my $trace = work_dir() . "/$case.trace";
	my $script = write_file(work_dir() . "/$case.sql", <<"EOF");
SELECT pg_backend_pid();
\\! while test ! -e '$go'; do sleep 0.02; done
SELECT pgx_set_master_key($argument) IS NULL;
EOF
	my $client = start_psql($node, 'postgres', $case, "cat $script");
	my @lines;
	usleep(20_000) until @lines = acknowledged($client) or !is_busy($client);
	my ($pid) = @lines or die 'the client has no session: ' . slurp_raw($client->{err});

	my $tracer = kill_at($pid, $call, $n, $trace);
	write_file($go, '');
	my $code = finish($client);
	my $killed = killed_by($tracer);
	return 0 if $code == 0 && scalar(acknowledged($client)) == 2;
	ok($killed, "killed before $call number $n");
	return 1;
}

# The next N for the first key.  A segment switch writes zeros in two thousand calls that are all alike.
sub after
{
	my ($n) = @_;
	return $n < 4 ? $n + 1 : 9 * $n;
}

# ---- the first key --------------------------------------------------------------------
# Each case begins with the same two servers, which have no keystore yet.  The standby gets its copy of the
# keystore only afterwards, and must find everything else in WAL.

my $first = new_primary('first', master_key => 0, checksums => 1, conf => $conf);
$first->safe_psql('postgres', 'CREATE TABLE clear AS SELECT n, md5(n::text) AS content FROM generate_series(1, 500) n');
my $follower = new_standby($first, 'follower', copy => 0);
$first->stop;
my %cold = map { ($_->name => $_->basedir . '/cold') } $first, $follower;
system_or_bail('cp', '-a', $_->data_dir, $cold{ $_->name }) foreach $first, $follower;

sub thaw
{
	my ($node) = @_;
	system_or_bail('rm', '-rf', $node->data_dir, keystore_dir($node));
	system_or_bail('cp', '-a', $cold{ $node->name }, $node->data_dir);
	mkdir keystore_dir($node), 0700 or die "$!";
	return;
}

my $killed = 0;
foreach my $call (grep { $_ ne 'fsync' } @CHANGING_CALLS)	# between two other calls it makes no difference here
{
	for (my $n = 1;; $n = after($n))
	{
		thaw($_) foreach $first, $follower;
		$first->start;
		my $was_killed = killed_at($first, "'$PASSPHRASE'", $call, $n);
		my $name = "first key, $call $n";
		if ($was_killed)
		{
			$killed++;
			come_back($first, $killed % 2);
			is(good_rows($first, 'clear'), 500, "$name: what was there before is there");
			$first->safe_psql('postgres', "SELECT pgx_set_master_key('$PASSPHRASE')");
		}
		is(status_of($first, 'wal_encryption'), 't', "$name: then the master key can be set");
		make_encrypted_table($first, 'secret');

		copy_keystore($first, $follower);
		$follower->start;
		caught_up($first, $follower);
		is(good_rows($follower, 'secret'), 500, "$name: the standby follows when it gets the keystore");
		$follower->stop('immediate');

		$first->stop('immediate');
		$first->start;
		is(good_rows($first, 'secret'), 500, "$name: everything is read after another crash");

		# It has slots in it, which a passphrase could be guessed from.
		is(join(' ', files_with({ keystore => "PGXKS\r\n" }, $first->data_dir . '/pg_wal')), '',
			"$name: no keystore is in WAL in the clear");
		$first->stop('immediate');
		last if !$was_killed;
	}
}
cmp_ok($killed, '>=', 10, "the first pgx_set_master_key() was killed at $killed places");

# ---- the next keys ----------------------------------------------------------------------

my $primary = new_primary('primary', checksums => 1, conf => $conf);
my $standby = new_standby($primary, 'standby', conf => $conf);
$standby->start;
make_encrypted_table($primary, 'secret');

$killed = 0;
my $tables = 0;
foreach my $call (@CHANGING_CALLS)
{
	for (my $n = 1;; $n++)
	{
		my $before = status_of($primary, 'active_master_key');
		my $was_killed = killed_at($primary, '', $call, $n);
		last if !$was_killed;
		my $name = "next key, $call $n";
		$killed++;
		come_back($primary, $killed % 2);
		is(good_rows($primary, 'secret'), 500, "$name: everything is read");
		like(status_of($primary, 'active_master_key'), qr/^(?:$before|@{[ $before + 1 ]})$/,
			"$name: the key is the old one or the new one");

		# A new data key, wrapped under a master key whose record may never have been written: the standby
		# has it all the same.
		make_encrypted_table($primary, 'table_' . ++$tables);
		caught_up($primary, $standby);
		is(good_rows($standby, "table_$tables"), 500, "$name: the standby goes on");

		rotate($primary);
		caught_up($primary, $standby);
		is_same_file(keystore_file($primary), keystore_file($standby), "$name: both have the same keystore");
		is_same_file(keytable_file($primary), keytable_file($standby), "$name: both have the same key table");
		is(join(' ', sort grep { !/^\./ } slurp_dir(keystore_dir($primary))),
			'keystore.ks keystore.ks.prev keystore.lock', "$name: nothing is left over");
	}
}
cmp_ok($killed, '>=', 15, "a later pgx_set_master_key() was killed at $killed places");

# The standby has it all on its own.
$primary->stop('immediate');
$standby->restart;
$standby->promote;
$standby->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die 'no promotion';
is(good_rows($standby, $_), 500, "table \"$_\" is there after failover") foreach 'secret', "table_$tables";
rotate($standby);
$standby->stop;
command_ok([ 'pg_checksums', '--check', '-D', $standby->data_dir ], 'pg_checksums finds nothing');

done_testing();
