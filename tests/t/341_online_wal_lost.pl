# The server is killed under load, and then its data directory, pg_wal and tablespaces are deleted.  What is left are a
# backup, the archive and the mirrored WAL: no acknowledged commit may be lost.  The recovered
# server is the one that the next round kills.  It is recovered by pgx_rcvall or, in every other round, by hand.

use strict;
use warnings;

use File::Path qw(remove_tree);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PgxBackup;
use PgxCrash;
use PgxTde;

my $rounds = $ENV{PGX_CRASH_ROUNDS} // 3;
die 'PGX_CRASH_ROUNDS must be a number of at least 1' if $rounds !~ /^[1-9]\d*$/;
my $db = 'bank';

my $node = backup_primary('primary', start => 0, checksums => 1, archive_command => 0, master_key => 0);
my $area = area_dir($node);
my $mirror = "$area/online_wal";
my $archive = "$area/archived_wal";

# Small segments are switched, archived and recycled often.
$node->stop;
create_keystore($node, $PASSPHRASE);
is(system_log('pg_resetwal', '--wal-segsize=1', '-D', $node->data_dir), 0, 'pg_resetwal makes segments small');
mkdir $mirror, 0700;
mkdir $archive, 0700;
$node->append_conf('postgresql.conf',
	    "fsync = on\nmin_wal_size = 4MB\nmax_wal_size = 16MB\nmax_connections = 30\nlog_statement = none\n"
	  . "restart_after_crash = off\nshared_buffers = 8MB\n"
	  . "archive_mode = on\narchive_command = 'pgx_walcopy \"%p\" \"$archive/%f\"'\n"
	  . "pgx_tde.online_wal_directory = '$mirror'");
$node->start;
$node->safe_psql('postgres', "SELECT pgx_set_master_key('$PASSPHRASE')");
my $enc = tablespace_dir($node, 'enc');
$node->safe_psql('postgres',
	"CREATE TABLESPACE enc LOCATION '$enc' WITH (tablespace_encryption_algorithm = 'AES256')");
$node->safe_psql('postgres', "CREATE DATABASE $db TABLESPACE enc");
$node->command_ok([ 'pgbench', '-i', '-q', '-s', '1', $db ], 'pgbench makes its tables');
make_ledger($node, $db);

# Put the newest backup into the place of what was lost.
sub restore_into
{
	my ($data, $tablespace) = @_;
	my $dir = newest_backup($node);
	mkdir $data, 0700;
	system_or_bail('cp', '-a', "$dir/data/.", $data);
	foreach my $ts (@{ backup_info($dir)->{tablespaces} })
	{
		mkdir $tablespace, 0700;
		system_or_bail('cp', '-a', "$dir/tablespaces/$ts->{oid}/.", $tablespace);
		unlink "$data/pg_tblspc/$ts->{oid}";
		symlink $tablespace, "$data/pg_tblspc/$ts->{oid}" or die "could not make a link: $!";
	}
	return;
}

sub recover
{
	my ($server, $restore_command) = @_;
	$server->append_conf('postgresql.conf',
		"pgx_tde.online_wal_directory = ''\nrestore_command = '$restore_command'\n");
	write_file($server->data_dir . '/recovery.signal', '');
	$server->start;
	$server->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die 'recovery does not end';
	return;
}

# By hand, as the manual has it; what was recovered is moved away then.
sub recover_by_hand
{
	my ($round) = @_;
	remove_tree($node->data_dir, $enc);
	restore_into($node->data_dir, $enc);

	# Whoever just starts what was restored does not lose the mirror.
	my $files = join ',', sort(slurp_dir($mirror));
	my $refusal = start_fails($node);
	like($refusal, qr/holds multiplexed WAL of another pg_wal/, "round $round: a restored server refuses the mirror");
	is(join(',', sort(slurp_dir($mirror))), $files, "round $round: and does not touch it");
	recover($node, "cp $archive/%f %p 2>/dev/null || cp $mirror/%f %p");
	$node->stop;
	rename $mirror, "$area/recovered_$round" or die;
	mkdir $mirror, 0700;
	$node->append_conf('postgresql.conf', "restore_command = ''\npgx_tde.online_wal_directory = '$mirror'");
	return;
}

my @ledgers;
my ($transactions, $without_mirror) = (0, 0);
my ($lost, $damaged, $unbalanced) = (0) x 3;

# How many acknowledged rows are lost with the archive alone.  Only this shows that the mirror was needed.
sub lost_without_mirror
{
	my $other = PostgreSQL::Test::Cluster->new('other');
	$other->{pgx_pass_file} = pass_file($node);
	restore_into($other->data_dir, $other->basedir . '/ts_enc');
	$other->append_conf('postgresql.conf',
		'port = ' . $other->port . "\nunix_socket_directories = '" . $other->host . "'\narchive_mode = off\n");
	recover($other, "cp $archive/%f %p");
	my (undef, $missing) = check_ledger($other, $db, @ledgers);
	$other->stop;
	return $missing;
}

foreach my $round (1 .. $rounds)
{
	my ($rc, $out, $err) = dmpall($node);
	die "pgx_dmpall failed: $err" if $rc != 0;
	is(backup_info(newest_backup($node))->{online_wal_directory}, $mirror, "round $round: the backup tells where the mirror is");
	my @clients = map { start_ledger($node, $db, $_, $round) } 1 .. 3;
	push @ledgers, @clients;
	my $bench = start_pgbench($node, $db, "bench_$round", 600);
	random_sleep(0.5, 2);
	if ($round % 3 != 1)
	{
		$node->safe_psql('postgres', 'SELECT pgx_pause_wal_multiplexing()');
		random_sleep(0.1, 1);
		$node->safe_psql('postgres', 'SELECT pgx_resume_wal_multiplexing()');
	}
	random_sleep(0.2, 2);
	kill_server($node);
	finish($_) foreach @clients, $bench;
	$transactions += pgbench_acknowledged($bench);

	lose($node);
	die 'not removed' if slurp_dir($node->data_dir) > 2 || slurp_dir($enc) > 2;
	$without_mirror = lost_without_mirror() if $round == 1;
	if ($round % 2)
	{
		my @mirrored = grep { /^[0-9A-F]{24}$/ } slurp_dir($mirror);
		rcvall_ok($node, '-B', $area);
		my ($kept) = grep { /^recovered_/ } slurp_dir($mirror);
		ok(@mirrored > 0 && @mirrored == grep({ /^[0-9A-F]{24}$/ } slurp_dir("$mirror/$kept")),
			"round $round: pgx_rcvall keeps the recovered files beside");
		rename "$mirror/$kept", "$area/recovered_$round" or die;
	}
	else
	{
		recover_by_hand($round);
	}
	$node->start;

	my ($acknowledged, $missing, $more, $wrong) = check_ledger($node, $db, @ledgers);
	my $history = check_balances($node, $db);
	note("round $round: $acknowledged acknowledged, $missing lost, $more more, $wrong wrong; "
		  . "pgbench acknowledged $transactions, has $history");
	$lost += $missing;
	$lost += $transactions - $history if $history >= 0 && $history < $transactions;
	$damaged += $wrong;
	$unbalanced++ if $history < 0;

	$node->poll_query_until('postgres', "SELECT state = 'mirroring' FROM pgx_wal_mirror_status") or die;
	remove_tree("$area/recovered_$round");
}

my ($acknowledged) = check_ledger($node, $db, @ledgers);
note("$rounds rounds: $acknowledged rows and $transactions transactions of pgbench acknowledged, $lost lost; "
	  . "$without_mirror rows lost in the first round without the mirror");
cmp_ok($acknowledged, '>', 100 * $rounds, 'there was something to lose');
cmp_ok($transactions, '>', 100 * $rounds, 'pgbench had done something');
cmp_ok($without_mirror, '>', 0, 'the archive alone would have lost commits');
is($lost, 0, 'no acknowledged commit is lost');
is($damaged, 0, 'no row has another content');
is($unbalanced, 0, 'the balances agree');
$node->command_ok([ 'pg_amcheck', '-a', '--install-missing', '--heapallindexed' ], 'pg_amcheck finds nothing');

done_testing();
