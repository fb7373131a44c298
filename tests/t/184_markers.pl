# 184_markers.pl
#		A cluster that is encrypted as a whole, and everything that leaves it: base backups in all
#		forms and archives by PostgreSQL's own means hold no mark, tablespaces and catalogs
#		included. And the view that names what is plain.

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

my $MARK = { mark => 'MARK_' };
my $node = PostgreSQL::Test::Cluster->new('primary');
PgxTde::prepare_node($node);
write_file(pass_file($node), "$PASSPHRASE\n");
{
	local $ENV{PATH} = "$ENV{PGX_SHIM_DIR}:$ENV{PATH}";
	$node->init(
		allows_streaming => 1,
		has_archiving => 1,
		extra => [
			'--encrypt', '--keystore-location', keystore_dir($node), '--keystore-passphrase-file', pass_file($node), '-k',
			'--no-locale', '-E', 'UTF8'
		]);
}
configure_node($node, conf => "autovacuum = off\nwal_keep_size = '1GB'\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pgx_tde');
my $place = tablespace_dir($node, 'place');
my $clear = tablespace_dir($node, 'clear');
$node->safe_psql('postgres', "CREATE TABLESPACE place LOCATION '$place' WITH (tablespace_encryption_algorithm = 'AES128')");

sub more
{
	my ($name, $options) = @_;
	$node->safe_psql('postgres', qq{CREATE TABLE "MARK_table_$name" $options AS
		SELECT g, 'MARK_row_$name' || g AS x FROM generate_series(1, 20000) g;
		CREATE INDEX ON "MARK_table_$name" (x); COMMENT ON TABLE "MARK_table_$name" IS 'MARK_comment'});
	return finish_segment($node);
}

# ---- archives and a receiver ---------------------------------------------------------------------

my @connection = ('-h', $node->host, '-p', $node->port);
my $received = work_dir() . '/received';
mkdir $received, 0700;
my $receiver = IPC::Run::start([ 'pg_receivewal', '-D', $received, @connection ]);
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_replication}) or die 'pg_receivewal does not stream';
my $last = more('one', '');
more('two', 'TABLESPACE place');
$last = more('three', '');
$node->safe_psql('postgres', 'CHECKPOINT');
$node->poll_query_until('postgres', "SELECT last_archived_wal >= '$last' FROM pg_stat_archiver") or die 'not archived';
wait_until(sub { -e "$received/$last" });
$receiver->signal('INT');
$receiver->finish;
foreach my $case ([ 'cp', $node->archive_dir ], [ 'pg_receivewal', $received ])
{
	my ($name, $dir) = @$case;
	my ($pages, @plain) = plain_wal($dir);
	is("@plain", '', "$name: no page of WAL in the clear");
	cmp_ok($pages, '>', 500, "$name: of $pages");
	is_deeply([ files_with($MARK, $dir) ], [], "$name: no mark");
	is_same_file("$dir/$last", $node->data_dir . "/pg_wal/$last", "$name: a segment is that of the server");
}

# As an archive module, where the server has it.
SKIP:
{
	my ($lib) = map { chomp(my $path = `pg_config --pkglibdir`); $path } 1;
	skip 'basic_archive is not installed', 2 if !-e "$lib/basic_archive.so";
	my $dir = work_dir() . '/basic';
	mkdir $dir, 0700;
	$node->append_conf('postgresql.conf',
		"archive_library = 'basic_archive'\narchive_command = ''\nbasic_archive.archive_directory = '$dir'");
	$node->restart;
	my $next = more('basic', '');
	$node->poll_query_until('postgres', "SELECT last_archived_wal >= '$next' FROM pg_stat_archiver") or die 'not archived';
	is_deeply([ files_with($MARK, $dir) ], [], 'basic_archive: no mark');
	is_same_file("$dir/$next", $node->data_dir . "/pg_wal/$next", 'basic_archive: a segment is that of the server');
}

# ---- base backups -------------------------------------------------------------------------------------

foreach my $method (qw(stream fetch))
{
	foreach my $format (qw(plain tar))
	{
		my $to = work_dir() . "/backup_${format}_$method";
		command_ok(
			[
				'pg_basebackup', @connection, '-D', $to, '-X', $method, '-F', $format, '-c', 'fast', '-N',
				$format eq 'plain' ? ('-T', "$place=${to}_place") : ()
			],
			"$format, $method: pg_basebackup");
		my @files = files_below($to, "${to}_place");
		my $size = 0;
		$size += -s $_ foreach @files;
		cmp_ok($size, '>', 20_000_000, "$format, $method: $size bytes");
		is_deeply([ files_with($MARK, $to, "${to}_place") ], [], "$format, $method: no mark");
	}
}
is_deeply([ files_with($MARK, $node->data_dir, $place) ], [], 'no mark in the data directory');

# ---- what is plain -------------------------------------------------------------------------------------

is($node->safe_psql('postgres', 'SELECT * FROM pgx_plain_relations'), '', 'pgx_plain_relations: nothing');
$node->safe_psql('postgres', "CREATE TABLESPACE clear LOCATION '$clear'");
$node->safe_psql('postgres', q{CREATE TABLE seen TABLESPACE clear AS SELECT 'MARK_seen' || g AS x FROM generate_series(1, 100) g;
	CREATE INDEX hidden ON seen (x);
	CREATE INDEX shown ON seen (x) TABLESPACE clear;
	CREATE UNLOGGED TABLE fleeting (x int) TABLESPACE clear;
	CHECKPOINT});
is( $node->safe_psql('postgres', q{SELECT string_agg(concat_ws(' ', relation, relkind, relpersistence, tablespace), ', '
		ORDER BY relation::text) FROM pgx_plain_relations WHERE relkind <> 't' AND relation::text !~ '^pg_toast'}),
	'fleeting r u clear, seen r p clear, shown i p clear', 'pgx_plain_relations: tables and an index, and not the hidden one');
isnt(scalar files_with($MARK, $clear), 0, 'control: the mark is there');
$node->safe_psql('postgres', 'CREATE ROLE somebody LOGIN');
is( $node->safe_psql('postgres', 'SELECT count(*) > 0 FROM pgx_plain_relations', extra_params => [ '-U', 'somebody' ]),
	't', 'everybody may look');
$node->safe_psql('postgres', 'CREATE DATABASE open TABLESPACE clear');
$node->safe_psql('open', 'CREATE EXTENSION IF NOT EXISTS pgx_tde');
is( $node->safe_psql('open', q{SELECT count(*) > 100, bool_and(tablespace = 'clear'), bool_or(relation = 'pg_class'::regclass),
		bool_or(relation = 'pg_authid'::regclass) FROM pgx_plain_relations}),
	't|t|t|f', 'a database in the clear: its catalogs, but not the shared ones');
$node->stop;

done_testing();
