# 100_tde.pl
#		One server: SQL interface, every kind of object in encrypted and plain
#		tablespaces, moves between them, restarts, crashes, and plaintext searched for in
#		files and WAL.

use strict;
use warnings;
use utf8;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PgxTde;
use Test::More;

my $HINT_OPEN =
  'HINT:  Open the existing keystore, or set the master encryption key to create and open a new keystore';

# ---- without shared_preload_libraries ---------------------------------------------

{
	my $node = PostgreSQL::Test::Cluster->new('bare');
	$node->init;
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION pgx_tde');
	foreach my $sql (
		"SELECT pgx_set_master_key('long enough')", 'SELECT pgx_set_master_key()',
		"SELECT pgx_open_keystore('long enough')",
		"SELECT pgx_set_keystore_passphrase('long enough', 'also long enough')",
		'SELECT * FROM pgx_keystore_status', 'SELECT * FROM pgx_tablespaces')
	{
		like(query_fails($node, 'postgres', $sql),
			qr/ERROR:  pgx_tde must be loaded via shared_preload_libraries\n.*HINT:  Add pgx_tde to shared_preload_libraries/s,
			"not preloaded: $sql");
	}
	$node->stop;
}

# ---- setting up, with every refusal on the way ---------------------------------------

my $node = new_primary(
	'primary',
	checksums => 1,
	master_key => 0,
	open => 'none',
	conf => "wal_keep_size = '1GB'\nmax_wal_size = '1GB'\nautovacuum = off");

is( $node->safe_psql(
		'postgres', q{
		SELECT string_agg(attname || ' ' || atttypid::regtype, ', ' ORDER BY attnum)
		FROM pg_attribute WHERE attrelid = 'pgx_keystore_status'::regclass}),
	'keystore_location text, status text, opened_by text, uuid uuid, generation bigint, '
	  . 'active_master_key integer, auto_open text, wal_encryption boolean',
	'columns of pgx_keystore_status');
is(status_of($node, '*'), keystore_dir($node) . '|closed|||||none|f', 'status before the first key');

# Who watches processes by name finds them, though the server has executed itself again.
is(slurp_raw("/proc/$_/comm"), "postgres\n", "the name of process $_")
  foreach is_running($node), split /\n/, $node->safe_psql('postgres', 'SELECT pid FROM pg_stat_activity ORDER BY pid LIMIT 3');
is( $node->safe_psql(
		'postgres',
		q{SELECT spcname, spcencalgo FROM pgx_tablespaces t JOIN pg_tablespace s ON s.oid = t.spctablespace
		  ORDER BY 1}),
	"pg_default|none\npg_global|none",
	'pgx_tablespaces before the first key');

my $dir = tablespace_dir($node, 'enc');
my $create = "CREATE TABLESPACE enc LOCATION '$dir' WITH (tablespace_encryption_algorithm = 'AES256')";
like(query_fails($node, 'postgres', $create),
	qr/ERROR:  could not create an encrypted tablespace because the keystore is not open\n\Q$HINT_OPEN\E/,
	'no encrypted tablespace before the first key');
is_deeply([ slurp_dir($node->data_dir . '/pg_tblspc') ], [ '.', '..' ], 'and nothing is left of it');

# The limits of a passphrase are in bytes.
sub too_short_or_long
{
	my ($sql, $what) = @_;
	like(query_fails($node, 'postgres', $sql),
		qr/ERROR:  passphrase is too short or too long\nDETAIL:  The length of the passphrase must be between 8 and 200 bytes\./,
		$what);
	return;
}
my ($p7, $p8, $p200, $p201) = ('s' x 7, 'e' x 8, 'l' x 200, 'x' x 201);
too_short_or_long("SELECT pgx_set_master_key('$p7')", 'passphrase of 7 bytes');
too_short_or_long("SELECT pgx_set_master_key('$p201')", 'passphrase of 201 bytes');
too_short_or_long("SELECT pgx_set_master_key('" . 'ä' x 101 . "')", 'passphrase of 202 bytes in 101 characters');
ok(!-e keystore_file($node), 'no keystore was made by a refused passphrase');
like(query_fails($node, 'postgres', 'SELECT pgx_set_master_key()'),
	qr/ERROR:  keystore does not exist\nHINT:  .*set the master encryption key/,
	'no argument: a keystore is needed');
like(query_fails($node, 'postgres', "SELECT pgx_open_keystore('$p8')"),
	qr/ERROR:  keystore .*does not exist/, 'nothing to open');

# Text in WAL before the first key is plain, which shows that the search below can find something.
$node->safe_psql('postgres', q{CREATE TABLE before AS SELECT 'MARK_before_first_key' AS x});

is($node->safe_psql('postgres', "SELECT pgx_set_master_key('$p8')"), '', 'passphrase of 8 bytes');
is((stat(keystore_file($node)))[2] & 07777, 0600, 'mode of the keystore');
like(status_of($node, '*'),
	qr/^\Q@{[keystore_dir($node)]}\E\|open\|SQL function\|[0-9a-f-]{36}\|1\|1\|none\|t$/,
	'status after the first key');
like(query_fails($node, 'postgres', "SELECT pgx_open_keystore('$p8')"),
	qr/ERROR:  keystore is already open/, 'it is open already');

my $uuid = status_of($node, 'uuid');
$node->safe_psql('postgres', "SELECT pgx_set_keystore_passphrase('$p8', '$p200')");
is(status_of($node, 'uuid, generation, active_master_key'), "$uuid|2|1", 'status after a new passphrase of 200 bytes');
too_short_or_long("SELECT pgx_set_keystore_passphrase('$p200', '$p7')", 'new passphrase of 7 bytes');
too_short_or_long("SELECT pgx_set_keystore_passphrase('$p200', '$p201')", 'new passphrase of 201 bytes');
{
	my $before = slurp_raw(keystore_file($node));
	like(query_fails($node, 'postgres', "SELECT pgx_set_keystore_passphrase('$p8', '$PASSPHRASE')"),
		qr/ERROR:  could not open keystore "[^"]+": passphrase is wrong/, 'the old passphrase is refused');
	like(query_fails($node, 'postgres', "SELECT pgx_set_master_key('$p8')"),
		qr/ERROR:  could not open keystore "[^"]+": passphrase is wrong/, 'for a new master key too');
	is(slurp_raw(keystore_file($node)), $before, 'refusals left the keystore as it was');
}
$node->safe_psql('postgres', "SELECT pgx_set_keystore_passphrase('$p200', '$PASSPHRASE')");
$node->safe_psql('postgres', "SELECT pgx_set_master_key('$PASSPHRASE')");
is(status_of($node, 'uuid, generation, active_master_key'), "$uuid|4|2", 'a master key by passphrase');
rotate($node);
is(status_of($node, 'uuid, generation, active_master_key'), "$uuid|5|3", 'a master key without');

# Who may, and when.
foreach my $call ('pgx_set_master_key()', "pgx_set_master_key('$PASSPHRASE')",
	"pgx_set_keystore_passphrase('$PASSPHRASE', '$PASSPHRASE')")
{
	(my $function = $call) =~ s/\(.*/()/;
	like(query_fails($node, 'postgres', "BEGIN; SELECT $call;"),
		qr/ERROR:  \Q$function\E cannot run inside a transaction block/, "in a transaction block: $function");
}
is(status_of($node, 'generation'), '5', 'and nothing has changed');

$node->safe_psql(
	'postgres', q{
	CREATE ROLE somebody LOGIN;
	CREATE ROLE monitor LOGIN IN ROLE pg_monitor;
	CREATE ROLE trusted LOGIN;
	GRANT EXECUTE ON FUNCTION pgx_set_master_key(text), pgx_set_master_key(), pgx_open_keystore(text),
		pgx_set_keystore_passphrase(text, text) TO trusted});
my %calls = (
	'pgx_set_master_key' => [ "SELECT pgx_set_master_key('$PASSPHRASE')", 'SELECT pgx_set_master_key()' ],
	'pgx_open_keystore' => ["SELECT pgx_open_keystore('$PASSPHRASE')"],
	'pgx_set_keystore_passphrase' => ["SELECT pgx_set_keystore_passphrase('$PASSPHRASE', '$PASSPHRASE')"]);
foreach my $function (sort keys %calls)
{
	foreach my $sql (@{ $calls{$function} })
	{
		like(query_fails($node, 'postgres', $sql, extra => [ '-U', 'somebody' ]),
			qr/ERROR:  permission denied for function $function/, "not everybody: $function");
		like(query_fails($node, 'postgres', $sql, extra => [ '-U', 'trusted' ]),
			qr/ERROR:  must be superuser to manipulate keystore/, "a grant is not enough: $function");
	}
}
like(query_fails($node, 'postgres', 'SELECT * FROM pgx_keystore_status', extra => [ '-U', 'somebody' ]),
	qr/ERROR:  permission denied for view pgx_keystore_status/, 'the status is not for everybody');
is( $node->safe_psql('postgres', 'SELECT status FROM pgx_keystore_status', extra_params => [ '-U', 'monitor' ]),
	'open', 'but for monitoring');
is( $node->safe_psql('postgres', 'SELECT count(*) FROM pgx_tablespaces', extra_params => [ '-U', 'somebody' ]),
	'2', 'everybody may see which tablespaces are encrypted');
is(status_of($node, 'generation'), '5', 'and nothing has changed');

# ---- tablespaces ----------------------------------------------------------------------

my %dirs = map { $_ => tablespace_dir($node, $_) } qw(enc enc128 plain guc guc2 reuse);

sub create_tablespace
{
	my ($name, $options, $set) = @_;
	return $node->safe_psql('postgres', ($set // '') . ";\nCREATE TABLESPACE $name LOCATION '$dirs{$name}' $options");
}

sub algorithm
{
	my ($name) = @_;
	return $node->safe_psql('postgres',
		"SELECT spcencalgo FROM pgx_tablespaces t JOIN pg_tablespace s ON s.oid = t.spctablespace WHERE spcname = '$name'"
	);
}
create_tablespace('enc', "WITH (tablespace_encryption_algorithm = 'AES256', seq_page_cost = 1.5)");
is(algorithm('enc'), 'AES256', 'AES256');
is($node->safe_psql('postgres', q{SELECT spcoptions FROM pg_tablespace WHERE spcname = 'enc'}),
	'{seq_page_cost=1.5}', 'other options are kept, ours is not stored');
create_tablespace('enc128', "WITH (tablespace_encryption_algorithm = 'AES128')");
is(algorithm('enc128'), 'AES128', 'AES128');
create_tablespace('plain', "WITH (tablespace_encryption_algorithm = 'none')",
	q{SET pgx_tde.tablespace_encryption_algorithm = 'AES256'});
is(algorithm('plain'), 'none', 'none, over the setting');
create_tablespace('guc', '', q{SET pgx_tde.tablespace_encryption_algorithm = 'AES128'});
is(algorithm('guc'), 'AES128', 'AES128 by setting');
create_tablespace('guc2', '');
is(algorithm('guc2'), 'none', 'none by default');

like(
	query_fails($node, 'postgres',
		"CREATE TABLESPACE wrong LOCATION '$dirs{reuse}' WITH (tablespace_encryption_algorithm = 'AES512')"),
	qr/ERROR:  invalid value for parameter "tablespace_encryption_algorithm": "AES512"\nHINT:  Available values: none, AES128, AES256\./,
	'unknown algorithm');
like(
	query_fails($node, 'postgres',
		"CREATE TABLESPACE wrong LOCATION '$dirs{reuse}' WITH (tablespace_encryption_algorithm = 'AES256', tablespace_encryption_algorithm = 'none')"
	),
	qr/ERROR:  parameter "tablespace_encryption_algorithm" specified more than once/,
	'named twice');
like(query_fails($node, 'postgres', q{SET pgx_tde.tablespace_encryption_algorithm = 'rot13'}),
	qr/ERROR:  invalid value for parameter "pgx_tde.tablespace_encryption_algorithm": "rot13"\nHINT:  Available values: none, AES128, AES256\./,
	'unknown algorithm in the setting');

# Only of an empty tablespace; 183 changes those.
$node->safe_psql('postgres', "CREATE TABLE in_$_ (x int) TABLESPACE $_") foreach qw(plain enc);
my $refused = qr/ERROR:  tablespace encryption algorithm option cannot be changed\nDETAIL:  The tablespace is not empty\./;
foreach my $change (
	[ 'plain', q{SET (tablespace_encryption_algorithm = 'AES256')} ],
	[ 'enc', q{SET (tablespace_encryption_algorithm = 'none')} ],
	[ 'enc', q{SET (tablespace_encryption_algorithm = 'AES128', seq_page_cost = 3)} ],
	[ 'enc', 'RESET (tablespace_encryption_algorithm)' ])
{
	like(query_fails($node, 'postgres', "ALTER TABLESPACE $change->[0] $change->[1]"),
		$refused, "ALTER TABLESPACE $change->[0] $change->[1]");
}
$node->safe_psql('postgres', q{ALTER TABLESPACE enc SET (tablespace_encryption_algorithm = 'AES256', seq_page_cost = 2)});
is( $node->safe_psql('postgres', q{SELECT spcoptions FROM pg_tablespace WHERE spcname = 'enc'}),
	'{seq_page_cost=2}', 'setting what it is already is no change');
is(join(' ', map { algorithm($_) } qw(enc enc128 plain guc guc2)),
	'AES256 AES128 none AES128 none', 'and all are as they were');
$node->safe_psql('postgres', 'DROP TABLE in_plain, in_enc');

# The same place for an encrypted one, a plain one and an encrypted one again.
sub reused
{
	my ($alg) = @_;
	create_tablespace('reuse', "WITH (tablespace_encryption_algorithm = '$alg')");
	$node->safe_psql('postgres',
		q{CREATE TABLE r TABLESPACE reuse AS SELECT 'MARK_reuse' AS x FROM generate_series(1, 1000); CHECKPOINT});
	my @found = files_with({ mark => 'MARK_reuse' }, $dirs{reuse});
	$node->safe_psql('postgres', 'DROP TABLE r; DROP TABLESPACE reuse');
	return scalar @found;
}
is(reused('AES256'), 0, 'an encrypted tablespace');
is(reused('none'), 1, 'dropped, and a plain one in its place');
is(reused('AES128'), 0, 'dropped, and an encrypted one again');

# ---- objects of all kinds -----------------------------------------------------------------

my @kinds = qw(heap index toast gin hash gist spgist brin matview part unlogged main);

# Objects in a tablespace; each kind has its own mark, so that a hit names the culprit.
sub make_objects
{
	my ($db, $schema, $space) = @_;
	my $mark = sub { "MARK_$schema\_$_[0]" };

	$node->safe_psql($db, qq{
		CREATE SCHEMA $schema;
		SET search_path = $schema, public;
		SET default_tablespace = '$space';
		CREATE TABLE heap (id int PRIMARY KEY, x text);
		INSERT INTO heap SELECT g, '@{[$mark->('heap')]}' || g FROM generate_series(1, 3000) g;
		CREATE TABLE idx (id int, x text);
		INSERT INTO idx SELECT g, '@{[$mark->('index')]}' || g FROM generate_series(1, 1000) g;
		CREATE INDEX ON idx (x);
		CREATE TABLE toasted (id int, x text);
		ALTER TABLE toasted ALTER x SET STORAGE EXTERNAL;
		INSERT INTO toasted SELECT g, repeat('@{[$mark->('toast')]}', 700) FROM generate_series(1, 20) g;
		CREATE TABLE gin (x text[]);
		INSERT INTO gin SELECT ARRAY['@{[$mark->('gin')]}' || g, 'b' || g] FROM generate_series(1, 1000) g;
		CREATE INDEX ON gin USING gin (x);
		CREATE TABLE hash (x text);
		INSERT INTO hash SELECT '@{[$mark->('hash')]}' || g FROM generate_series(1, 1000) g;
		CREATE INDEX ON hash USING hash (x);
		CREATE TABLE gist (id int, r int4range, x text);
		INSERT INTO gist SELECT g, int4range(g, g + 10), '@{[$mark->('gist')]}' FROM generate_series(1, 1000) g;
		CREATE INDEX ON gist USING gist (r);
		CREATE TABLE spgist (x text);
		INSERT INTO spgist SELECT '@{[$mark->('spgist')]}' || g FROM generate_series(1, 1000) g;
		CREATE INDEX ON spgist USING spgist (x);
		CREATE TABLE brin (id int, x text);
		INSERT INTO brin SELECT g, '@{[$mark->('brin')]}' || g FROM generate_series(1, 1000) g;
		CREATE INDEX ON brin USING brin (x);
		CREATE MATERIALIZED VIEW matview AS SELECT '@{[$mark->('matview')]}' || g AS x FROM generate_series(1, 500) g;
		CREATE TABLE part (id int, x text) PARTITION BY RANGE (id);
		CREATE TABLE part1 PARTITION OF part FOR VALUES FROM (0) TO (500);
		CREATE TABLE part2 PARTITION OF part FOR VALUES FROM (500) TO (5000);
		INSERT INTO part SELECT g, '@{[$mark->('part')]}' || g FROM generate_series(1, 1000) g;
		CREATE SEQUENCE seq;
		SELECT count(nextval('seq')) FROM generate_series(1, 77);
		CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY, x text);
		INSERT INTO unlogged SELECT g, '@{[$mark->('unlogged')]}' || g FROM generate_series(1, 1000) g;
		BEGIN;
		CREATE TABLE main (id int, x text);
		COPY main FROM STDIN;
1	@{[$mark->('main')]}
\\.
		COMMIT;
		DELETE FROM heap WHERE id % 3 = 0;
		VACUUM heap, idx, brin;
		UPDATE heap SET x = x || 'changed' WHERE id % 3 = 1;
	});
	return;
}

# Everything that an index finds, against the table itself.
sub indexes_agree
{
	my ($db, $schema, $name) = @_;
	my $result = $node->safe_psql($db, qq{
		SET search_path = $schema, public;
		SET enable_seqscan = off;
		SELECT (SELECT count(*) FROM heap WHERE id BETWEEN 1 AND 2999),
			(SELECT count(*) FROM idx WHERE x >= 'MARK' AND x < 'MARL'),
			(SELECT count(*) FROM gin WHERE x @> ARRAY['b17']),
			(SELECT count(*) FROM hash WHERE x = 'MARK_$schema\_hash999'),
			(SELECT count(*) FROM gist WHERE r @> 500),
			(SELECT count(*) FROM spgist WHERE x ^@ 'MARK_$schema\_spgist99'),
			(SELECT count(*) FROM brin WHERE x >= 'MARK'),
			(SELECT count(*) FROM toasted WHERE x ~ '^(MARK_$schema\_toast)+\$')});
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is($result, '2000|1000|1|1|10|11|1000|20', "$name: indexes of $schema");
}

make_objects('postgres', 'in_enc', 'enc');
make_objects('postgres', 'in_enc128', 'enc128');
make_objects('postgres', 'in_plain', 'plain');
my %in_enc = map { ("$_ enc" => "MARK_in_enc_$_", "$_ enc128" => "MARK_in_enc128_$_") } @kinds;
my %in_plain = map { ("$_ plain" => "MARK_in_plain_$_") } @kinds;

my $want = fingerprint($node, 'postgres');
like($want, qr/in_enc\.heap\|2000\|.*in_enc128\.toasted\|20\|/s, 'content is there');

# Temporary tables go through the same files once they leave their own buffers.
my $temp = $node->background_psql('postgres');
$temp->query_safe(q{
	SET temp_buffers = '800kB';
	SET temp_tablespaces = 'enc';
	CREATE TEMP TABLE te AS SELECT g, 'MARK_temp_in_enc' || g AS x FROM generate_series(1, 40000) g;
	CREATE INDEX ON te (x);
	SET temp_tablespaces = 'plain';
	CREATE TEMP TABLE tp AS SELECT g, 'MARK_temp_in_plain' || g AS x FROM generate_series(1, 40000) g;});
is( $temp->query_safe(q{SELECT count(*), count(DISTINCT te.x), sum(length(te.x)) = sum(length(tp.x)) - 80000
	FROM te JOIN tp USING (g)}),
	'40000|40000|t', 'temporary tables hold what was put in');
is_deeply([ files_with({ temp => 'MARK_temp_in_enc' }, $dirs{enc}) ], [], 'temporary table: nothing plain in enc');
isnt(scalar files_with({ temp => 'MARK_temp_in_plain' }, $dirs{plain}), 0, 'and found where it is plain');
$temp->quit;

# ---- plaintext -----------------------------------------------------------------------------

$node->safe_psql('postgres', 'CHECKPOINT');
{
	my %hits = map { s/^.*: //r => 1 } files_with(\%in_plain, $dirs{plain});
	is_deeply([ sort keys %hits ], [ sort keys %in_plain ], 'control: every mark is found in the plain tablespace');
}
is_deeply([ files_with(\%in_enc, @dirs{ 'enc', 'enc128' }) ], [], 'no mark in the encrypted tablespaces');
my $pg_wal = $node->data_dir . '/pg_wal';
isnt(scalar files_with({ before => 'MARK_before_first_key' }, $pg_wal),
	0, 'control: WAL from before the first key is found');
my %wal_needles = (%in_enc, %in_plain, 'temp' => 'MARK_temp', 'reuse' => 'MARK_reuse');
is_deeply([ files_with(\%wal_needles, $pg_wal) ], [], 'no mark in WAL since then');

# ---- restart and crash ------------------------------------------------------------------------

sub restart_opened
{
	my ($mode) = @_;
	$node->stop($mode);
	set_passphrase($node, $PASSPHRASE);
	$node->adjust_conf('postgresql.conf', 'pgx_tde.keystore_passphrase_command', "'cat " . pass_file($node) . "'");
	$node->start;
	return;
}

my $last_value = $node->safe_psql('postgres', 'SELECT last_value FROM in_enc.seq');
restart_opened('fast');
is(status_of($node, 'status, opened_by, uuid, generation, active_master_key, wal_encryption'),
	"open|passphrase command|$uuid|5|3|t", 'status after a restart');
is_content(fingerprint($node, 'postgres'), $want, 'content after a restart');
indexes_agree('postgres', $_, 'after a restart') foreach qw(in_enc in_enc128 in_plain);
is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT x) FROM in_enc.unlogged'),
	'1000|1000', 'the unlogged table survives a restart');
is($node->safe_psql('postgres', q{SELECT nextval('in_enc.seq')}), $last_value + 1, 'the sequence goes on');

# Change a bit of everything, and crash before a checkpoint.
sub change_everything
{
	my ($schema) = @_;
	$node->safe_psql('postgres', qq{
		SET search_path = $schema, public;
		UPDATE heap SET x = 'MARK_$schema\_heap_again' || id WHERE id % 5 = 0;
		INSERT INTO toasted SELECT 100 + g, repeat('MARK_$schema\_toast', 650) FROM generate_series(1, 5) g;
		DELETE FROM toasted WHERE id <= 5;
		INSERT INTO part SELECT g, 'MARK_$schema\_part' FROM generate_series(1000, 1100) g;
		REFRESH MATERIALIZED VIEW matview;
		ALTER TABLE main ADD y int DEFAULT 42;
		SELECT nextval('seq')});
	return;
}
change_everything($_) foreach qw(in_enc in_enc128 in_plain);
$want = fingerprint($node, 'postgres');
$node->stop('immediate');
$node->start;
is_content(fingerprint($node, 'postgres'), $want, 'content after a crash');
is($node->safe_psql('postgres', 'SELECT count(*) FROM in_enc.unlogged'), '0', 'the unlogged table is empty after a crash');
$node->safe_psql('postgres', q{INSERT INTO in_enc.unlogged SELECT g, 'x' || g FROM generate_series(1, 500) g});
is( $node->safe_psql('postgres', 'SET enable_seqscan = off; SELECT count(*) FROM in_enc.unlogged WHERE id BETWEEN 100 AND 199'),
	'100', 'and its index works');
cmp_ok($node->safe_psql('postgres', q{SELECT nextval('in_enc.seq')}), '>', $last_value, 'the sequence never goes back');
$want = fingerprint($node, 'postgres');

# ---- rewriting and moving -------------------------------------------------------------------

$node->safe_psql('postgres', $_)
  foreach 'VACUUM FULL in_enc.heap', 'CLUSTER in_enc.heap USING heap_pkey', 'REINDEX SCHEMA in_enc',
  'REINDEX TABLE CONCURRENTLY in_enc128.idx', 'VACUUM (FREEZE) in_enc.idx', 'VACUUM FULL in_enc128.toasted';
is_content(fingerprint($node, 'postgres'), $want, 'content after VACUUM FULL, CLUSTER and REINDEX');
$node->safe_psql('postgres', q{
	CREATE TABLE in_enc.cut TABLESPACE enc AS SELECT 'MARK_cut' || g AS x FROM generate_series(1, 2000) g;
	TRUNCATE in_enc.cut;
	INSERT INTO in_enc.cut SELECT 'MARK_cut_again' || g FROM generate_series(1, 10) g});

# Each way between two tablespaces: the table's marks are where it was and where it is.
my @moves = ([ 'in_plain', 'plain', 'enc' ], [ 'in_enc', 'enc', 'enc128' ], [ 'in_enc128', 'enc128', 'plain' ]);
foreach my $move (@moves)
{
	my ($schema, $from, $to) = @$move;
	$node->safe_psql('postgres', "ALTER TABLE $schema.$_ SET TABLESPACE $to") foreach qw(heap idx toasted main);
	$node->safe_psql('postgres', "ALTER INDEX $schema.$_ SET TABLESPACE $to")
	  foreach qw(heap_pkey idx_x_idx gin_x_idx);
	$node->safe_psql('postgres', "ALTER MATERIALIZED VIEW $schema.matview SET TABLESPACE $to");
	$node->safe_psql('postgres', "ALTER TABLE $schema.unlogged SET TABLESPACE $to");
}
{
	my $now = fingerprint($node, 'postgres');
	$now =~ s/^postgres\.in_enc\.cut\|(\d+)\|.*\n//m;
	is($1, '10', 'a truncated table holds what came after');
	is_content($now, $want, 'content after moves between tablespaces');
}
indexes_agree('postgres', 'in_plain', 'after moves');
$node->safe_psql('postgres', 'CHECKPOINT');
is_deeply([ files_with({ map { $_ => "MARK_in_plain_$_" } qw(heap index toast matview main) }, @dirs{ 'enc', 'enc128' }) ],
	[], 'what was moved to an encrypted tablespace is not plain there');
isnt(scalar files_with({ heap => 'MARK_in_enc128_heap' }, $dirs{plain}), 0, 'control: what was moved to a plain one is');
$want = fingerprint($node, 'postgres');
$node->stop('immediate');
$node->start;
is_content(fingerprint($node, 'postgres'), $want, 'content after moves and a crash');

# ---- databases ---------------------------------------------------------------------------------

$node->safe_psql('postgres', 'CREATE DATABASE source TABLESPACE enc');
$node->safe_psql('source', q{
	CREATE TABLE t AS SELECT g AS id, 'MARK_database' || g AS x FROM generate_series(1, 2000) g;
	CREATE INDEX ON t (x);
	CREATE FUNCTION secret() RETURNS text LANGUAGE sql AS $$ SELECT 'MARK_function'::text $$});
my $source = fingerprint($node, 'source') =~ s/^source\.//gmr;
foreach my $strategy (qw(wal_log file_copy))
{
	foreach my $space (qw(enc enc128 plain))
	{
		my $db = "copy_$strategy\_$space";
		$node->safe_psql('postgres', "CREATE DATABASE $db TEMPLATE source TABLESPACE $space STRATEGY $strategy");
	}
}
sub databases_agree
{
	my ($when) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach my $db (map { ("copy_wal_log_$_", "copy_file_copy_$_") } qw(enc enc128 plain))
	{
		is_content(fingerprint($node, $db) =~ s/^$db\.//gmr, $source, "$db $when");
		is( $node->safe_psql($db,
				q{SET enable_seqscan = off; SELECT id, secret() FROM t WHERE x = 'MARK_database777'}),
			'777|MARK_function', "$db $when: index and catalog");
	}
	return;
}
databases_agree('when made');
$node->stop('immediate');
$node->start;
databases_agree('after a crash');

# ALTER DATABASE moves the files as they are.
my @db_moves = (
	[ copy_wal_log_enc => 'plain' ],
	[ copy_file_copy_enc => 'enc128' ],
	[ copy_wal_log_plain => 'enc' ],
	[ copy_file_copy_plain => 'pg_default' ],
	[ copy_wal_log_enc128 => 'pg_default' ],
	[ copy_file_copy_enc128 => 'enc' ]);
$node->safe_psql('postgres', "ALTER DATABASE $_->[0] SET TABLESPACE $_->[1]") foreach @db_moves;
$node->safe_psql('postgres', 'ALTER DATABASE copy_file_copy_plain SET TABLESPACE enc128');
databases_agree('after a move');
$node->safe_psql('postgres', 'CHECKPOINT');
my %db_marks = (table => 'MARK_database', function => 'MARK_function');
is_deeply([ files_with(\%db_marks, @dirs{ 'enc', 'enc128', 'guc' }) ], [], 'no mark of a database in an encrypted tablespace');
isnt(scalar files_with(\%db_marks, $dirs{plain}), 0, 'control: they are in the plain one');
isnt(scalar files_with(\%db_marks, $node->data_dir . '/base'), 0, 'control: and in the default one');
$node->stop('immediate');
$node->start;
databases_agree('after a move and a crash');
is_deeply([ files_with({ %wal_needles, %db_marks, cut => 'MARK_cut' }, $pg_wal) ], [], 'no mark in WAL at the end');

$node->stop;
command_ok([ 'pg_checksums', '-c', '-D', $node->data_dir ], 'checksums are right as they are on disk');

# ---- no data checksums, wal_level = minimal -------------------------------------------------------

my $plain = new_primary('unchecked', streaming => 0, conf => 'autovacuum = off');
is($plain->safe_psql('postgres', 'SHOW data_checksums'), 'off', 'a server without data checksums');
my $udir = tablespace_dir($plain, 'enc');
$plain->safe_psql('postgres',
	"CREATE TABLESPACE enc LOCATION '$udir' WITH (tablespace_encryption_algorithm = 'AES128')");
$plain->safe_psql('postgres', 'CREATE DATABASE e TABLESPACE enc');
$plain->safe_psql('e', q{
	CREATE TABLE t AS SELECT g, 'MARK_unchecked' || g AS x FROM generate_series(1, 5000) g;
	CREATE INDEX ON t (x);
	CHECKPOINT;
	DELETE FROM t WHERE g % 7 = 0;
	UPDATE t SET x = x || 'y' WHERE g % 5 = 0;
	BEGIN;
	CREATE TABLE skipped (x text);
	INSERT INTO skipped SELECT 'MARK_skipped' || g FROM generate_series(1, 2000) g;
	COMMIT});
my $unchecked = fingerprint($plain, 'e');
$plain->stop('immediate');
$plain->start;
is_content(fingerprint($plain, 'e'), $unchecked, 'content after a crash');
like($unchecked, qr/e\.skipped\|2000\|/, 'with a table that was never in WAL');
$plain->restart;
is_content(fingerprint($plain, 'e'), $unchecked, 'content after a restart');
is( $plain->safe_psql('e', q{SET enable_seqscan = off; SELECT count(*) FROM t WHERE x ~ '^MARK' AND x > 'MARK'}),
	'4286', 'by the index');
is_deeply([ files_with({ mark => 'MARK_' }, $udir, $plain->data_dir . '/pg_wal') ], [], 'no mark in files and WAL');
$plain->stop;

done_testing();
