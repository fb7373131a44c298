# 353_memory.pl
#		Memory of backup and restore does not grow with the cluster: pgx_dmpall --compress and pgx_rcvall on a
#		cluster, and on one with much more data; then under a limit that the larger one's data would not fit in.

use strict;
use warnings;

use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

use PgxBackup;
use PgxTde;

# What each may use more with the larger cluster: arenas, lists of files.  Far less than what it has more of.
my $SLACK_KB = 8 * 1024;
my $SMALL_MB = 32;
my $MORE_MB = 7 * $SMALL_MB;

my $node = backup_primary('main', checksums => 1, conf => "autovacuum = off\nmax_wal_size = 4GB\n");
my $area = area_dir($node);
fill_tablespaces($node, 'MARK_memory');
my @open = ('--passphrase-file', pass_file($node));

# The most virtual memory that a program had, in kB; it must succeed.
sub peak_of
{
	my (@command) = @_;
	local %ENV = $node->_get_env();
	delete @ENV{qw(PGHOST PGPORT PGDATABASE PGUSER PGDATA)};
	my ($in, $out, $err, $peak) = ('', '', '', 0);
	my $run = IPC::Run::start([ @command ], '<', \$in, '>', \$out, '2>', \$err);
	my $pid = $run->{KIDS}[0]{PID};
	while ($run->pumpable)
	{
		my ($now) = (slurp_raw("/proc/$pid/status") // '') =~ /^VmPeak:\s+(\d+) kB/m;
		$peak = $now if defined $now && $now > $peak;
		eval { $run->pump_nb; 1 } or last;
		usleep(2_000);
	}
	$run->finish;
	is($run->full_result(0), 0, "@command[0, 1]: it succeeds") or diag($err);
	return wantarray ? ($peak, $out) : $peak;
}

# Under a limit of address space; it must succeed.
sub limited
{
	my ($kb, @command) = @_;
	return peak_of('sh', '-c', 'ulimit -v "$1" && shift && exec "$@"', 'sh', $kb, @command);
}

my @backup = ('pgx_dmpall', '-D', $node->data_dir, '--keep', 1);
my @packed = ('--compress=zstd', '--jobs=1', @open);
my @check = ('pgx_rcvall', '--check', '-D', $node->data_dir, '-B', $area, '--keystore-passphrase', @open);
my %peak;

sub measure
{
	my ($name) = @_;
	foreach my $kind ([ 'plain' ], [ 'packed', @packed ])
	{
		my ($what, @args) = @$kind;
		$peak{"backup $what"}{$name} = peak_of(@backup, @args);
		# What a restore takes beside the server that replays WAL.
		lose($node);
		my ($unused, $json) = peak_of('pgx_rcvall', '-D', $node->data_dir, '-B', $area, '--json', '--keystore-passphrase', @open);
		$peak{"restore $what"}{$name} = decode_json($json)->{peak_kilobytes};
		$node->start;
	}
	$peak{check}{$name} = peak_of(@check);
	return;
}

sub size_mb { return $node->safe_psql('postgres', 'SELECT sum(pg_tablespace_size(oid)) / 1048576 FROM pg_tablespace'); }

# Random bytes, so that the packed form grows as well.
$node->safe_psql('postgres', 'CREATE TABLE big (x bytea) TABLESPACE sec; ALTER TABLE big ALTER x SET STORAGE EXTERNAL');

sub add_mb
{
	my ($mb) = @_;
	$node->safe_psql('postgres',
		"INSERT INTO big SELECT (SELECT string_agg(sha256((g || '/' || k)::bytea), ''::bytea) FROM generate_series(1, 4096) k) "
		  . "FROM generate_series(1, 8 * $mb) g");
	return;
}

add_mb($SMALL_MB);
measure('small');
my $small = size_mb();
add_mb($MORE_MB);
$node->safe_psql('postgres', 'CHECKPOINT');
my $large = size_mb();
cmp_ok($large - $small, '>=', $MORE_MB, "the cluster grew from $small to $large MB");
measure('large');

foreach my $what (sort keys %peak)
{
	my ($before, $after) = @{ $peak{$what} }{qw(small large)};
	note("$what: $before kB, then $after kB");
	cmp_ok($before, '>', 0, "$what: it was measured");
	cmp_ok($after, '<=', $before + $SLACK_KB, "$what: no more memory with more data");
}

# The same again, with no more memory than the small cluster took: all of the data, or all of the packed file, would
# not fit.
limited($peak{'backup packed'}{small} + $SLACK_KB, @backup, @packed);
limited($peak{check}{small} + $SLACK_KB, @check);
# And that the limit is one: with less than it takes, it fails.
my ($rc, $out, $err) = run_program([ 'sh', '-c', 'ulimit -v "$1" && shift && exec "$@"', 'sh', 20 * 1024, @check ]);
isnt($rc, 0, 'with too little memory it fails');

done_testing();
