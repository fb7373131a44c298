# A standby that replays a load on a disk that gives short counts, errors and "no space left", is killed, and then
# forgets whole sectors of what nobody had synced; again and again.  Each time it catches up, with the content of the
# primary and its keystore.  Keys are rotated, encrypted tablespaces made and base backups taken from the standby while
# it happens; in the end it is promoted and nothing that the primary acknowledged is missing.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PgxCrash;
use PgxNemesis;
use PgxTde;

my $rounds = $ENV{PGX_CRASH_ROUNDS} // 4;
my $db = 'bank';
my $seed = $ENV{PGX_NEMESIS_SEED} // time() % 1_000_000;
note("PGX_NEMESIS_SEED=$seed");
build_nemesis();

# Both servers are on one machine, so the tablespaces that are made under way lie in place.
my $conf = "fsync = on\nlog_statement = none\nmax_connections = 30\nmax_wal_size = 64MB\ncheckpoint_timeout = 30s\n"
  . "allow_in_place_tablespaces = on\nwal_retrieve_retry_interval = 100ms\nrestart_after_crash = on\n";
my $primary = new_primary('primary', checksums => 1, conf => "$conf\nwal_keep_size = 512MB\nautovacuum_naptime = 1s\n");
my $enc = tablespace_dir($primary, 'enc');
$primary->safe_psql('postgres',
	"CREATE TABLESPACE enc LOCATION '$enc' WITH (tablespace_encryption_algorithm = 'AES256')");
$primary->safe_psql('postgres', "CREATE DATABASE $db TABLESPACE enc");
$primary->command_ok([ 'pgbench', '-i', '-q', '-s', '1', $db ], 'pgbench makes its tables');
make_ledger($primary, $db);
$primary->safe_psql($db, q{
	CREATE EXTENSION pgx_tde;
	CREATE TABLE churn (n int PRIMARY KEY, changes int, filler text);
	INSERT INTO churn SELECT n, 0, repeat('x', 500) FROM generate_series(1, 5000) n});

# Small buffers: pages are written while they are replayed, by the startup process itself.
my $standby = new_standby($primary, 'standby',
	conf => "$conf\nshared_buffers = 2MB\nbgwriter_delay = 10ms\nbgwriter_lru_maxpages = 1000\nbgwriter_flush_after = 0\n");
$standby->start;
caught_up($primary, $standby);
$standby->stop;

my %count = (rounds => 0, writes => 0, sectors => 0, reverted => 0, faults => 0, rotations => 0, tablespaces => 0, backups => 0,
	rows => 0);
my ($lost, $unequal, $unbalanced, $lost_keys, $not_started, $lost_rounds, $idle) = (0) x 7;
my @ledgers;

my %short = (short_read => 20_000, short_write => 20_000);
my %errors = (%short, read_error => 100, write_error => 100, no_space => 300);

sub make_tablespace
{
	my ($round) = @_;
	$primary->safe_psql($db,
		"CREATE TABLESPACE r$round LOCATION '' WITH (tablespace_encryption_algorithm = 'AES128')");
	$primary->safe_psql($db,
		"CREATE TABLE in_r$round TABLESPACE r$round AS SELECT n, md5(n::text) FROM generate_series(1, 500) n");
	$count{tablespaces}++;
	return;
}

# More rounds than asked for where the disk had nothing to forget in most of them.
foreach my $round (1 .. 3 * $rounds)
{
	last if $round > $rounds && $lost_rounds >= $rounds / 3;
	$count{rounds}++;
	my $before = $primary->lsn('flush');
	if (!start_with_nemesis($standby, $seed + $round, %short))
	{
		$not_started++;
		last;
	}
	my $ledger = start_ledger($primary, $db, 1, $round);
	my $pgbench = start_pgbench($primary, $db, "pgbench_$round", 120);
	my $churn = start_psql($primary, $db, "churn_$round", q{yes 'UPDATE churn SET changes = changes + 1;'});
	push @ledgers, $ledger;
	# So much that pages had to leave its buffers, which nobody has synced yet.
	$primary->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming' AND replay_lsn > '$before'::pg_lsn + 8000000")
	  or $idle++;
	my $backup;
	if ($round % 3 == 0)
	{
		my $dir = work_dir() . "/backup_$round";
		$backup = PgxCrash::start_client($standby, "backup_$round", "pg_basebackup -F t -c fast -D $dir && echo done");
	}
	rotate($primary) if $round % 3 == 1;
	make_tablespace($round) if $round % 3 == 2;
	random_sleep(0.3, 1.0);
	set_odds($standby, %errors) if $round % 4 == 2;
	random_sleep(0.3, 1.5);

	# An error in the wrong place may have ended it already.
	kill_server($standby) if is_running($standby);
	$standby->{_pid} = undef;
	if ($backup)
	{
		finish($backup);
		$count{backups} += acknowledged($backup);
	}
	$count{faults} += faults($standby);
	my ($writes, $sectors, $reverted) = pull_the_plug($standby, $seed * 1000 + $round);
	$count{writes} += $writes;
	$count{sectors} += $sectors;
	$count{reverted} += $reverted;
	$lost_rounds++ if $reverted;

	# One more change of the key that it finds in WAL when it comes back.
	rotate($primary);
	$count{rotations} += $round % 3 == 1 ? 2 : 1;
	stop_client($primary, $_) foreach $churn, $pgbench, $ledger;
	if (!start_with_nemesis($standby, $seed + 500 + $round, %short))
	{
		$not_started++;
		last;
	}
	caught_up($primary, $standby);
	my ($acknowledged, $gone, undef, $other) = check_ledger($primary, $db, @ledgers);
	$count{rows} = $acknowledged;
	$lost += $gone + $other;
	$unequal++ if fingerprint($primary, $db) ne fingerprint($standby, $db);
	$unbalanced++ if check_balances($standby, $db) < 0;
	$lost_keys++
	  if slurp_raw(keystore_file($primary)) ne slurp_raw(keystore_file($standby))
	  || slurp_raw(keytable_file($primary)) ne slurp_raw(keytable_file($standby));
	note("round $round: $acknowledged rows; $writes unsynced writes, $reverted of $sectors sectors fell back");
	$standby->stop;
}

diag("nemesis of a standby: $count{rounds} rounds; $count{faults} faults; $count{writes} unsynced writes, $count{reverted} "
	  . "of $count{sectors} sectors fell back; $count{rows} ledger rows, $count{rotations} rotations, "
	  . "$count{tablespaces} tablespaces, $count{backups} backups of the standby; lost: $lost");
is($not_started, 0, 'the standby came up after every loss of power');
is($idle, 0, 'it was replaying the load whenever that happened');
cmp_ok($count{faults}, '>', $rounds, 'the disk gave short counts and errors');
cmp_ok($lost_rounds, '>=', $rounds / 3, 'the disk forgot unsynced writes');
cmp_ok($count{rows}, '>=', 5 * $rounds, 'the ledger has rows to lose');
is($lost, 0, 'the ledger is whole');
is($unequal, 0, 'the standby had the content of the primary after every loss of power');
is($unbalanced, 0, 'the balances agreed after every loss of power');
is($lost_keys, 0, 'keystore and key table were those of the primary after every loss of power');

# Failover.
$standby->start;
caught_up($primary, $standby);
kill_server($primary);
$standby->promote;
$standby->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die 'no promotion';
my ($acknowledged, $gone, undef, $other) = check_ledger($standby, $db, @ledgers);
is("$gone lost, $other damaged", '0 lost, 0 damaged', "all of $acknowledged rows are there after failover");
$standby->safe_psql('postgres', 'CHECKPOINT');
$standby->command_ok([ 'pg_amcheck', '--install-missing', '--heapallindexed', '-d', $db ], 'pg_amcheck finds nothing');
$standby->stop;
command_ok([ 'pg_checksums', '--check', '-D', $standby->data_dir ], 'pg_checksums finds nothing');

done_testing();
