# 221_store_crash.pl
#		kill -9 in the middle of a rekey and of a change of the passphrase by pgx_keystore -d, before each of
#		the system calls that change a file: of the backend that stores the keystore, and of the standby's startup
#		process that replays it.  Both servers open by themselves, before and after, and come to the same keystore.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PgxCrash;
use PgxKillAt;
use PgxTde;

if (!can_kill_at())
{
	plan skip_all => 'strace (package strace) is needed, and that it may trace processes of this user';
}

# It would note the name of this test as the standby's.
delete $ENV{PGAPPNAME};

my $conf = "fsync = on\nrestart_after_crash = on\nlog_statement = none\nwal_retrieve_retry_interval = 100ms\n"
  . "autovacuum = off\ncheckpoint_timeout = 1h\nallow_in_place_tablespaces = on\nwal_keep_size = 512MB\n";
my $primary = new_primary('primary', checksums => 1, conf => $conf);
my $standby = new_standby($primary, 'standby', conf => $conf);
$standby->start;
make_encrypted_table($primary, 'secret');
caught_up($primary, $standby);
foreach my $node ($primary, $standby)
{
	auto_open($node, $PASSPHRASE);
	$node->append_conf('postgresql.conf', "pgx_tde.keystore_passphrase_command = ''");
	$node->restart;
	is(status_of($node, 'opened_by'), 'auto-open', $node->name . ' opens by itself');
}

my $passphrase = $PASSPHRASE;
my $other = 'the other phrase of test 221';
my $case_number = 0;

# What a change needs on standard input, and the passphrase when it is done.
sub lines_for
{
	my ($what) = @_;
	return $what eq 'rekey' ? ("$passphrase\n\n", $passphrase) :
	  ("$passphrase\n" . ($passphrase eq $other ? $PASSPHRASE : $other) . "\n", $passphrase eq $other ? $PASSPHRASE : $other);
}

# Start a change; it waits for its passphrase.  Returns the client, its pipe, and the backend that will store.
sub begin_change
{
	my ($what) = @_;
	my $base = work_dir() . '/case_' . ++$case_number;
	my $command = join ' ', $what, $what eq 'passwd' ? '--kdf-cost 10' : (), '-d', "'" . $primary->connstr('postgres') . "'";
	my $pid = open(my $pipe, '|-', "exec pgx_keystore $command >$base.out 2>$base.err") // die "could not fork: $!";
	$pipe->autoflush(1);
	my $backend;
	wait_until(sub {
		$backend = $primary->safe_psql('postgres',
			"SELECT pid FROM pg_stat_activity WHERE state = 'idle' AND query LIKE '%pgx_get_keystore()%'");
		$backend || !kill(0, $pid);
	});
	die "no session: " . slurp_raw("$base.err") if !$backend;
	return ($pipe, $backend, $base);
}

# Everything is as it should be on both, also after another start of each.
sub check_both
{
	my ($name, $new) = @_;

	# The keystore is the one of before or the one of after; with both, the next change goes to the standby.
	my ($rc) = pgx_keystore([ 'info', '--open', keystore_file($primary) ], "$new\n");
	$passphrase = $new if $rc == 0;
	my ($out, $err);
	($rc, $out, $err) = pgx_keystore([ 'slot', 'label', '--slot', 1, '--label', "case $case_number", '-d', $primary->connstr('postgres') ],
		"$passphrase\n");
	is($rc, 0, "$name: the next change") or diag($err);
	$primary->safe_psql('postgres', "UPDATE secret SET content = md5(n::text)");
	make_encrypted_table($primary, "table_$case_number") if $case_number % 8 == 1;
	caught_up($primary, $standby);
	is_same_file(keystore_file($primary), keystore_file($standby), "$name: one keystore");
	($rc) = pgx_keystore([ 'info', '--open', keystore_file($standby) ], "$passphrase\n");
	is($rc, 0, "$name: the passphrase opens it");
	foreach my $node ($primary, $standby)
	{
		is(good_rows($node, 'secret'), 500, "$name: the data of the " . $node->name);
		like((pgx_keystore([ 'auto-open', 'status', keystore_file($node) ]))[1], qr/^auto-open: enabled/, "$name: automatic opening of the " . $node->name);
		is(join(' ', sort grep { !/^\./ } slurp_dir(keystore_dir($node))),
			'keystore.aks keystore.ks keystore.ks.prev keystore.lock', "$name: nothing is left over");
	}
	return;
}

# ---- the backend that stores ------------------------------------------------------------------

foreach my $what ('rekey', 'passwd')
{
	my $killed = 0;
	foreach my $call (@CHANGING_CALLS)
	{
		for (my $n = 1;; $n++)
		{
			my $all = ($killed + ($what eq 'rekey')) % 2;
			my $name = "$what, $call $n" . ($all ? ', everything' : '');
			my ($lines, $new) = lines_for($what);
			my ($pipe, $backend, $base) = begin_change($what);
			my $tracer = kill_at($backend, $call, $n, "$base.trace");
			print $pipe $lines;
			close $pipe;
			my $code = $? >> 8;
			my $was_killed = killed_by($tracer);
			if ($code == 0)
			{
				$passphrase = $new;
				last;
			}
			ok($was_killed, "$name: killed");
			# Killed before it gave the keystore out, nothing was stored.
			like(slurp_raw("$base.err"), qr/error: could not fetch the keystore|error: could not store .*hint: It is not known whether the change was made\.  If it was, then the server's keystore has generation \d+ /s,
				"$name: the client is told");
			$killed++;
			come_back($primary, $all);
			ok(comes_back($standby), "$name: the standby is there");
			check_both($name, $new);
		}
	}
	cmp_ok($killed, '>=', 20, "$what was killed at $killed places");
}

# ---- the standby's startup process ---------------------------------------------------------------

foreach my $what ('rekey', 'passwd')
{
	my $killed = 0;
	foreach my $call (@CHANGING_CALLS)
	{
		for (my $n = 1;; $n++)
		{
			my $name = "replay of $what, $call $n";
			$case_number++;
			my $startup = $standby->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'");
			my $tracer = kill_at($startup, $call, $n, work_dir() . "/replay_$what.$call.$n");
			my ($lines, $new) = lines_for($what);
			my ($rc, $out, $err) = pgx_keystore([ $what, $what eq 'passwd' ? ('--kdf-cost', 10) : (), '-d', $primary->connstr('postgres') ], $lines);
			is($rc, 0, "$name: done on the primary");
			my $lsn = $primary->safe_psql('postgres', 'SELECT pg_current_wal_flush_lsn()');
			my $replayed = 0;
			wait_until(sub {
				my ($code, $there) = eval { $standby->psql('postgres', "SELECT pg_last_wal_replay_lsn() >= '$lsn'") };
				$replayed = ($there // '') eq 't';
				return $replayed || !is_running($standby);
			}) or die 'neither replayed nor ended';
			if ($replayed)
			{
				kill 'TERM', $tracer->{pid};
				killed_by($tracer);
				check_both("$name: replayed", $new);
				last;
			}
			wait_ended($standby);
			ok(killed_by($tracer), "$name: killed");
			$killed++;
			$standby->start;
			caught_up($primary, $standby);
			check_both($name, $new);
		}
	}
	cmp_ok($killed, '>=', 5, "replay of $what was killed at $killed places");
}

# The standby has it all on its own.
$primary->stop('immediate');
$standby->restart;
$standby->promote;
$standby->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die 'no promotion';
is(good_rows($standby, $_), 500, "table \"$_\" is there after failover") foreach 'secret', 'table_1';
rotate($standby);
$standby->stop;

done_testing();
