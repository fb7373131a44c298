# kill -9 of a primary under load, again and again: no acknowledged row is lost, and what pgbench counts four
# ways agrees.  In most rounds postmaster and children die together; in every fourth round one process does, and
# the postmaster restarts the others.  Keys are rotated and encrypted tablespaces made while it happens.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PgxCrash;
use PgxTde;

my $rounds = rounds();
my $db = 'bank';

my $node = new_primary(
	'primary',
	checksums => 1,
	conf => "fsync = on\nrestart_after_crash = on\nlog_statement = none\nshared_buffers = 8MB\n"
	  . "max_connections = 30\nmax_wal_size = 64MB\ncheckpoint_timeout = 30s\n"
	  . "autovacuum_naptime = 1s\n");
my $enc = tablespace_dir($node, 'enc');
$node->safe_psql('postgres',
	"CREATE TABLESPACE enc LOCATION '$enc' WITH (tablespace_encryption_algorithm = 'AES256')");
$node->safe_psql('postgres', "CREATE DATABASE $db TABLESPACE enc");
$node->command_ok([ 'pgbench', '-i', '-q', '-s', '2', $db ], 'pgbench makes its tables');
make_ledger($node, $db);
$node->safe_psql($db, 'CREATE EXTENSION pgx_tde');

# What is acknowledged over all rounds.
my @ledgers;
my %count = (transactions => 0, rotations => 0, tablespaces => 0, servers => 0, processes => 0);
my ($lost, $unknown, $damaged, $unbalanced, $idle, $lost_keys, $lost_tables) = (0) x 7;
my $made_tables = '';

sub is_idle
{
	my ($why) = @_;
	note($why);
	$idle++;
	return;
}

# Statements for a client of its own beside the load; each is acknowledged by a line.
sub rotations { return q{yes 'SELECT pgx_set_master_key() IS NULL; SELECT active_master_key FROM pgx_keystore_status;'}; }

sub tablespaces
{
	my ($round) = @_;
	my $script = '';
	foreach my $n (1 .. 30)
	{
		my $name = "r${round}_$n";
		my $dir = tablespace_dir($node, $name);
		my $algorithm = $n % 2 ? 'AES128' : 'AES256';
		$script .= <<"EOF";
CREATE TABLESPACE $name LOCATION '$dir' WITH (tablespace_encryption_algorithm = '$algorithm');
CREATE TABLE in_$name TABLESPACE $name AS SELECT n, md5(n::text) AS content FROM generate_series(1, 500) n;
SELECT '$name';
EOF
	}
	return 'cat ' . write_file(work_dir() . "/tablespaces_$round.sql", $script);
}

# All tables that are acknowledged to be in tablespaces of their own have their content; returns how many have not.
sub count_lost_tables
{
	my (@names) = @_;
	return 0 if !@names;
	my $good = $node->safe_psql($db, 'SELECT ' . join(' + ',
			map { "(SELECT (count(*) = 500 AND bool_and(content = md5(n::text)))::int FROM in_$_)" } @names));
	return @names - $good;
}

my @types = ('client backend', 'checkpointer', 'walwriter', 'background writer');

foreach my $round (1 .. $rounds)
{
	my @clients = map { start_ledger($node, $db, $_, $round) } 1, 2;
	my $pgbench = start_pgbench($node, $db, "pgbench_$round", 120);
	my ($rotator, $maker);
	$rotator = start_psql($node, $db, "rotations_$round", rotations()) if $round % 3 == 0;
	$maker = start_psql($node, $db, "tablespaces_$round", tablespaces($round)) if $round % 3 == 1;
	push @ledgers, @clients;

	random_sleep(0.4, 1.6);

	# Let every client get something through, so that each round counts.
	wait_until(sub { !grep { !acknowledged($_) } @clients, grep { defined } ($rotator, $maker) });
	my $active = $node->safe_psql('postgres',
		q{SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgbench%'});
	my @working = grep { is_busy($_) } @clients, $pgbench;
	is_idle("$active sessions of pgbench, " . @working . ' clients at work') if $active != 4 || @working != 3;

	my $type = $round % 4 == 0 ? $types[ ($round / 4 - 1) % @types ] : '';
	if ($type)
	{
		my $pid = kill_process($node, $type);
		note("round $round: killed $type $pid");
		$count{processes}++;
	}
	else
	{
		note("round $round: killed " . kill_server($node) . ' processes');
		$count{servers}++;
	}
	# Every client has lost its server: it was not done before.
	foreach my $client (@clients, $pgbench)
	{
		is_idle("$client->{name} has come to its end") if finish($client) == 0;
	}
	foreach my $client (grep { defined } $rotator, $maker)
	{
		finish($client);
	}
	$type ? comes_back($node) : $node->start;

	my ($acknowledged, $gone, $extra, $other) = check_ledger($node, $db, @ledgers);
	$lost += $gone;
	$damaged += $other;
	# Each client may have had one commit that the answer to was lost.
	$unknown++ if $extra > @ledgers;
	is_idle('nothing was acknowledged') if grep { !acknowledged($_) } @clients;

	$count{transactions} += pgbench_acknowledged($pgbench);
	my $history = check_balances($node, $db);
	$unbalanced++ if $history < 0;
	$lost += $count{transactions} - $history if $history >= 0 && $history < $count{transactions};

	if ($rotator)
	{
		my @keys = grep { /^\d+$/ } acknowledged($rotator);
		my $active_key = status_of($node, 'active_master_key');
		$lost_keys++ if !@keys || $active_key < $keys[-1] || $active_key > $keys[-1] + 1;
		$count{rotations} += @keys;
	}
	if ($maker)
	{
		my @names = acknowledged($maker);
		$count{tablespaces} += @names;
		$lost_tables += count_lost_tables(@names);
		is_idle('no tablespace was made') if !@names;
	}
	$count{ledger} = $acknowledged;
	note("round $round: $acknowledged rows of the ledger, $history transactions of pgbench");
}

diag("primary: $rounds rounds ($count{servers} servers, $count{processes} processes killed); acknowledged: "
	  . "$count{ledger} ledger rows, $count{transactions} pgbench transactions, $count{rotations} rotations, "
	  . "$count{tablespaces} tablespaces; lost: $lost");

is($count{servers} + $count{processes}, $rounds, 'something was killed in every round');
is($idle, 0, 'the load was running whenever it was');
cmp_ok($count{ledger}, '>=', 10 * $rounds, 'the ledger has rows to lose');
cmp_ok($count{transactions}, '>=', 10 * $rounds, 'pgbench has transactions to lose');
cmp_ok($count{rotations}, '>=', int($rounds / 3), 'the master key was changed');
cmp_ok($count{tablespaces}, '>=', int($rounds / 3), 'encrypted tablespaces were made');
is($lost, 0, 'no acknowledged commit is lost');
is($unknown, 0, 'no row came that nobody sent');
is($damaged, 0, 'every row has the content that it was given');
is($unbalanced, 0, 'the balances agreed after every crash');
is($lost_keys, 0, 'the active master key is the last one set');
is($lost_tables, 0, 'every table in a new tablespace has its content');
unlike(slurp_file($node->logfile), qr/PANIC|invalid page|page verification failed/, 'no panic, no bad page');

# The files as a whole.
$node->safe_psql('postgres', 'CHECKPOINT');
$node->command_ok([ 'pg_amcheck', '--install-missing', '--heapallindexed', '-d', $db ], 'pg_amcheck finds nothing');
$node->stop;
command_ok([ 'pg_checksums', '--check', '-D', $node->data_dir ], 'pg_checksums finds nothing');

done_testing();
