# 180_whole_cluster.pl
#		Clusters that are encrypted as a whole from birth, by initdb --encrypt: what is passed
#		on, what is refused, what is on disk at any time, and what a server then does with it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PgxCommand qw(run_cmd);
use PgxPages;
use PgxTde;
use Test::More;

my $initdb = "$ENV{PGX_SHIM_DIR}/initdb";
my $dir = work_dir();
my ($rc, $out, $err);

# Our initdb, with lines for standard input.
sub initdb
{
	my ($args, $stdin) = @_;
	return run_cmd([ $initdb, @$args ], stdin => $stdin // '');
}

# ---- without --encrypt -------------------------------------------------------------------------

delete $ENV{PGDATA};
is_deeply([ initdb(['--version']) ], [ run_cmd([ 'initdb', '--version' ]) ], 'initdb --version is the real one\'s');
($rc, $out, $err) = run_cmd([ 'initdb', '--help' ]);
is_deeply([ initdb(['-?']) ], [ $rc, (initdb(['--help']))[1], $err ], 'initdb -? is initdb --help');
like((initdb(['--help']))[1], qr/\A\Q$out\E\nOptions for a cluster that is encrypted as a whole:\n.*--encrypt/s,
	'which is the real one\'s and our options');
($rc, $out, $err) = initdb([ '--frobnicate', "$dir/none" ]);
is_deeply([ $rc, $out, $err =~ s{^\S*initdb: }{initdb: }gmr ],
	[ map { s{^\S*initdb: }{initdb: }gmr } run_cmd([ 'initdb', '--frobnicate', "$dir/none" ]) ],
	'an unknown option is refused by the real one');
($rc, $out, $err) = initdb([ '-E', '--encrypt', "$dir/none" ]);
is($rc, 1, 'our option as the value of another: exit code');
like($err, qr/"--encrypt" is not a valid server encoding name/, 'and message of the real one');
($rc) = initdb([ '-N', '-A', 'trust', '--no-locale', '-U', 'owner', "$dir/plain" ]);
is($rc, 0, 'an initdb without our options');
ok(-f "$dir/plain/PG_VERSION" && !-e "$dir/plain/pgx_tde", 'makes a plain cluster');
my ($pages, @plain) = plain_files(relation_files("$dir/plain"));
cmp_ok(scalar(@plain), '>', 100, 'control: its ' . @plain . ' files are found to be plain');
cmp_ok(scalar(my ($n, @w) = plain_wal("$dir/plain/pg_wal")), '>', 1, 'control: and so is its WAL');

# ---- bad usage: nothing is made ------------------------------------------------------------------

sub refused
{
	my ($name, $args, $stdin, $code, @messages) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($status, undef, $text) = initdb([ '-N', @$args ], $stdin);

	is($status, $code, "$name: exit code");
	like($text, $_, "$name: message") foreach @messages;
	ok(!-e "$dir/data", "$name: no data directory");
	ok(!-e "$dir/ks", "$name: no keystore");
	return;
}
my @place = ("--keystore-location=$dir/ks", '--keystore-passphrase');
refused('unknown algorithm', [ '--encrypt=AES512', @place, "$dir/data" ],
	"$PASSPHRASE\n", 1, qr/error: invalid value "AES512" for option --encrypt: use AES128 or AES256/, qr/--help/);
refused('none', [ '--encrypt=none', @place, "$dir/data" ], "$PASSPHRASE\n", 1, qr/invalid value "none"/);
refused('no --encrypt', [ @place, "$dir/data" ],
	'', 1, qr/error: options --keystore-location and --keystore-passphrase need --encrypt/);
refused('no location', [ '--encrypt', "$dir/data" ], '', 1, qr/error: option --encrypt needs --keystore-location/);
refused('with --sync-only', [ '--encrypt', '-S', @place, "$dir/data" ],
	'', 1, qr/error: option --encrypt cannot be used with an option that makes no cluster/);
refused('with an unknown option', [ '--encrypt', '--frobnicate', @place, "$dir/data" ],
	'', 1, qr/that is not known or abbreviated/);
refused('no keystore', [ '--encrypt', "--keystore-location=$dir/ks", "$dir/data" ],
	'', 1, qr{error: keystore "\Q$dir\E/ks/keystore\.ks" does not exist}, qr/hint: .*--keystore-passphrase/);
refused('no data directory', [ '--encrypt', @place ], '', 1, qr/no data directory specified/);
refused('location in the data directory',
	[ '--encrypt', "--keystore-location=$dir/data/ks", '--keystore-passphrase', "$dir/data" ],
	"$PASSPHRASE\n", 1, qr/error: keystore directory "[^"]+" is inside the data directory/, qr/hint: Keep the keystore apart/);
refused('location in another data directory',
	[ '--encrypt', "--keystore-location=$dir/plain/ks", '--keystore-passphrase', "$dir/data" ],
	"$PASSPHRASE\n", 1, qr/error: .*inside/);
refused('short passphrase', [ '--encrypt', @place, "$dir/data" ], "short\n", 1, qr/between 8 and 200 bytes/);
refused('no passphrase', [ '--encrypt', @place, "$dir/data" ], '', 1, qr/error: could not read the passphrase/);
refused('what the real one refuses', [ '--encrypt', @place, '--wal-segsize=3', "$dir/data" ],
	"$PASSPHRASE\n", 1, qr/--wal-segsize.*power of (?:2|two)/);
{
	mkdir "$dir/full";
	write_file("$dir/full/file", 'content');
	($rc, $out, $err) = initdb([ '-N', '--encrypt', @place, "$dir/full" ], "$PASSPHRASE\n");
	is($rc, 1, 'data directory not empty: exit code');
	like($err, qr/exists but is not empty/, 'message');
	is_deeply([ sort(slurp_dir("$dir/full")) ], [ '.', '..', 'file' ], 'and the file is still there');
	ok(!-e "$dir/ks", 'and no keystore');
}

# ---- failure after the real initdb: all that was made goes, or stays if asked ----------------------

{
	mkdir "$dir/locked", 0500;
	my @args = ('-N', '--encrypt', "--keystore-location=$dir/locked/ks", '--keystore-passphrase');
	($rc, $out, $err) = initdb([ @args, '-X', "$dir/wal", "$dir/data" ], "$PASSPHRASE\n");
	is($rc, 1, 'no place for the keystore: exit code');
	like($err, qr{error: could not create directory "\Q$dir\E/locked/ks": Permission denied}, 'message');
	ok(!-e "$dir/data" && !-e "$dir/wal", 'the cluster is removed');
	mkdir "$dir/data";
	($rc) = initdb([ @args, "$dir/data" ], "$PASSPHRASE\n");
	is($rc, 1, 'the same in a directory that was there: exit code');
	is_deeply([ sort(slurp_dir("$dir/data")) ], [ '.', '..' ], 'the directory stays, empty');
	($rc, $out, $err) = initdb([ '--no-clean', @args, "$dir/data" ], "$PASSPHRASE\n");
	is($rc, 1, 'the same with --no-clean: exit code');
	like($err, qr/warning: the unfinished cluster in "\Q$dir\E\/data" and its keystore are not removed at user's request/,
		'message');
	ok(-e "$dir/data/PG_VERSION", 'the cluster stays');
	system_or_bail('rm', '-rf', "$dir/data");
}

# ---- options reach the real one; every page is encrypted before the first start ---------------------

($rc, $out, $err) = initdb(
	[
		'-N', '--encrypt=AES128', '-D', "$dir/data", @place, '-U', 'owner', '-A', 'trust', '-E', 'LATIN1',
		'--locale=C', '-k', '-g', '--wal-segsize', '2', '-X', "$dir/wal"
	],
	"$PASSPHRASE\n");
is($rc, 0, 'an encrypted cluster with many options');
like($out, qr/^the data directory has been encrypted$/m, 'is encrypted');
like($out, qr/pg_ctl -D \Q$dir\E\/data -l logfile --keystore-passphrase start\n\nThe keystore is "\Q$dir\E\/ks\/keystore\.ks"/,
	'and says how to start it');
unlike("$out$err", qr/\Q$PASSPHRASE\E/, 'and not the passphrase');
is(sprintf('%o', (stat "$dir/data")[2] & 07777), '750', 'group access');
is(readlink "$dir/data/pg_wal", "$dir/wal", '-X');
is(slurp_raw("$dir/data/PG_VERSION"), slurp_raw("$dir/plain/PG_VERSION"), 'files that are not relations are plain');
my ($status, $control) = run_program([ 'pg_controldata', "$dir/data" ]);
like($control, qr/^Bytes per WAL segment: +2097152$/m, '--wal-segsize');
like($control, qr/^Data page checksum version: +[1-9]$/m, '-k');
is_all_encrypted("$dir/data", 'before the first start');
is_deeply([ files_with({ catalog => 'pg_read_all_settings' }, "$dir/data/base", "$dir/data/global", "$dir/wal") ],
	[], 'no name of the catalogs');
isnt(scalar files_with({ catalog => 'pg_read_all_settings' }, "$dir/plain/base", "$dir/plain/global"),
	0, 'control: which is in a plain cluster');
($rc, $out) = run_program([ 'pg_checksums', '--check', "$dir/data" ]);
like("$rc$out", qr/\A0.*^Bad checksums: +0$/ms, 'pg_checksums');
is(sprintf('%o', (stat "$dir/ks")[2] & 07777), '700', 'mode of the keystore\'s directory');

# A second cluster with the same keystore: its passphrase is asked for, a wrong one makes nothing.
($rc, $out, $err) = initdb([ '-N', '--encrypt', @place, "$dir/second" ], "not the passphrase\n");
is($rc, 2, 'a wrong passphrase: exit code');
like($err, qr/passphrase is wrong/, 'message');
ok(!-e "$dir/second", 'and no cluster');
write_file("$dir/pass", "$PASSPHRASE\n");
my $keystore = slurp_raw("$dir/ks/keystore.ks");
($rc, $out, $err) = initdb(
	[ '-N', '-D', "$dir/second", '--encrypt', '--keystore-location', "$dir/ks", '--keystore-passphrase-file', "$dir/pass" ]);
is($rc, 0, 'the right one from a file');
is(slurp_raw("$dir/ks/keystore.ks"), $keystore, 'the keystore is used as it is');
is_all_encrypted("$dir/second", 'the second cluster');
isnt(slurp_raw("$dir/second/pgx_tde/keys"), slurp_raw("$dir/data/pgx_tde/keys"), 'with keys of its own');
system_or_bail('rm', '-rf', "$dir/second", "$dir/plain");

# ---- a server ------------------------------------------------------------------------------------------

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
my $data = $node->data_dir;
is_all_encrypted($data, 'made by a test as others are');
like(start_fails($node, '-o', '-c shared_preload_libraries='), qr/could not locate a valid checkpoint record/,
	'no start without the module');
like(start_fails($node), qr/FATAL:  could not (?:encrypt or decrypt data|decrypt WAL) because the keystore is not open/,
	'nor with the keystore closed');
is((shim_start($node, $PASSPHRASE))[0], 0, 'but by pg_ctl --keystore-passphrase');
$node->_update_pid(1);
$node->stop;
configure_node($node, conf => "wal_keep_size = '1GB'\nautovacuum = off\nallow_in_place_tablespaces = on\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pgx_tde');
is( $node->safe_psql('postgres', q{
		SELECT string_agg(spcname || ' ' || spcencalgo, ', ' ORDER BY 1)
		FROM pgx_tablespaces JOIN pg_tablespace ON oid = spctablespace}),
	'pg_default AES256, pg_global AES256', 'the view says it');
is(status_of($node, 'status, wal_encryption'), 'open|t', 'and the status');

# Marks where nothing can be encrypted but as part of the whole: catalogs, shared catalogs, statistics.
$node->safe_psql('postgres', q{
	CREATE TABLE mark_table (id int PRIMARY KEY, "MARK_column" text);
	INSERT INTO mark_table SELECT g, 'MARK_row' || g FROM generate_series(1, 20000) g;
	CREATE INDEX ON mark_table ("MARK_column");
	COMMENT ON DATABASE postgres IS 'MARK_shared comment';
	CREATE ROLE "MARK_role" PASSWORD 'MARK_password';
	CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$ SELECT 'MARK_function'::text $$;
	CREATE UNLOGGED TABLE u AS SELECT 'MARK_unlogged' || g AS x FROM generate_series(1, 1000) g;
	ANALYZE mark_table});
foreach my $alg (qw(none AES128 AES256))
{
	my $place = tablespace_dir($node, lc $alg);
	$node->safe_psql('postgres', "CREATE TABLESPACE ts_\L$alg\E LOCATION '$place'
		WITH (tablespace_encryption_algorithm = '$alg')");
}
foreach my $strategy (qw(wal_log file_copy))
{
	$node->safe_psql('postgres', "CREATE DATABASE db_$strategy TEMPLATE postgres STRATEGY $strategy");
}

# From encrypted to encrypted by another key, to plain, and back.
my @moves = ([ 'db_wal_log', 'ts_aes128' ], [ 'db_wal_log', 'pg_default' ], [ 'db_wal_log', 'ts_none' ],
	[ 'db_wal_log', 'ts_aes256' ], [ 'db_file_copy', 'ts_none' ], [ 'db_file_copy', 'pg_default' ]);
my $want = fingerprint($node, 'postgres') =~ s/^\w+\.//gmr;
foreach my $move (@moves)
{
	my ($db, $to) = @$move;
	$node->safe_psql('postgres', "ALTER DATABASE $db SET TABLESPACE $to");
	$node->safe_psql($db, 'CHECKPOINT');
	is_content(fingerprint($node, $db) =~ s/^\w+\.//gmr, $want, "$db moved to $to");
	my ($seen, @clear) = plain_files(relation_files($data));
	$to eq 'ts_none'
	  ? cmp_ok(scalar(@clear), '>', 50, 'control: there its files are plain')
	  : is_deeply(\@clear, [], 'no page in the clear');
}
is( $node->safe_psql('db_file_copy', 'SET enable_seqscan = off; SELECT f() || id FROM mark_table WHERE "MARK_column" = \'MARK_row77\''),
	'MARK_function77', 'catalog and index of a copied and moved database');
$node->safe_psql('postgres', 'DROP TABLESPACE ts_none');
finish_segment($node);

sub no_marks
{
	my ($name, @dirs) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is_deeply([ files_with({ mark => 'MARK_' }, @dirs) ], [], "$name: no mark in any file");
}
my $known = fingerprint($node, 'postgres', 'db_wal_log', 'db_file_copy');
$node->safe_psql('postgres', 'CHECKPOINT');
no_marks('running', $data, $node->archive_dir, map { tablespace_dir($node, $_) } qw(aes128 aes256));
$node->stop('immediate');
no_marks('after a crash', $data);
$node->start;
is_content(fingerprint($node, 'postgres', 'db_wal_log', 'db_file_copy'), $known, 'content after a crash');
is($node->safe_psql('postgres', 'SELECT count(*) FROM u'), '0', 'the unlogged table is empty, from its encrypted init fork');

# ---- a standby by the stock pg_basebackup --------------------------------------------------------------------

my $standby = new_standby($node, 'standby');
is_all_encrypted($standby->data_dir, 'the base backup');
no_marks('the base backup', $standby->data_dir);
$standby->start;
rotate($node);
$node->safe_psql('postgres', q{INSERT INTO mark_table SELECT g, 'MARK_late' || g FROM generate_series(30001, 31000) g;
	CREATE DATABASE late TEMPLATE db_file_copy});
caught_up($node, $standby);
same_content($node, $standby, [qw(postgres db_wal_log db_file_copy late)], 'the standby follows');
my $last = finish_segment($node);
caught_up($node, $standby);
my ($same, @different) = same_wal("$data/pg_wal", $standby->data_dir . '/pg_wal', $last);
is("@different", '', 'WAL is the same, byte for byte');
cmp_ok($same, '>', 0, "$same segments were compared");
$node->stop('immediate');
$standby->promote;
$standby->safe_psql('postgres', q{INSERT INTO mark_table VALUES (0, 'MARK_promoted'); CHECKPOINT});
is($standby->safe_psql('late', 'SELECT count(*) FROM mark_table'), '20000', 'promoted');
no_marks('promoted', $standby->data_dir);
$standby->stop;
is_all_encrypted($standby->data_dir, 'promoted');
($rc, $out) = run_program([ 'pg_checksums', '--check', $standby->data_dir ]);
like("$rc$out", qr/\A0.*^Bad checksums: +0$/ms, 'pg_checksums of the promoted one');

# ---- and the command says the same -------------------------------------------------------------------------------

($rc, $out, $err) = run_program([ 'pgx_encrypt', '--check', '-D', $standby->data_dir, '--passphrase-file', pass_file($standby) ]);
is($rc, 0, 'pgx_encrypt --check');
like($out, qr/^pg_default: AES256; files: \d+ encrypted, 0 plain, 0 mixed, 0 damaged, \d+ empty$/m, 'pg_default');
like($out, qr/^everything is encrypted$/m, 'and everything');

done_testing();
