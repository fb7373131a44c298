# A primary under load on a disk that gives short counts, errors and "no space left", is killed, and then forgets
# whole sectors of what nobody had synced; again and again.  No acknowledged row is lost.  Keys are rotated, encrypted
# tablespaces made and base backups taken while it happens.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PgxCrash;
use PgxNemesis;
use PgxTde;

my $rounds = $ENV{PGX_CRASH_ROUNDS} // 6;
my $db = 'bank';
my $seed = $ENV{PGX_NEMESIS_SEED} // time() % 1_000_000;
note("PGX_NEMESIS_SEED=$seed");
build_nemesis();

my $node = new_primary(
	'primary',
	checksums => 1,
	conf => "fsync = on\nfull_page_writes = on\nrestart_after_crash = on\nlog_statement = none\n"
	  . "shared_buffers = 2MB\nbgwriter_delay = 10ms\nbgwriter_lru_maxpages = 1000\nbgwriter_flush_after = 0\n"
	  . "max_connections = 30\nmax_wal_size = 64MB\ncheckpoint_timeout = 30s\n"
	  . "autovacuum_naptime = 1s\n");
my $enc = tablespace_dir($node, 'enc');
$node->safe_psql('postgres',
	"CREATE TABLESPACE enc LOCATION '$enc' WITH (tablespace_encryption_algorithm = 'AES256')");
$node->safe_psql('postgres', "CREATE DATABASE $db TABLESPACE enc");
$node->command_ok([ 'pgbench', '-i', '-q', '-s', '2', $db ], 'pgbench makes its tables');
make_ledger($node, $db);
$node->safe_psql($db, 'CREATE EXTENSION pgx_tde');

# Something to write that nobody waits for.
$node->safe_psql($db, q{
	CREATE TABLE churn (n int PRIMARY KEY, changes int, filler text);
	INSERT INTO churn SELECT n, 0, repeat('x', 500) FROM generate_series(1, 5000) n});
$node->stop;

my %count = (writes => 0, sectors => 0, reverted => 0, faults => 0, rotations => 0, tablespaces => 0,
	backups => 0, transactions => 0, ledger => 0);
my ($lost, $damaged, $unknown, $unbalanced, $lost_keys, $not_started, $lost_rounds, $ended) = (0) x 8;
my @ledgers;

# Faults that a server has to bear, in every round; errors, in every third.
my %short = (short_read => 20_000, short_write => 20_000);
my %errors = (%short, read_error => 100, write_error => 100, no_space => 300);

sub others
{
	my ($round) = @_;
	if ($round % 3 == 0)
	{
		return (rotations => start_psql($node, $db, "rotations_$round",
				q{yes 'SELECT pgx_set_master_key() IS NULL; SELECT active_master_key FROM pgx_keystore_status;'}));
	}
	if ($round % 3 == 1)
	{
		my $script = '';
		foreach my $n (1 .. 20)
		{
			my $dir = tablespace_dir($node, "r${round}_$n");
			$script .= "CREATE TABLESPACE r${round}_$n LOCATION '$dir' WITH (tablespace_encryption_algorithm = 'AES128');\n"
			  . "CREATE TABLE in_r${round}_$n TABLESPACE r${round}_$n AS SELECT n FROM generate_series(1, 500) n;\n"
			  . "SELECT 'r${round}_$n';\n";
		}
		return (tablespaces => start_psql($node, $db, "tablespaces_$round",
				'cat ' . write_file(work_dir() . "/tablespaces_$round.sql", $script)));
	}
	# Tar: the tablespaces need no other place.
	my $dir = work_dir() . "/backup_$round";
	return (backups => PgxCrash::start_client($node, "backup_$round",
			"pg_basebackup -F t -c fast -D $dir && echo done"));
}

foreach my $round (1 .. $rounds)
{
	if (!start_with_nemesis($node, $seed + $round, %short))
	{
		$not_started++;
		last;
	}
	my @clients = map { start_ledger($node, $db, $_, $round) } 1, 2;
	my $pgbench = start_pgbench($node, $db, "pgbench_$round", 120);
	my $churn = start_psql($node, $db, "churn_$round", q{yes 'UPDATE churn SET changes = changes + 1;'});
	my ($kind, $other) = others($round);
	push @ledgers, @clients;
	wait_until(sub { !grep { !acknowledged($_) } @clients });
	# A backup does not survive errors, nor the end of its server: every other one is let come to its end.
	if ($round % 6 == 2)
	{
		wait_until(sub { acknowledged($other) || !is_running($node) });
	}
	elsif ($round % 3 == 2)
	{
		set_odds($node, %errors);
	}
	random_sleep(0.3, 1.5);

	# An error in the wrong place may have ended it already.
	kill_server($node) if is_running($node);
	$node->{_pid} = undef;
	finish($_) foreach @clients, $pgbench, $churn, $other;
	$count{faults} += faults($node);
	my ($writes, $sectors, $reverted) = pull_the_plug($node, $seed * 1000 + $round);
	$count{writes} += $writes;
	$count{sectors} += $sectors;
	$count{reverted} += $reverted;
	$lost_rounds++ if $reverted;

	# Recovery on a disk with short counts; then what was acknowledged has to be there.
	if (!start_with_nemesis($node, $seed + 500 + $round, %short))
	{
		$not_started++;
		last;
	}
	$unbalanced++ if $node->safe_psql($db, 'SELECT count(DISTINCT changes), count(*) FROM churn') ne '1|5000';
	my ($acknowledged, $gone, $extra, $wrong) = check_ledger($node, $db, @ledgers);
	$count{ledger} = $acknowledged;
	$lost += $gone;
	$damaged += $wrong;
	$unknown++ if $extra > @ledgers;
	$count{transactions} += eval { pgbench_acknowledged($pgbench) } // 0;
	my $history = check_balances($node, $db);
	$unbalanced++ if $history < 0;
	$lost += $count{transactions} - $history if $history >= 0 && $history < $count{transactions};
	my @done = acknowledged($other);
	if ($kind eq 'rotations')
	{
		my @keys = grep { /^\d+$/ } @done;
		my $active = status_of($node, 'active_master_key');
		$lost_keys++ if @keys && ($active < $keys[-1] || $active > $keys[-1] + 1);
		$count{rotations} += @keys;
	}
	elsif ($kind eq 'tablespaces')
	{
		$count{tablespaces} += @done;
		foreach my $name (@done)
		{
			$lost++ if $node->safe_psql($db, "SELECT count(*) FROM in_$name") != 500;
		}
	}
	else
	{
		$count{backups} += @done;
		$ended++ if $round % 6 == 2 && @done;
	}
	note("round $round: $acknowledged rows, $history transactions; $writes unsynced writes, $reverted of $sectors"
		  . " sectors fell back");
	$node->stop;
}

diag("nemesis: $rounds rounds; $count{faults} faults; $count{writes} unsynced writes, $count{reverted} of "
	  . "$count{sectors} sectors fell back; acknowledged: $count{ledger} ledger rows, $count{transactions} pgbench "
	  . "transactions, $count{rotations} rotations, $count{tablespaces} tablespaces, $count{backups} backups; lost: $lost");
is($not_started, 0, 'the server came up after every loss of power');
cmp_ok($count{faults}, '>', $rounds, 'the disk gave short counts and errors');
cmp_ok($lost_rounds, '>=', $rounds / 3, 'the disk forgot unsynced writes');
is($ended, int(($rounds + 4) / 6), 'every base backup that was waited for came to its end');
cmp_ok($count{ledger}, '>=', 5 * $rounds, 'the ledger has rows to lose');
is($lost, 0, 'no acknowledged commit is lost');
is($unknown, 0, 'no row came that nobody sent');
is($damaged, 0, 'every row has the content that it was given');
is($unbalanced, 0, 'the balances agreed after every loss of power');
is($lost_keys, 0, 'the active master key is the last one set');

$node->start;
$node->safe_psql('postgres', 'CHECKPOINT');
$node->command_ok([ 'pg_amcheck', '--install-missing', '--heapallindexed', '-d', $db ], 'pg_amcheck finds nothing');
$node->stop;
command_ok([ 'pg_checksums', '--check', '-D', $node->data_dir ], 'pg_checksums finds nothing');

done_testing();
