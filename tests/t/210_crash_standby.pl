# kill -9 of a standby under load, again and again: after each restart it catches up and has the primary's
# content.  The master key is changed while it is down and while it is up.  In the end it is promoted.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PgxCrash;
use PgxTde;

my $rounds = rounds();
my $db = 'bank';
my $conf = "fsync = on\nlog_statement = none\nshared_buffers = 8MB\nmax_connections = 30\n"
  . "max_wal_size = 64MB\ncheckpoint_timeout = 30s\nwal_retrieve_retry_interval = 100ms\nrestart_after_crash = on\n";

my $primary = new_primary('primary', checksums => 1, conf => "$conf\nwal_keep_size = 256MB\n");
my $enc = tablespace_dir($primary, 'enc');
$primary->safe_psql('postgres',
	"CREATE TABLESPACE enc LOCATION '$enc' WITH (tablespace_encryption_algorithm = 'AES256')");
$primary->safe_psql('postgres', "CREATE DATABASE $db TABLESPACE enc");
$primary->command_ok([ 'pgbench', '-i', '-q', '-s', '1', $db ], 'pgbench makes its tables');
make_ledger($primary, $db);

my $standby = new_standby($primary, 'standby', conf => $conf);
$standby->start;
caught_up($primary, $standby);

my @types = ('walreceiver', 'startup', 'checkpointer');
my %count = (servers => 0, processes => 0, rows => 0, rotations => 0);
my ($idle, $lost, $unequal, $unbalanced, $lost_keys) = (0) x 5;
my @ledgers;

sub rotate_counted
{
	rotate($primary);
	$count{rotations}++;
	return;
}

sub is_idle
{
	my ($why) = @_;
	note($why);
	$idle++;
	return;
}

foreach my $round (1 .. $rounds)
{
	my $before = $standby->lsn('replay');
	my $ledger = start_ledger($primary, $db, 1, $round);
	my $pgbench = start_pgbench($primary, $db, "pgbench_$round", 120);
	push @ledgers, $ledger;
	random_sleep(0.2, 0.8);

	# The standby is at it: it streams, and it replays what the load writes.
	$primary->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming' AND replay_lsn > '$before'")
	  or is_idle('the standby did not replay');
	is_idle('nothing was acknowledged') if !acknowledged($ledger);
	is_idle('the load had come to its end') if !is_busy($ledger) || !is_busy($pgbench);

	my $type = $round % 4 == 0 ? $types[ ($round / 4 - 1) % @types ] : '';
	if ($type)
	{
		my $pid = kill_process($standby, $type);
		note("round $round: killed $type $pid");
		$count{processes}++;

		# Without the startup process the postmaster gives up; without another it restarts them all.
		wait_ended($standby) if $type eq 'startup';
	}
	else
	{
		note("round $round: killed " . kill_server($standby) . ' processes');
		$count{servers}++;
	}

	# One change of the key that it finds in WAL when it comes back, another that it gets while it replays.
	rotate_counted() if $round % 2;
	$standby->start if !defined $standby->{_pid};
	rotate_counted() if $round % 3 == 0;

	stop_client($primary, $_) foreach $pgbench, $ledger;
	caught_up($primary, $standby);
	my ($acknowledged, $gone, $extra, $other) = check_ledger($primary, $db, @ledgers);
	$count{rows} = $acknowledged;
	$lost += $gone + $other;
	$unequal++ if fingerprint($primary, $db) ne fingerprint($standby, $db);
	$unbalanced++ if check_balances($standby, $db) < 0;
	$lost_keys++
	  if slurp_raw(keystore_file($primary)) ne slurp_raw(keystore_file($standby))
	  || slurp_raw(keytable_file($primary)) ne slurp_raw(keytable_file($standby));
}

diag("standby: $rounds rounds ($count{servers} servers, $count{processes} processes killed); "
	  . "$count{rows} ledger rows acknowledged, $count{rotations} rotations; rounds with another content: $unequal");

is($count{servers} + $count{processes}, $rounds, 'something was killed in every round');
is($idle, 0, 'the standby was replaying the load whenever it was');
cmp_ok($count{rows}, '>=', 10 * $rounds, 'the ledger has rows to lose');
cmp_ok($count{rotations}, '>=', $rounds / 2, 'the master key was changed');
is($lost, 0, 'the ledger is whole');
is($unequal, 0, 'the standby had the content of the primary after every crash');
is($unbalanced, 0, 'the balances agreed after every crash');
is($lost_keys, 0, 'keystore and key table were those of the primary after every crash');

# The WAL that both keep.
my $last = finish_segment($primary);
caught_up($primary, $standby);
my ($same, @different) = same_wal($primary->data_dir . '/pg_wal', $standby->data_dir . '/pg_wal', $last);
cmp_ok($same, '>', 0, 'both servers have complete segments');
is("@different", '', 'all of them are the same, byte for byte');

# Failover in the middle of things, and a crash of the new primary.
my $ledger = start_ledger($primary, $db, 1, $rounds + 1);
push @ledgers, $ledger;
random_sleep(0.5, 1.0);
stop_client($primary, $ledger);
caught_up($primary, $standby);
kill_server($primary);
$standby->promote;
$standby->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die 'no promotion';
my ($acknowledged, $gone, undef, $other) = check_ledger($standby, $db, @ledgers);
is("$gone lost, $other damaged", '0 lost, 0 damaged', "all of $acknowledged rows are there after failover");
rotate($standby);
my $late = start_ledger($standby, $db, 2, 1);
random_sleep(0.5, 1.0);
kill_server($standby);
finish($late);
$standby->start;
cmp_ok(scalar(acknowledged($late)), '>', 0, 'the new primary was at work when it was killed');
($acknowledged, $gone, undef, $other) = check_ledger($standby, $db, @ledgers, $late);
is("$gone lost, $other damaged", '0 lost, 0 damaged', "all of $acknowledged rows are there after a crash");
unlike(slurp_file($standby->logfile), qr/PANIC|invalid page|page verification failed/, 'no panic, no bad page');

$standby->command_ok([ 'pg_amcheck', '--install-missing', '--heapallindexed', '-d', $db ], 'pg_amcheck finds nothing');
$standby->stop;
command_ok([ 'pg_checksums', '--check', '-D', $standby->data_dir ], 'pg_checksums finds nothing');

done_testing();
