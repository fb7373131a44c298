# 192_coverage_more.pl
#		What 183 leaves out: the files in which a subscriber keeps a transaction that is
#		streamed to it, and moves of TOASTed, unlogged, partitioned and materialized relations, one by one and
#		a whole tablespace at once.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PgxPages;
use PgxTde;
use Test::More;

my $MARK = { mark => 'MARK_' };
my $node = new_primary('primary', checksums => 1,
	conf => "autovacuum = off\nwal_level = logical\nlogical_decoding_work_mem = '64kB'\nallow_in_place_tablespaces = on\n");
my $data = $node->data_dir;

# ---- a subscriber's changes of a transaction that has not ended ------------------------------------------------

# Both kinds of subscriber, of one publisher: the plain one shows that what is looked for would be found.
my $encrypted = new_primary('encrypted', conf => "autovacuum = off\n");
my $plain = PostgreSQL::Test::Cluster->new('plain');
$plain->init(extra => [ '--no-locale', '-E', 'UTF8' ]);
$plain->start;
$node->safe_psql('postgres', 'CREATE TABLE streamed (id int PRIMARY KEY, x text); CREATE PUBLICATION p FOR TABLE streamed');
foreach my $at ($encrypted, $plain)
{
	$at->safe_psql('postgres', 'CREATE TABLE streamed (id int PRIMARY KEY, x text)');
	$at->safe_psql('postgres', "CREATE SUBSCRIPTION s_" . $at->name . " CONNECTION 'host=" . $node->host . ' port=' . $node->port
		  . " dbname=postgres' PUBLICATION p WITH (streaming = on, copy_data = off)");
}
my $session = $node->background_psql('postgres');
$session->query_safe(q{BEGIN; INSERT INTO streamed SELECT g, 'MARK_streamed' || g || repeat('.', 200) FROM generate_series(1, 20000) g});

# The transaction is there, but has not been committed: all of it is in files.
sub streamed_files
{
	my ($at) = @_;
	for (1 .. 1200)
	{
		my @files = grep { /\.changes\.\d+$/ && -s $_ > 1_000_000 } files_below($at->data_dir . '/base/pgsql_tmp');
		return @files if @files;
		select undef, undef, undef, 0.1;
	}
	die $at->name . ' has no file of a streamed transaction';
}
my %streamed = map { $_->name => [ streamed_files($_) ] } $encrypted, $plain;
cmp_ok(scalar(files_with($MARK, @{ $streamed{plain} })), '>', 0, 'control: a plain subscriber has the mark in its files');
is_deeply([ files_with($MARK, @{ $streamed{encrypted} }) ], [], 'an encrypted one has it in none of ' . @{ $streamed{encrypted} });
$session->query_safe('COMMIT');
$session->quit;
foreach my $at ($encrypted, $plain)
{
	$node->wait_for_catchup('s_' . $at->name);
	is($at->safe_psql('postgres', 'SELECT count(*), sum(id), min(length(x)) FROM streamed'), '20000|200010000|214',
		$at->name . ': all of it arrives');
	$at->safe_psql('postgres', 'DROP SUBSCRIPTION s_' . $at->name);
	$at->stop;
}

# ---- moves --------------------------------------------------------------------------------------------------------

$node->safe_psql('postgres', "CREATE TABLESPACE $_->[0] LOCATION '' WITH (tablespace_encryption_algorithm = '$_->[1]')")
  foreach [ 'clear', 'none' ], [ 'enc128', 'AES128' ], [ 'enc256', 'AES256' ];
my %space = map { $_ => "$data/pg_tblspc/" . $node->safe_psql('postgres', "SELECT oid FROM pg_tablespace WHERE spcname = '$_'") }
  qw(clear enc128 enc256);
$node->safe_psql('postgres', q{
	SET default_tablespace = clear;
	CREATE TABLE toasted (id int PRIMARY KEY, x text);
	ALTER TABLE toasted ALTER x SET STORAGE EXTERNAL;
	INSERT INTO toasted SELECT g, repeat('MARK_toasted' || g, 400) FROM generate_series(1, 200) g;
	CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY, x text);
	INSERT INTO unlogged SELECT g, 'MARK_unlogged' || g FROM generate_series(1, 3000) g;
	CREATE MATERIALIZED VIEW mat AS SELECT id, 'MARK_mat' || id AS x FROM unlogged;
	CREATE UNIQUE INDEX ON mat (id);
	CREATE TABLE parted (id int, x text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
	CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (1000);
	CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (1000) TO (9000);
	INSERT INTO parted SELECT g, 'MARK_parted' || g FROM generate_series(1, 3000) g;
	CREATE SEQUENCE counted OWNED BY toasted.id;
	VACUUM;
	CHECKPOINT});
my %marks = map { $_ => "MARK_$_" } qw(toasted unlogged mat parted);

sub whole
{
	return join "\n", fingerprint($node, 'postgres'), $node->safe_psql('postgres', q{
		SELECT count(*), sum(hashtext(x)) FROM unlogged;
		SET enable_seqscan = off; SET enable_bitmapscan = off;
		SELECT length(x) FROM toasted WHERE id = 77;
		SELECT x FROM mat WHERE id = 2500;
		SELECT x FROM parted WHERE id = 2999;
		SELECT x FROM unlogged WHERE id = 1234});
}
my $want = whole();
is(scalar(files_with(\%marks, $space{clear})) >= 4, 1, 'control: the marks are in the plain tablespace');

my @one_by_one = map { my $kind = $_; sub { "ALTER $kind SET TABLESPACE $_[0]" } } 'TABLE toasted', 'INDEX toasted_pkey', 'TABLE unlogged',
  'INDEX unlogged_pkey', 'MATERIALIZED VIEW mat', 'INDEX mat_id_idx', 'TABLE parted_1', 'TABLE parted_2', 'INDEX parted_1_pkey', 'INDEX parted_2_pkey';
my $at = 'clear';
foreach my $step ([ 'enc128', 0 ], [ 'enc256', 1 ], [ 'clear', 1 ], [ 'enc256', 0 ], [ 'enc128', 1 ], [ 'clear', 0 ], [ 'enc128', 1 ])
{
	my ($to, $at_once) = @$step;
	my @commands = $at_once
	  ? map { "ALTER $_ ALL IN TABLESPACE $at SET TABLESPACE $to" } 'TABLE', 'INDEX', 'MATERIALIZED VIEW'
	  : map { $_->($to) } @one_by_one;
	my $name = "from $at to $to, " . ($at_once ? 'all at once' : 'one by one');

	$node->safe_psql('postgres', join ';', @commands);
	$node->safe_psql('postgres', 'CHECKPOINT');
	is(whole(), $want, "$name: content");
	is($node->safe_psql('postgres', "SELECT count(*) FROM pg_class c JOIN pg_tablespace s ON s.oid = reltablespace
			WHERE spcname = '$at' AND relkind <> 'S' AND relkind <> 'p' AND relkind <> 'I'"), '0', "$name: nothing is left behind");
	my @found = files_with(\%marks, $space{$to});
	my ($pages, @clear) = plain_files(grep { -s $_ } files_below($space{$to}));
	cmp_ok($pages, '>', 150, "$name: $pages pages");
	if ($to eq 'clear') { cmp_ok(scalar(@found), '>=', 4, "$name: control: marks are there") }
	else                { is("@found @clear", ' ', "$name: no mark, no page is plain") }
	$at = $to;
}

# What is moved last lives on over a crash; of the unlogged table its init fork does.
$node->stop('immediate');
$node->start;
is($node->safe_psql('postgres', 'SELECT count(*) FROM unlogged'), '0', 'after a crash the unlogged table is empty');
$node->safe_psql('postgres', q{INSERT INTO unlogged SELECT g, 'MARK_unlogged' || g FROM generate_series(1, 3000) g});
is(whole(), $want, 'and takes rows; all else is there');
$node->safe_psql('postgres', 'CHECKPOINT');
is_deeply([ files_with(\%marks, @space{qw(enc128 enc256)}) ], [], 'no mark');
$node->stop;
command_ok([ 'pg_checksums', '--check', '-D', $data ], 'checksums');

done_testing();
