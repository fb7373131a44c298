# 185_incremental.pl
#		What PostgreSQL 17 brought: the WAL summarizer, which reads encrypted WAL; incremental
#		backups, from the primary and from a standby, over a change of the master key; and what pg_combinebackup
#		makes of them, which starts with the keystore.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PgxPages;
use PgxTde;
use Test::More;

my ($major) = `pg_config --version` =~ /(\d+)/;
plan skip_all => "incremental backups came with PostgreSQL 17, and this is $major" if $major < 17;

my $MARK = { mark => 'MARK_' };
my $conf = "autovacuum = off\nsummarize_wal = on\nwal_keep_size = '1GB'\n";
my $node = PostgreSQL::Test::Cluster->new('primary');
PgxTde::prepare_node($node);
write_file(pass_file($node), "$PASSPHRASE\n");
{
	local $ENV{PATH} = "$ENV{PGX_SHIM_DIR}:$ENV{PATH}";
	$node->init(
		allows_streaming => 1,
		extra => [
			'--encrypt', '--keystore-location', keystore_dir($node), '--keystore-passphrase-file', pass_file($node), '-k',
			'--no-locale', '-E', 'UTF8'
		]);
}
configure_node($node, conf => $conf);
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pgx_tde');
my %place = map { $_ => tablespace_dir($node, $_) } qw(place clear);
$node->safe_psql('postgres', "CREATE TABLESPACE place LOCATION '$place{place}' WITH (tablespace_encryption_algorithm = 'AES128')");
# Not encrypted: where the marks must be found, or looking for them proves nothing.
$node->safe_psql('postgres', "CREATE TABLESPACE clear LOCATION '$place{clear}'");

my @spaces = ([ 'default', 'pg_default' ], [ 'place', 'place' ], [ 'clear', 'clear' ]);
foreach (@spaces)
{
	my ($name, $space) = @$_;
	$node->safe_psql('postgres', qq{SET default_tablespace = '$space';
		CREATE TABLE kept_$name AS SELECT g AS id, 'MARK_kept_$name' || g AS x FROM generate_series(1, 60000) g;
		CREATE TABLE changed_$name (id int PRIMARY KEY, x text);
		INSERT INTO changed_$name SELECT g, 'MARK_first_$name' || g FROM generate_series(1, 60000) g;
		CREATE TABLE shrunk_$name AS SELECT g AS id, 'MARK_shrunk_$name' || g AS x FROM generate_series(1, 20000) g;
		CREATE TABLE dropped_$name AS SELECT 'MARK_dropped_$name' AS x});
}

# Some blocks of what there is, new files, fewer blocks, and no file any more.
sub change
{
	my ($text) = @_;
	foreach (@spaces)
	{
		my ($name, $space) = @$_;
		$node->safe_psql('postgres', qq{SET default_tablespace = '$space';
			UPDATE changed_$name SET x = 'MARK_${text}_$name' || id WHERE id BETWEEN 20000 AND 20100;
			DELETE FROM shrunk_$name WHERE id > (SELECT max(id) / 2 FROM shrunk_$name);
			VACUUM shrunk_$name;
			CREATE TABLE new_${text}_$name AS SELECT 'MARK_new_${text}_$name' || g AS x FROM generate_series(1, 5000) g;
			DROP TABLE IF EXISTS dropped_$name});
	}
	return;
}

# ---- backups ------------------------------------------------------------------------------------------

my $backups = work_dir() . '/backups';
mkdir $backups;

# pg_basebackup; each tablespace is mapped beside the backup.
sub backup
{
	my ($from, $name, @options) = @_;
	my $to = "$backups/$name";
	my @map = map { ('-T', "$_->[0]=${to}_$_->[1]") } mapped($from);

	return command_ok(
		[ 'pg_basebackup', '-h', $from->host, '-p', $from->port, '-D', $to, '-c', 'fast', '-N', @map, @options ],
		"$name: pg_basebackup");
}

sub mapped
{
	my ($from) = @_;
	return map { [ $from->safe_psql('postgres', "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = '$_'"), $_ ] }
	  sort keys %place;
}

# How many bytes the files of relations have in a backup, below all of its directories.
sub size_of
{
	my $size = 0;
	$size += -s $_ foreach grep { m{/(?:base|global|PG_\d+_\d+)/} } map { files_below($_) } @_;
	return $size;
}

# The directories of a backup, and its files that have to be encrypted: the links to tablespaces are followed too.
sub parts { return ("$backups/$_[0]", map { "$backups/$_[0]_$_" } sort keys %place); }

my $clear_oid = $node->safe_psql('postgres', q{SELECT oid FROM pg_tablespace WHERE spcname = 'clear'});

sub encrypted_files
{
	my ($name) = @_;
	return grep { !m{/pg_tblspc/$clear_oid/} && !m{^\Q$backups\E/${name}_clear/} } files_below(parts($name));
}

# No mark in what is encrypted; marks in what is not.
sub no_mark
{
	my ($name) = @_;
	is_deeply([ files_with($MARK, encrypted_files($name)) ], [], "$name: no mark in what is encrypted");
	cmp_ok(scalar(files_with($MARK, "$backups/${name}_clear")), '>', 0, "$name: control: marks in the tablespace that is not");
	return;
}

# An incremental backup: only some pages, and none of them in the clear.
sub is_incremental
{
	my ($name, $full) = @_;
	my ($here, $all) = map { size_of(parts($_)) } $name, $full;
	my @partial = grep { m{/INCREMENTAL\.\d+} } encrypted_files($name);
	my ($pages, @plain) = plain_files(@partial);
	my ($control, @control) = plain_files(grep { m{/INCREMENTAL\.\d+} } files_below("$backups/${name}_clear"));

	cmp_ok($here, '<', $all / 2, "$name: $here bytes of relations, $all in the full backup");
	cmp_ok(scalar(@partial), '>', 10, "$name: " . @partial . ' files have only some of their pages');
	is_deeply(\@plain, [], "$name: none of them in the clear");
	cmp_ok($pages, '>', 20, "$name: of $pages");
	cmp_ok(scalar(@control), '>', 0, "$name: control: pages of the tablespace in the clear are found");
	no_mark($name);
	return;
}

backup($node, 'full');
no_mark('full');
change('second');
rotate($node);
backup($node, 'inc1', '--incremental', "$backups/full/backup_manifest");
is_incremental('inc1', 'full');

# A restart gives WAL another epoch; the summarizer goes on where it was.
$node->restart;
change('third');
$node->safe_psql('postgres', $_) foreach "CREATE DATABASE copied STRATEGY file_copy", "CREATE DATABASE logged STRATEGY wal_log TABLESPACE place";
$node->safe_psql('copied', q{CREATE TABLE t AS SELECT 'MARK_copied' || g AS x FROM generate_series(1, 1000) g});
$node->safe_psql('logged', q{CREATE TABLE t AS SELECT 'MARK_logged' || g AS x FROM generate_series(1, 1000) g});
backup($node, 'inc2', '--incremental', "$backups/inc1/backup_manifest", '-X', 'fetch');
is_incremental('inc2', 'full');
my $content = fingerprint($node, qw(postgres copied logged));

# As a tar, which holds the same.
my $tar = "$backups/tar";
command_ok(
	[
		'pg_basebackup', '-h', $node->host, '-p', $node->port, '-D', $tar, '-c', 'fast', '-N', '-F', 'tar', '--incremental',
		"$backups/inc1/backup_manifest"
	],
	'tar: pg_basebackup');
is_deeply([ files_with($MARK, grep { !m{/$clear_oid\.tar$} } files_below($tar)) ], [], 'tar: no mark in what is encrypted');
isnt(scalar files_with($MARK, "$tar/$clear_oid.tar"), 0, 'tar: control: marks in the tablespace that is not');

# ---- the summarizer -----------------------------------------------------------------------------------

# It has seen the change of a block, and only where there was one.
my $summarized = q{FROM pg_available_wal_summaries() s, pg_wal_summary_contents(s.tli, s.start_lsn, s.end_lsn) c
	WHERE relforknumber = 0 AND NOT is_limit_block AND relfilenode = pg_relation_filenode('%s')};
my $changed = $node->safe_psql('postgres', q{SELECT string_agg(DISTINCT (regexp_match(ctid::text, '\d+'))[1], ',') FROM changed_place
	WHERE x LIKE 'MARK_third%'});
is( $node->safe_psql('postgres', sprintf("SELECT count(DISTINCT relblocknumber) >= 1 AND array_agg(relblocknumber) @> '{$changed}' $summarized", 'changed_place')),
	't', "the summarizer has seen that the blocks $changed were written");
my $summaries = $node->data_dir . '/pg_wal/summaries';
my @summary = files_below($summaries);
cmp_ok(scalar(@summary), '>', 2, @summary . ' summaries');
is_deeply([ files_with($MARK, $summaries) ], [], 'summaries: no mark');
my ($filenode, $unit) = split /\|/,
  $node->safe_psql('postgres', q{SELECT pg_relation_filenode('changed_place'), oid FROM pg_tablespace WHERE spcname = 'place'});
my ($rc, $out, $err) = run_program([ 'pg_walsummary', @summary ]);
is($rc, 0, 'pg_walsummary reads them');
like($out, qr/^TS $unit, DB \d+, REL $filenode, FORK main: blocks? \d/m, 'and names the relation');

# ---- combined -----------------------------------------------------------------------------------------

sub combine
{
	my ($name, $options, @backups) = @_;
	my $to = "$backups/$name";
	my @map = map { ('-T', "$backups/$backups[-1]_$_=${to}_$_") } sort keys %place;

	command_ok([ 'pg_combinebackup', '-N', @$options, @map, '-o', $to, map { "$backups/$_" } @backups ], "$name: pg_combinebackup");
	no_mark($name);
	# The server named in its configuration is the one whose keystore opens it; nobody has made it another one yet.
	my ($rc, $out, $err) = run_program([ 'pgx_keystore', 'exec', '-D', $to, '--wal-directory', "$to/pg_wal", '--', 'pg_verifybackup', $to ],
		stdin => "$PASSPHRASE\n");
	is($rc, 0, "$name: pg_verifybackup finds it good, with its WAL") or diag("$out$err");
	return $to;
}

# A server from a backup; its keystore is a copy.
sub restored
{
	my ($name) = @_;
	my $server = PostgreSQL::Test::Cluster->new($name);

	PgxTde::prepare_node($server);
	copy_keystore($node, $server);
	rename "$backups/$name", $server->data_dir or die "could not rename: $!";
	$server->append_conf('postgresql.conf', 'port = ' . $server->port . "\nunix_socket_directories = '" . $server->host . "'");
	configure_node($server);
	return $server;
}

my @methods = ([]);
push @methods, ['--copy-file-range'] if (run_program([ 'pg_combinebackup', '--help' ]))[1] =~ /--copy-file-range/;
foreach my $options (@methods)
{
	my $name = 'combined' . join('', map { s/-//gr } @$options);

	combine($name, $options, qw(full inc1 inc2));
	my $server = restored($name);
	unlike(start_closed($server), qr/has started/, "$name: does not start without its passphrase");
	$server->start;
	is_content(fingerprint($server, qw(postgres copied logged)), $content, "$name: everything is there");
	$server->safe_psql('postgres', $_) foreach 'SELECT pgx_set_master_key()', q{CREATE TABLE after TABLESPACE place AS SELECT 'MARK_after' AS x};
	is($server->safe_psql('postgres', q{SELECT count(*) FROM changed_place WHERE x LIKE 'MARK_third%'}), '101', "$name: the newest rows");
	$server->stop;
	command_ok([ 'pg_checksums', '-c', '-D', $server->data_dir ], "$name: the checksums are right");
	is_deeply([ files_with($MARK, $server->data_dir . '/base', $server->data_dir . '/pg_wal') ], [], "$name: no mark after it has run");
}

sub start_closed
{
	my ($server) = @_;
	$server->append_conf('postgresql.conf', "pgx_tde.keystore_passphrase_command = ''");
	my $log = start_fails($server);
	$server->append_conf('postgresql.conf', "pgx_tde.keystore_passphrase_command = 'cat " . pass_file($server) . "'");
	return $log;
}

# ---- a standby ------------------------------------------------------------------------------------------

my $standby = new_standby($node, 'standby', conf => $conf);
$standby->start;
change('fourth');
rotate($node);
$node->safe_psql('postgres', 'CHECKPOINT');
caught_up($node, $standby);
# It has no summaries of what was before it was made; a full backup of its own is where it begins.
backup($standby, 'own');
change('fifth');
$node->safe_psql('postgres', 'CHECKPOINT');
caught_up($node, $standby);
$content = fingerprint($node, qw(postgres copied logged));
backup($standby, 'inc3', '--incremental', "$backups/own/backup_manifest");
is_incremental('inc3', 'own');
combine('from_standby', [], qw(own inc3));
my $server = restored('from_standby');
unlink $server->data_dir . '/standby.signal';
$server->append_conf('postgresql.conf', "primary_conninfo = ''");
$server->start;
$server->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die 'does not end its recovery';
is_content(fingerprint($server, qw(postgres copied logged)), $content, 'from_standby: everything is there');
$_->stop foreach $server, $standby, $node;

done_testing();
