# 190_statistics.pl
#		pg_stat_pgx_tde: known work gives known counts, in every kind of process, and
#		what cannot be read is counted as a failure.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PgxTde;
use Test::More;

my $conf = "autovacuum = off\nshared_buffers = '16MB'\nmax_parallel_workers_per_gather = 0\nwork_mem = '64kB'\n"
  . "wal_level = logical\nlogical_decoding_work_mem = '64kB'\ntrack_io_timing = off\n"
  . "restart_after_crash = on\nbgwriter_lru_maxpages = 0\nmax_wal_size = '4GB'\n";
my $node = new_primary('main', checksums => 1, conf => $conf);
my $place = tablespace_dir($node, 'enc');
$node->safe_psql('postgres', qq{CREATE TABLESPACE enc LOCATION '$place' WITH (tablespace_encryption_algorithm = 'AES256')});

# A row of the view as a hash.
sub counts
{
	my ($at, $kind) = @_;
	my @columns = qw(pages_encrypted bytes_encrypted encrypt_time pages_decrypted bytes_decrypted decrypt_time failures stats_reset);
	my %row;
	@row{@columns} = split /\|/, $at->safe_psql('postgres',
		'SELECT ' . join(', ', @columns) . " FROM pg_stat_pgx_tde WHERE kind = '$kind'"), -1;
	return \%row;
}

# How much each number of a row has grown while something was done.
sub grown
{
	my ($at, $kind, $work) = @_;
	my $before = counts($at, $kind);
	$work->();
	my $after = counts($at, $kind);
	return { map { $_ => $after->{$_} - $before->{$_} } grep { $_ ne 'stats_reset' } keys %$after };
}

sub zeros { return join '|', @{ $_[0] }{qw(encrypt_time decrypt_time failures)} }

# ---- the view ------------------------------------------------------------------------------------------

is($node->safe_psql('postgres', q{SELECT string_agg(kind, ' ') FROM pg_stat_pgx_tde}),
	'relation wal replication temporary spill', 'a row for each kind');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_pgx_tde
	WHERE abs(extract(epoch FROM stats_reset - pg_postmaster_start_time())) < 10}), '5', 'counted since the server was started');
$node->safe_psql('postgres', q{CREATE ROLE somebody LOGIN; CREATE ROLE keeper LOGIN;
	GRANT EXECUTE ON FUNCTION pg_stat_reset_pgx_tde() TO keeper});
is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_stat_pgx_tde', extra_params => [ '-U', 'somebody' ]),
	'5', 'everybody may read it');
like(query_fails($node, 'postgres', 'SELECT pg_stat_reset_pgx_tde()', extra => [ '-U', 'somebody' ]),
	qr/ERROR:  permission denied for function pg_stat_reset_pgx_tde/, 'but not everybody may reset it');

# ---- relations -------------------------------------------------------------------------------------------

# Wide rows, whose pages the checkpointer writes once.
$node->safe_psql('postgres', 'CREATE TABLE t (id int, x text) TABLESPACE enc; CHECKPOINT');
my $pages;
my $got = grown($node, 'relation', sub {
	$node->safe_psql('postgres', q{INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 7000) g; CHECKPOINT});
	$pages = $node->safe_psql('postgres', q{SELECT pg_relation_size('t') / 8192});
});
cmp_ok($pages, '==', 1000, 'the table has 1000 pages');
cmp_ok($got->{pages_encrypted}, '>=', $pages, "checkpointed: $got->{pages_encrypted} pages were encrypted");
cmp_ok($got->{pages_encrypted}, '<', $pages + 200, 'and hardly any twice');
cmp_ok($got->{bytes_encrypted}, '==', $got->{pages_encrypted} * 8176, 'their bytes, but for the 16 that stay plain');
cmp_ok($got->{pages_decrypted}, '<', 20, 'hardly any was decrypted');
is(zeros($got), '0|0|0', 'no time was taken, and nothing failed');

$node->restart;
is($node->safe_psql('postgres', q{SELECT sum(pages_encrypted + pages_decrypted) < 1000 FROM pg_stat_pgx_tde}), 't',
	'a restart begins at zero');
$got = grown($node, 'relation', sub { $node->safe_psql('postgres', 'SELECT sum(id) FROM t') });
cmp_ok($got->{pages_decrypted}, '>=', $pages, "scanned: $got->{pages_decrypted} pages were decrypted");
cmp_ok($got->{pages_decrypted}, '<', $pages + 50, 'and few besides');
is($got->{pages_encrypted}, 0, 'none was encrypted');
is(zeros($got), '0|0|0', 'no time was taken, and nothing failed');

# Processes that end leave their counts, and parallel workers have them too.
$node->restart;
my $parallel = q{SET min_parallel_table_scan_size = 0; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
	SET max_parallel_workers_per_gather = 4; SET parallel_leader_participation = off; SELECT sum(id) FROM t};
$got = grown($node, 'relation', sub { $node->safe_psql('postgres', $parallel) });
cmp_ok($got->{pages_decrypted}, '>=', $pages, "scanned by workers: $got->{pages_decrypted} pages were decrypted");
cmp_ok($got->{pages_decrypted}, '<', $pages + 50, 'each once');

# A tablespace that is not encrypted counts for nothing.
$got = grown($node, 'relation', sub {
	$node->safe_psql('postgres', q{CREATE TABLE p AS SELECT repeat('x', 1000) FROM generate_series(1, 7000) g; CHECKPOINT});
});
cmp_ok($got->{pages_encrypted} + $got->{pages_decrypted}, '<', 20, 'a plain table is not counted');

# ---- time --------------------------------------------------------------------------------------------------

$node->safe_psql('postgres', 'ALTER SYSTEM SET track_io_timing = on');
$node->restart;
$got = grown($node, 'relation', sub { $node->safe_psql('postgres', 'SELECT sum(id) FROM t') });
cmp_ok($got->{decrypt_time}, '>', 0, "track_io_timing: $got->{decrypt_time} ms to decrypt");
cmp_ok($got->{decrypt_time}, '<', 60000, 'in milliseconds');
$got = grown($node, 'relation', sub { $node->safe_psql('postgres', 'UPDATE t SET id = id + 1; CHECKPOINT') });
cmp_ok($got->{encrypt_time}, '>', 0, "and $got->{encrypt_time} ms to encrypt");
$node->safe_psql('postgres', 'ALTER SYSTEM SET track_io_timing = off');
$node->restart;
$got = grown($node, 'relation', sub { $node->safe_psql('postgres', 'SELECT sum(id) FROM t') });
is($got->{decrypt_time}, 0, 'switched off, it takes none');

# ---- WAL, temporary and spill files -----------------------------------------------------------------------

my $wal_bytes;
$got = grown($node, 'wal', sub {
	$wal_bytes = -$node->safe_psql('postgres', q{SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')});
	$node->safe_psql('postgres', q{INSERT INTO t SELECT g, repeat('y', 1000) FROM generate_series(1, 7000) g});
	$wal_bytes += $node->safe_psql('postgres', q{SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')});
});
cmp_ok($got->{pages_encrypted}, '>=', int $wal_bytes / 8192, "$wal_bytes bytes of WAL: $got->{pages_encrypted} pages were encrypted");
cmp_ok($got->{bytes_encrypted}, '>=', $wal_bytes * 0.98, "$got->{bytes_encrypted} bytes, all but headers");

my $sort = q{SELECT count(*) FROM (SELECT x, id FROM t ORDER BY x, id OFFSET 0) s};
foreach my $case ([ 'of one process', $sort ], [ 'of workers', "$parallel; SET enable_hashagg = off; $sort" ])
{
	$got = grown($node, 'temporary', sub { $node->safe_psql('postgres', $case->[1]) });
	cmp_ok($got->{$_}, '>', 10_000_000, "sort $case->[0]: $got->{$_} $_ of temporary files") foreach qw(bytes_encrypted bytes_decrypted);
	is(zeros($got), '0|0|0', 'no time was taken, and nothing failed');
}

$node->safe_psql('postgres', q{CREATE TABLE l (x text); SELECT pg_create_logical_replication_slot('s', 'test_decoding')});
$node->safe_psql('postgres', q{INSERT INTO l SELECT 'row ' || g FROM generate_series(1, 20000) g});
$got = grown($node, 'spill', sub {
	is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_logical_slot_get_changes('s', NULL, NULL)}), '20002', 'decoded');
});
cmp_ok($got->{$_}, '>', 1_000_000, "$got->{$_} $_ of spill files") foreach qw(bytes_encrypted bytes_decrypted);
$node->safe_psql('postgres', q{SELECT pg_drop_replication_slot('s')});

# ---- reset --------------------------------------------------------------------------------------------------

my $before = counts($node, 'wal');
cmp_ok(counts($node, $_)->{pages_encrypted}, '>', 0, "before the reset: $_") foreach qw(wal temporary spill);
$node->safe_psql('postgres', 'SELECT pg_stat_reset_pgx_tde()', extra_params => [ '-U', 'keeper' ]);
is($node->safe_psql('postgres', q{SELECT string_agg(pages_encrypted || ' ' || bytes_decrypted, ' ' ORDER BY kind) FROM pg_stat_pgx_tde
	WHERE kind IN ('temporary', 'spill')}), '0 0 0 0', 'reset by whom it was granted to');
cmp_ok(counts($node, 'wal')->{pages_encrypted}, '<', 10, 'WAL too');
isnt(counts($node, 'wal')->{stats_reset}, $before->{stats_reset}, 'and stats_reset says so');

# ---- standbys -------------------------------------------------------------------------------------------------

$node->safe_psql('postgres', 'SELECT pg_stat_reset_pgx_tde()');
my $standby = new_standby($node, 'standby');
cmp_ok(counts($node, 'relation')->{pages_decrypted}, '<', 500, 'a base backup copies ciphertext: that is not counted');
$standby->start;
$got = grown($node, 'replication', sub {
	$node->safe_psql('postgres', q{INSERT INTO t SELECT g, repeat('z', 1000) FROM generate_series(1, 7000) g});
	caught_up($node, $standby);
});
cmp_ok($got->{bytes_encrypted}, '>', 6_000_000, "$got->{bytes_encrypted} bytes were encrypted for the wire");
$got = counts($standby, 'wal');
cmp_ok($got->{bytes_decrypted}, '>', 6_000_000, "$got->{bytes_decrypted} bytes of WAL were decrypted on the standby");
is($got->{pages_encrypted}, 0, 'and none encrypted, since what it received is ciphertext');
is($standby->safe_psql('postgres', 'SELECT pg_stat_reset_pgx_tde(); SELECT max(bytes_decrypted) < 1000000 FROM pg_stat_pgx_tde'),
	"\nt", 'reset on a standby');
$standby->stop;

# ---- failures ---------------------------------------------------------------------------------------------------

my $file = $node->data_dir . '/' . $node->safe_psql('postgres', q{CHECKPOINT; SELECT pg_relation_filepath('t')});
$node->stop;
open my $fh, '+<:raw', $file or die "could not open \"$file\": $!";
seek $fh, 8192 * 5 + 4000, 0;
read $fh, my $byte, 1;
seek $fh, 8192 * 5 + 4000, 0;
print $fh chr(ord($byte) ^ 1);
close $fh or die;
$node->start;
$got = grown($node, 'relation', sub {
	like(query_fails($node, 'postgres', 'SELECT sum(id) FROM t'), qr/ERROR:  invalid page in block 5 of relation/, 'a page with a bit flipped');
});
is($got->{failures}, 1, 'is a failure');

# ---- a crash -----------------------------------------------------------------------------------------------------

my $session = $node->background_psql('postgres');
my $pid = $session->query_safe('SELECT pg_backend_pid()');
$before = counts($node, 'relation');
is($before->{failures}, 1, 'the failure is still counted');
kill 'KILL', $pid;
eval { $session->quit };
comes_back($node) or die 'the server has not come back';
is(counts($node, 'relation')->{failures}, 0, 'after a crash everything begins at zero');
isnt(counts($node, 'relation')->{stats_reset}, $before->{stats_reset}, 'and stats_reset says so');
$node->safe_psql('postgres', 'SELECT count(*) FROM t WHERE ctid >= $$(6,1)$$');
cmp_ok(counts($node, 'relation')->{pages_decrypted}, '>', 1000, 'and count');
$node->stop;

# The server in single-user mode has the counts of one process.
{
	my ($rc, $out) = run_program([ 'postgres', '--single', '-D', $node->data_dir, 'postgres' ],
		stdin => "SELECT 'bytes ' || (bytes_encrypted > 0) AS b FROM pg_stat_pgx_tde WHERE kind = 'wal'\n");
	is($rc, 0, 'postgres --single: exit code');
	like($out, qr/b = "bytes (?:true|false)"/, 'and the view');
}

done_testing();
