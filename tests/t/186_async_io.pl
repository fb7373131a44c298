# 186_async_io.pl
#		What PostgreSQL 18 brought: pages that other processes read (io_method = worker), which
#		are decrypted all the same; and two ways past the C library, which are refused.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PgxTde;
use Test::More;

my ($major) = `pg_config --version` =~ /(\d+)/;
plan skip_all => "io_method and file_copy_method came with PostgreSQL 18, and this is $major" if $major < 18;

my $node = new_primary('primary', checksums => 1,
	conf => "autovacuum = off\nshared_buffers = 2MB\nio_method = worker\nio_workers = 3\nmin_parallel_table_scan_size = 0\n");
my $space = tablespace_dir($node, 'enc');
$node->safe_psql('postgres', "CREATE TABLESPACE enc LOCATION '$space' WITH (tablespace_encryption_algorithm = 'AES256')");
$node->safe_psql('postgres', q{SET default_tablespace = 'enc';
	CREATE TABLE big AS SELECT g AS id, 'MARK_big' || md5(g::text) AS x FROM generate_series(1, 100000) g;
	CREATE INDEX ON big (x); CREATE INDEX ON big USING brin (id); CHECKPOINT});
my $content = fingerprint($node, 'postgres');

# ---- by workers, and by each process itself ---------------------------------------------------------

# How often the I/O workers went to sleep again: they are woken to read. (The statistics count a page where it is asked for.)
sub worker_sleeps
{
	my $sleeps = 0;
	foreach my $pid (split /\n/, $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'io worker'}))
	{
		$sleeps += slurp_raw("/proc/$pid/status") =~ /^voluntary_ctxt_switches:\s*(\d+)/m ? $1 : 0;
	}
	return $sleeps;
}

foreach my $method (qw(worker sync))
{
	$node->append_conf('postgresql.conf', "io_method = $method");
	$node->restart;
	is($node->safe_psql('postgres', 'SHOW io_method'), $method, "$method: the server says so");
	my $sleeps = worker_sleeps();
	is_content(fingerprint($node, 'postgres'), $content, "$method: a sequential scan reads what was written");
	is( $node->safe_psql('postgres', q{SET enable_seqscan = off; SET enable_indexscan = off; SET enable_indexonlyscan = off;
			SELECT count(*) FROM big WHERE x >= 'MARK_big8'}),
		$node->safe_psql('postgres', q{SELECT count(*) FROM generate_series(1, 100000) g WHERE md5(g::text) >= '8'}),
		"$method: a bitmap scan too");
	is( $node->safe_psql('postgres', q{SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SELECT count(DISTINCT x) FROM big}),
		100000, "$method: and parallel workers");
	$node->safe_psql('postgres', 'UPDATE big SET id = id WHERE id % 10 = 0; VACUUM (ANALYZE) big');
	is_content(fingerprint($node, 'postgres'), $content, "$method: nothing changed by VACUUM");
	$sleeps = worker_sleeps() - $sleeps;
	$method eq 'worker'
	  ? cmp_ok($sleeps, '>', 100, "worker: it was workers that read, in $sleeps turns")
	  : is($sleeps, 0, 'sync: there are no workers');
	$node->safe_psql('postgres', 'CHECKPOINT');
	is_deeply([ files_with({ mark => 'MARK_' }, $space) ], [], "$method: no mark on disk");
}
$node->command_ok([ 'pg_amcheck', '--install-missing', '--heapallindexed', '-d', 'postgres' ], 'pg_amcheck finds nothing');

# ---- refused ------------------------------------------------------------------------------------------

my $DETAIL = qr/DETAIL:  Cloned pages would be encrypted for the database that they were copied from\./;
my $HINT = qr/HINT:  Set file_copy_method to "copy"\./;
foreach my $statement ('SET file_copy_method = clone', 'ALTER SYSTEM SET file_copy_method = clone',
	q{SELECT set_config('file_copy_method', 'clone', false)})
{
	my $error = query_fails($node, 'postgres', $statement);
	like($error, qr/ERROR:  file_copy_method = clone is not supported with pgx_tde\n/, "$statement: message");
	like($error, $DETAIL, "$statement: why");
	like($error, $HINT, "$statement: what to do");
}
{
	local $ENV{PGOPTIONS} = '-c file_copy_method=clone';
	like(query_fails($node, 'postgres', 'SELECT 1'), qr/FATAL:  file_copy_method = clone is not supported with pgx_tde/,
		'for a connection: message');
}
$node->append_conf('postgresql.conf', 'file_copy_method = clone');
my $before = log_size($node);
$node->reload;
ok(wait_until(sub { log_since($node, $before) =~ /file_copy_method = clone is not supported/ }), 'by reload: message');
is($node->safe_psql('postgres', 'SHOW file_copy_method'), 'copy', 'by reload: it stays as it was');
$node->safe_psql('postgres', 'CREATE DATABASE copied STRATEGY file_copy TABLESPACE enc');
is($node->safe_psql('copied', q{SELECT count(*) > 300 FROM pg_class}), 't', 'a database that was copied can be read');
$node->stop;

$before = start_fails($node);
like($before, qr/FATAL:  file_copy_method = clone is not supported with pgx_tde/, 'at start: message');
like($before, $HINT, 'at start: what to do');
$node->append_conf('postgresql.conf', 'file_copy_method = copy');
$node->append_conf('postgresql.conf', 'io_method = io_uring');
$before = start_fails($node);
like($before, qr/FATAL:  io_method = io_uring is not supported with pgx_tde/, 'io_uring: message');
like($before, qr/DETAIL:  Pages would go to disk without being encrypted\./, 'io_uring: why');
like($before, qr/HINT:  Set io_method to "worker" or "sync"\./, 'io_uring: what to do');
$node->append_conf('postgresql.conf', 'io_method = worker');
$node->start;
is_content(fingerprint($node, 'postgres'), $content, 'put right, all data is there');
$node->stop;

done_testing();
