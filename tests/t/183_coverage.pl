# 183_coverage.pl
#		What the server writes beside tables and indexes, and what it does to them that 100 does not
#		try: temporary files of all kinds, maps, init forks, tablespaces in place, segments beyond 1 GiB, every
#		direction of a move, truncation, and another algorithm for a tablespace that is empty.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PgxPages;
use PgxTde;
use Test::More;
use Time::HiRes qw(usleep);

my $MARK = { mark => 'MARK_' };
my $conf = "autovacuum = off\nallow_in_place_tablespaces = on\nmax_parallel_workers_per_gather = 2\n"
  . "min_parallel_table_scan_size = 0\nparallel_setup_cost = 0\nparallel_tuple_cost = 0\n"
  . "work_mem = '64kB'\nhash_mem_multiplier = 1\n";
my $node = new_primary('primary', checksums => 1, conf => $conf);
my $data = $node->data_dir;

# The same without the module, where what is looked for must be found.
my $plain = PostgreSQL::Test::Cluster->new('plain');
$plain->init(extra => [ '--no-locale', '-E', 'UTF8' ]);
$plain->append_conf('postgresql.conf', $conf);
$plain->start;

# ---- temporary files -------------------------------------------------------------------------------

sub temporary_files
{
	my ($at) = @_;
	return grep { m{/pgsql_tmp/} && -s $_ } files_below($at->data_dir . '/base');
}

# A query that stops at its first row, in the midst of its temporary files; what is in them, and what it says at last.
sub spilled
{
	my ($at, $settings, $query) = @_;
	my $holder = $at->background_psql('postgres');
	my ($in, $out, $err) = ("$settings; SELECT count(*), count(DISTINCT x) FROM ($query OFFSET 0) s
		WHERE pg_advisory_lock_shared(1) IS NOT NULL;\n", '', '');

	$holder->query_safe('SELECT pg_advisory_lock(1)');
	local %ENV = $at->_get_env(PGAPPNAME => 'spilling');
	my $psql = IPC::Run::start([ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', 'postgres' ], \$in, \$out, \$err);
	$psql->pump while length $in;
	$at->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_stat_activity
		WHERE application_name = 'spilling' AND wait_event_type = 'Lock'}) or die 'the query does not come so far';
	my @files = temporary_files($at);
	my @marked = files_with($MARK, @files);
	$holder->query_safe('SELECT pg_advisory_unlock(1)');
	$psql->finish;
	$holder->quit;
	return (scalar @files, scalar @marked, "$out$err", scalar grep { /\.fileset\// } @files);
}

my $make = q{CREATE TABLE big AS SELECT g AS id, 'MARK_spill' || md5(g::text) AS x FROM generate_series(1, 30000) g;
	ANALYZE big};
$_->safe_psql('postgres', $make) foreach $node, $plain;
my $joins = q{SET enable_mergejoin = off; SET enable_nestloop = off};
my $serial = 'SET max_parallel_workers_per_gather = 0';
foreach my $case (
	[ 'hash join', "$joins; $serial", 'SELECT a.x FROM big a JOIN big b USING (x)', 0 ],
	[ 'parallel hash join', $joins, 'SELECT a.x FROM big a JOIN big b USING (x)', 1 ],
	[ 'hashed groups', "SET enable_sort = off; $serial", 'SELECT x FROM big GROUP BY x', 0 ],
	[ 'parallel sort', 'SET enable_hashagg = off', 'SELECT x FROM big ORDER BY x, id', 0 ],
	[ 'tuplestore', $serial, 'SELECT max(x) OVER (ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS x FROM big LIMIT 10', 0 ],
	[ 'common table expression', $serial, 'WITH c AS MATERIALIZED (SELECT x FROM big) SELECT c.x FROM c, (SELECT count(*) FROM c) d', 0 ])
{
	my ($name, $settings, $query, $shared) = @$case;
	my ($files, $marked, $said, $sets) = spilled($node, $settings, $query);
	my ($plain_files, $plain_marked, $plain_said, $plain_sets) = spilled($plain, $settings, $query);

	cmp_ok($plain_marked, '>', 0, "$name: control: $plain_marked of $plain_files temporary files have the mark where nothing is encrypted");
	cmp_ok($files, '>', 0, "$name: $files temporary files");
	is($marked, 0, "$name: none has the mark");
	is($said, $plain_said, "$name: the result is the same");
	cmp_ok($sets, '>', 0, "$name: they are shared by workers") if $shared;
}

# A cursor that outlives its transaction; and an index, from sorted runs.
sub held
{
	my ($at) = @_;
	my $session = $at->background_psql('postgres');
	$session->query_safe('BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT x FROM big; COMMIT');
	my @files = temporary_files($at);
	my @marked = files_with($MARK, @files);
	my $row = $session->query_safe('FETCH ABSOLUTE 29999 FROM c');
	$session->quit;
	return (scalar @files, scalar @marked, $row);
}
{
	my @here = held($node);
	my @there = held($plain);
	cmp_ok($there[1], '>', 0, 'held cursor: control: the mark is where nothing is encrypted');
	cmp_ok($here[0], '>', 0, "held cursor: $here[0] temporary files");
	is($here[1], 0, 'held cursor: none has the mark');
	is($here[2], $there[2], 'held cursor: the row is the same');
}
is( $node->safe_psql('postgres', q{SET maintenance_work_mem = '1MB'; CREATE INDEX ON big (x); SET enable_seqscan = off;
		SELECT count(*) FROM big WHERE x >= 'MARK'}),
	'30000', 'an index from sorted runs is right');

# A crash leaves temporary files, which the next start removes; they are no secret meanwhile.
{
	my $session = $node->background_psql('postgres');
	$session->query_safe(q{BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT x FROM big; COMMIT});
	$node->stop('immediate');
	eval { $session->quit };
	my @left = temporary_files($node);
	cmp_ok(scalar(@left), '>', 0, 'a crash leaves temporary files');
	is_deeply([ files_with($MARK, @left) ], [], 'without the mark');
	$node->start;
	is(scalar temporary_files($node), 0, 'the next start removes them');
}
$plain->stop;
$node->safe_psql('postgres', 'DROP TABLE big');

# ---- maps, init forks, tablespaces in place ------------------------------------------------------------

$node->safe_psql('postgres', "CREATE TABLESPACE $_->[0] LOCATION '' WITH (tablespace_encryption_algorithm = '$_->[1]')")
  foreach [ 'clear', 'none' ], [ 'enc128', 'AES128' ], [ 'enc256', 'AES256' ];
my %space = map { $_ => "$data/pg_tblspc/" . $node->safe_psql('postgres', "SELECT oid FROM pg_tablespace WHERE spcname = '$_'") }
  qw(clear enc128 enc256);

foreach my $name (sort keys %space)
{
	$node->safe_psql('postgres', qq{
		SET default_tablespace = '$name';
		CREATE TABLE m_$name (id int PRIMARY KEY, x text);
		INSERT INTO m_$name SELECT g, 'MARK_map' || g FROM generate_series(1, 20000) g;
		DELETE FROM m_$name WHERE id % 3 = 0;
		VACUUM m_$name;
		CREATE UNLOGGED TABLE u_$name (id int PRIMARY KEY, x text);
		CREATE INDEX ON u_$name USING gin (string_to_array(x, ' '));
		CREATE INDEX ON u_$name USING spgist (x);
		CREATE INDEX ON u_$name USING brin (x);
		CREATE UNLOGGED SEQUENCE s_$name;
		INSERT INTO u_$name SELECT g, 'MARK_unlogged ' || g FROM generate_series(1, 1000) g;
		CHECKPOINT});
	my @files = files_below($space{$name});
	foreach my $fork (qw(fsm vm init))
	{
		my @of_fork = grep { /_$fork$/ && -s $_ } @files;
		my ($pages, @clear) = plain_files(@of_fork);
		cmp_ok($pages, '>', 0, "$name: $pages pages of forks \"$fork\"");
		if ($name eq 'clear') { cmp_ok(scalar(@clear), '>', 0, "$name: control: they are plain") }
		else                  { is("@clear", '', "$name: none is plain") }
	}
}
$node->stop('immediate');
$node->start;
foreach my $name (sort keys %space)
{
	is($node->safe_psql('postgres', "SELECT count(*) FROM u_$name"), '0', "$name: unlogged table is empty after a crash");
	$node->safe_psql('postgres', "INSERT INTO u_$name SELECT g, 'MARK_unlogged ' || g FROM generate_series(1, 1000) g");
	is( $node->safe_psql('postgres', qq{SET enable_seqscan = off;
			SELECT (SELECT count(*) FROM u_$name WHERE id BETWEEN 100 AND 199),
				(SELECT count(*) FROM u_$name WHERE string_to_array(x, ' ') \@> ARRAY['777']),
				(SELECT count(*) FROM u_$name WHERE x = 'MARK_unlogged 5'), nextval('s_$name')}),
		'100|1|1|1', "$name: and its indexes and sequence work");
	is( $node->safe_psql('postgres', qq{SELECT count(*) FROM m_$name; VACUUM m_$name;
			SELECT relallvisible > 0 FROM pg_class WHERE relname = 'm_$name'}),
		"13334\nt", "$name: maps after a crash");
}

# ---- every direction of a move ---------------------------------------------------------------------------

my %is_clear = (clear => 1);
$node->safe_psql('postgres', q{CREATE TABLE mover (id int PRIMARY KEY, x text) TABLESPACE clear;
	INSERT INTO mover SELECT g, 'MARK_mover' || g || repeat('.', g % 100) FROM generate_series(1, 3000) g;
	CREATE INDEX mover_x ON mover (x) TABLESPACE clear;
	CREATE DATABASE moved TABLESPACE clear});
$node->safe_psql('moved', q{CREATE TABLE mover AS SELECT 'MARK_moved' || g AS x FROM generate_series(1, 1000) g});
my $want = fingerprint($node, 'postgres', 'moved');

# Each of the six, and back to the beginning.
foreach my $to (qw(enc128 enc256 enc128 clear enc256 clear))
{
	$node->safe_psql('postgres', "ALTER TABLE mover SET TABLESPACE $to; ALTER INDEX mover_pkey SET TABLESPACE $to;
		ALTER INDEX mover_x SET TABLESPACE $to");
	$node->safe_psql('postgres', "ALTER DATABASE moved SET TABLESPACE $to");
	if ($to eq 'enc256')
	{
		$node->stop('immediate');
		$node->start;
	}
	$node->safe_psql('postgres', 'CHECKPOINT');
	is_content(fingerprint($node, 'postgres', 'moved'), $want, "moved to $to: content");
	is($node->safe_psql('postgres', q{SET enable_seqscan = off; SELECT count(*), (SELECT count(*) FROM mover WHERE x > 'MARK_mover')
		FROM mover WHERE id BETWEEN 11 AND 20}), '10|3000', "moved to $to: indexes");
	my @found = files_with({ table => 'MARK_mover', database => 'MARK_moved' }, $space{$to});
	if ($is_clear{$to}) { cmp_ok(scalar(@found), '>=', 3, "moved to $to: control: the marks are there") }
	else                { is("@found", '', "moved to $to: no mark") }
}
foreach my $how ('VACUUM FULL mover', 'CLUSTER mover USING mover_x', 'REINDEX TABLE mover')
{
	$node->safe_psql('postgres', 'ALTER TABLE mover SET TABLESPACE enc128');
	$node->safe_psql('postgres', $how);
	$node->stop('immediate');
	$node->start;
	is_content(fingerprint($node, 'postgres', 'moved'), $want, "$how, and a crash: content");
}
is( $node->safe_psql('postgres', q{REINDEX (TABLESPACE enc256) TABLE mover; SET enable_seqscan = off;
		SELECT count(*) FROM mover WHERE x > 'MARK_mover'}),
	'3000', 'REINDEX into another tablespace');

# ---- truncation ------------------------------------------------------------------------------------------

foreach my $name (qw(enc128 enc256))
{
	$node->safe_psql('postgres', qq{
		CREATE TABLE cut_$name (id int PRIMARY KEY, x text) TABLESPACE $name;
		INSERT INTO cut_$name SELECT g, 'MARK_cut' || g FROM generate_series(1, 20000) g;
		CHECKPOINT;
		DELETE FROM cut_$name WHERE id > 5000;
		VACUUM (TRUNCATE) cut_$name});
	my $size = $node->safe_psql('postgres', "SELECT pg_relation_size('cut_$name')");
	cmp_ok($size, '<', 400_000, "$name: VACUUM has cut the table to $size bytes");
	$node->safe_psql('postgres', "INSERT INTO cut_$name SELECT g, 'MARK_again' || g FROM generate_series(5001, 9000) g");
	my $now = fingerprint($node, 'postgres');
	$node->stop('immediate');
	$node->start;
	is_content(fingerprint($node, 'postgres'), $now, "$name: extended again, and a crash: content");
	$node->safe_psql('postgres', "BEGIN; TRUNCATE cut_$name; INSERT INTO cut_$name VALUES (1, 'MARK_x'); ROLLBACK");
	is($node->safe_psql('postgres', "SELECT count(*) FROM cut_$name"), '9000', "$name: TRUNCATE rolled back");
	$node->safe_psql('postgres', "TRUNCATE cut_$name; INSERT INTO cut_$name VALUES (1, 'MARK_x')");
	$node->stop('immediate');
	$node->start;
	is($node->safe_psql('postgres', "SELECT * FROM cut_$name"), '1|MARK_x', "$name: TRUNCATE, and a crash");
}

# ---- a second segment --------------------------------------------------------------------------------------

# Its first one is made nearly all of a hole, as if a crash had left it so: what comes next goes into the second.
foreach my $name (qw(enc128 enc256))
{
	$node->safe_psql('postgres', qq{CREATE TABLE long_$name TABLESPACE $name AS
		SELECT g AS id, 'MARK_first' || g AS x FROM generate_series(1, 1000) g});
	my $file = "$data/" . $node->safe_psql('postgres', "SELECT pg_relation_filepath('long_$name')");
	$node->stop;
	truncate $file, 1 << 30 or die "could not extend \"$file\": $!";
	$node->start;
	$node->safe_psql('postgres', qq{INSERT INTO long_$name SELECT g, 'MARK_second' || g || repeat('-', 500) FROM generate_series(1001, 2000) g;
		CHECKPOINT});
	cmp_ok(-s "$file.1", '>', 400_000, "$name: there is a second segment");
	my ($pages, @clear) = plain_files("$file.1");
	is("@clear", '', "$name: none of its $pages pages is plain");
	$node->stop('immediate');
	$node->start;
	is( $node->safe_psql('postgres', qq{SELECT count(*), sum(id), max((ctid::text::point)[0]) > 131072 FROM long_$name
			WHERE ctid < '(100,0)' OR ctid >= '(131071,0)'}),
		'2000|2001000|t', "$name: content of both after a crash");
	$node->safe_psql('postgres', "DROP TABLE long_$name; CHECKPOINT");
}

# ---- another algorithm for a tablespace that is empty -----------------------------------------------------------

my $place = tablespace_dir($node, 'changing');
$node->safe_psql('postgres', "CREATE TABLESPACE changing LOCATION '$place'");
my $refused = qr/ERROR:  tablespace encryption algorithm option cannot be changed\nDETAIL:  The tablespace is not empty\.\nHINT:  Create another tablespace and move the objects with ALTER \.\.\. SET TABLESPACE\./;

sub algorithm
{
	my ($at) = @_;
	return $at->safe_psql('postgres', q{SELECT spcencalgo FROM pgx_tablespaces JOIN pg_tablespace ON oid = spctablespace
		WHERE spcname = 'changing'});
}

sub change
{
	my ($alg) = @_;
	$node->safe_psql('postgres', "ALTER TABLESPACE changing SET (tablespace_encryption_algorithm = '$alg', seq_page_cost = 2)");
	return;
}

# The database's folder is there already, and files that a checkpoint has not removed yet.
my $standby = new_standby($node, 'standby');
$standby->start;
my $idle = $node->background_psql('postgres');
foreach my $alg (qw(AES128 AES256 none AES256))
{
	change($alg);
	is(algorithm($node), $alg, "changed to $alg");
	$node->safe_psql('postgres', qq{CREATE TABLE c TABLESPACE changing AS
		SELECT g, 'MARK_changing' || g AS x FROM generate_series(1, 2000) g; CREATE INDEX ON c (x) TABLESPACE changing; CHECKPOINT});
	my @found = files_with($MARK, $place);
	if ($alg eq 'none') { cmp_ok(scalar(@found), '>', 0, 'control: the mark is there') }
	else                { is("@found", '', "$alg: no mark") }
	$idle->query_safe('SELECT count(*) FROM c');
	foreach my $other (grep { $_ ne $alg } qw(none AES128 AES256))
	{
		like(query_fails($node, 'postgres', "ALTER TABLESPACE changing SET (tablespace_encryption_algorithm = '$other')"),
			$refused, "not from $alg to $other while there is a table");
	}
	is(algorithm($node), $alg, 'it is as it was');
	caught_up($node, $standby);
	is(algorithm($standby), $alg, "$alg on the standby");
	same_content($node, $standby, ['postgres'], "$alg: content on the standby");
	$node->safe_psql('postgres', 'DROP TABLE c');
}
$idle->quit;
like(query_fails($node, 'postgres', q{BEGIN; ALTER TABLESPACE changing SET (tablespace_encryption_algorithm = 'AES128')}),
	qr/ERROR:  ALTER TABLESPACE \.\.\. SET \(tablespace_encryption_algorithm\) cannot run inside a transaction block/,
	'not in a transaction block');
$node->safe_psql('postgres', 'CREATE ROLE somebody LOGIN');
like(query_fails($node, 'postgres', q{ALTER TABLESPACE changing SET (tablespace_encryption_algorithm = 'AES128')},
		extra => [ '-U', 'somebody' ]),
	qr/ERROR:  must be owner of tablespace changing/, 'not everybody');
like(query_fails($node, 'postgres', "ALTER TABLESPACE $_ SET (tablespace_encryption_algorithm = 'AES128')"),
	qr/ERROR:  tablespace encryption algorithm option cannot be changed\n/, "not $_")
  foreach qw(pg_default pg_global);
like(query_fails($node, 'postgres', q{ALTER TABLESPACE changing SET (tablespace_encryption_algorithm = 'AES512')}),
	qr/ERROR:  invalid value for parameter "tablespace_encryption_algorithm": "AES512"/, 'not to something unknown');
is(algorithm($node), 'AES256', 'and it is as it was');
is($node->safe_psql('postgres', q{SELECT spcoptions FROM pg_tablespace WHERE spcname = 'changing'}), '{seq_page_cost=2}',
	'the other option');

# A temporary table of another session is an object too.
{
	my $session = $node->background_psql('postgres');
	$session->query_safe('CREATE TEMP TABLE tt (x text) TABLESPACE changing');
	like(query_fails($node, 'postgres', q{ALTER TABLESPACE changing RESET (tablespace_encryption_algorithm)}),
		$refused, 'not while there is somebody\'s temporary table');
	$session->quit;
}

# Changes, a table, and a crash before the next checkpoint.
$node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_class WHERE relname = 'tt'});
change('AES128');
$node->safe_psql('postgres', q{CREATE TABLE c TABLESPACE changing AS SELECT 1 AS g, 'MARK_changing1'::text AS x;
	DROP TABLE c});
change('AES256');
$node->safe_psql('postgres', q{CREATE TABLE c TABLESPACE changing AS SELECT g, 'MARK_changing' || g AS x FROM generate_series(1, 100) g});
$want = fingerprint($node, 'postgres');
$node->stop('immediate');
$node->start;
is(algorithm($node), 'AES256', 'changed, and a crash');
is_content(fingerprint($node, 'postgres'), $want, 'content');
caught_up($node, $standby);
same_content($node, $standby, ['postgres'], 'content on the standby');
$node->safe_psql('postgres', 'CHECKPOINT');
is_deeply([ files_with($MARK, $place, @space{qw(enc128 enc256)}, "$data/pg_wal", $standby->data_dir . '/pg_wal') ],
	[], 'no mark in encrypted tablespaces and WAL at the end');
isnt(scalar files_with($MARK, $space{clear}), 0, 'control: in the plain one there are');
$standby->stop;
$node->stop;
command_ok([ 'pg_checksums', '-c', '-D', $data ], 'checksums');

done_testing();
