# 304_archive_module.pl
#		archive_library = 'pgx_archive': the same as pgx_walcopy without a process per segment.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PgxBackup;
use PgxTde;

my $node = backup_primary('main', archive_command => 0,
	conf => "archive_mode = on\narchive_library = 'pgx_archive'\n");
my $archive = area_dir($node) . '/archived_wal';
my $wal = $node->data_dir . '/pg_wal';
fill_tablespaces($node, 'MARK_module');

sub archived
{
	my ($segment) = @_;
	return $node->poll_query_until('postgres', "SELECT last_archived_wal >= '$segment' FROM pg_stat_archiver");
}

my $last = finish_segment($node);
ok(archived($last), 'a segment is archived');
my ($same, @different) = same_wal($wal, $archive, $last);
is("@different", '', 'archived segments are those of the server, encrypted');
cmp_ok($same, '>', 0, "$same of them were compared");
is_deeply([ files_with({ mark => 'MARK_module' }, $archive) ], [], 'no mark in them');
is(scalar(grep { /tmp/ } slurp_dir($archive)), 0, 'no temporary file is left');
dmpall_ok($node);

# Something else is there under the name of the segment to come.
$node->safe_psql('postgres', 'CREATE TABLE more (x int)');
my $next = $node->safe_psql('postgres', 'SELECT pg_walfile_name(pg_current_wal_lsn())');
write_file("$archive/$next", 'not that segment');
my $before = log_size($node);
finish_segment($node);
$node->poll_query_until('postgres', "SELECT last_failed_wal = '$next' FROM pg_stat_archiver") or die 'no failure is noted';
like(log_since($node, $before), qr/could not archive file "$next": file ".*$next" is there already and has other content/,
	'a file of that name is not overwritten');
is(slurp_raw("$archive/$next"), 'not that segment', 'it is as it was');
unlink "$archive/$next";
ok(archived($next), 'when it is gone, archiving goes on');
is_same_file("$archive/$next", "$wal/$next", 'with the right content');

# Another directory, while the server runs.
my $other = work_dir() . '/other';
$node->append_conf('postgresql.conf', "pgx_archive.directory = '$other'");
$before = log_size($node);
$node->reload;
$node->safe_psql('postgres', 'INSERT INTO more VALUES (1)');
my $third = finish_segment($node);
$node->wait_for_log(qr/the directory for archived WAL does not exist or is not configured/, $before);
ok(!-e $other, 'no directory is made');
mkdir $other, 0700;
ok(archived($third), 'it goes on when there is one');
is_same_file("$other/$third", "$wal/$third", 'into the new directory');

done_testing();
