# 130_stock_tools.pl
#		The distribution's tools on an encrypted server, with no option that they would not
#		have on a plain one: what they make is right, and what they store is ciphertext.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PgxTde;
use Test::More;

my $MARK = { mark => 'MARK_' };
my ($rc, $out, $err);

my $primary = new_primary(
	'primary',
	streaming => 'logical',
	archive => 1,
	checksums => 1,
	conf => "wal_keep_size = '1GB'\nautovacuum = off\nmax_parallel_workers_per_gather = 0");
my $dir = tablespace_dir($primary, 'enc');
my $wal = $primary->data_dir . '/pg_wal';
my @connection = ('-h', $primary->host, '-p', $primary->port);

$primary->safe_psql('postgres',
	"CREATE TABLESPACE enc LOCATION '$dir' WITH (tablespace_encryption_algorithm = 'AES256')");
$primary->safe_psql('postgres', 'CREATE DATABASE e TABLESPACE enc');
$primary->safe_psql('e', q{
	CREATE EXTENSION amcheck;
	CREATE TABLE t (id int PRIMARY KEY, x text);
	INSERT INTO t SELECT g, 'MARK_row' || g FROM generate_series(1, 50000) g;
	CREATE INDEX ON t (x);
	CREATE TABLE toasted AS
		SELECT g AS id, 'MARK_toast' || (SELECT string_agg(md5(g || '.' || h), '') FROM generate_series(1, 300) h) AS x
		FROM generate_series(1, 100) g;
	CREATE SEQUENCE s;
	SELECT nextval('s');
	CREATE MATERIALIZED VIEW m AS SELECT id % 100 AS n, count(*) FROM t GROUP BY 1;
	UPDATE t SET x = 'MARK_changed' || id WHERE id % 7 = 0;
	DELETE FROM t WHERE id % 11 = 0;
	REFRESH MATERIALIZED VIEW m});
$primary->safe_psql('postgres',
	q{CREATE TABLE plain AS SELECT g, 'MARK_plain' || g AS x FROM generate_series(1, 100) g});
my $known = fingerprint($primary, 'e');

sub wait_for
{
	my ($what, $condition) = @_;
	wait_until($condition) or die "waited in vain for $what";
	return;
}

# pg_checksums on a stopped server; at least as many blocks as that.
sub checksums_pass
{
	my ($node, $least, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($status, $text) = run_program([ 'pg_checksums', '--check', '-D', $node->data_dir ]);
	ok($status == 0 && $text =~ /^Bad checksums: +0$/m, "$name: pg_checksums");
	my ($blocks) = $text =~ /^Blocks scanned: +(\d+)$/m;
	cmp_ok($blocks // 0, '>', $least, "$name: pg_checksums has scanned the tablespace too");
	return;
}

# ---- the search below can find something -----------------------------------------------------

$primary->safe_psql('postgres', 'CHECKPOINT');
my $plain_file = $primary->data_dir . '/' . $primary->safe_psql('postgres', q{SELECT pg_relation_filepath('plain')});
is_deeply([ files_with($MARK, $plain_file) ], ["$plain_file: mark"], 'control: the mark is in a plain file');
is_deeply([ files_with($MARK, $dir, $wal) ], [], 'and in no file of the encrypted tablespace or the WAL');

# ---- pg_checksums, pg_amcheck, pg_prewarm -------------------------------------------------------

my $blocks = $primary->safe_psql('e', q{SELECT pg_database_size('e') / 8192 - 20});
$primary->stop;
checksums_pass($primary, $blocks, 'the primary');
$primary->start;

# From disk: nothing is in shared buffers but what the start needs.
my @amcheck = ('pg_amcheck', @connection, '--heapallindexed', '--rootdescend', '--progress');
($rc, $out, $err) = run_program([ @amcheck, 'e' ]);
is($rc, 0, 'pg_amcheck');
is($out, '', 'it has found nothing');
like($err, qr{(\d+)/\1 relations \(100%\), (?!0/)(\d+)/\2 pages}, 'and has seen every page');

SKIP:
{
	skip 'pg_prewarm is not installed', 4
	  if $primary->safe_psql('e', q{SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_prewarm'}) eq '0';
	$primary->safe_psql('e', 'CREATE EXTENSION pg_prewarm');
	$primary->restart;
	foreach my $mode (qw(prefetch read buffer))
	{
		is($primary->safe_psql('e', "SELECT pg_prewarm('t', '$mode') = pg_relation_size('t') / 8192"),
			't', "pg_prewarm: $mode");
	}
	is_content(fingerprint($primary, 'e'), $known, 'content after pg_prewarm');
}

# ---- pg_basebackup and pg_verifybackup ------------------------------------------------------------

# A backup as an administrator would take and restore it.
sub restored
{
	my ($format, $method) = @_;
	my $name = "${format}_$method";
	my $node = PostgreSQL::Test::Cluster->new($name);
	my $to = tablespace_dir($node, 'enc');
	my $data = $node->data_dir;
	my $oid = $primary->safe_psql('postgres', q{SELECT oid FROM pg_tablespace WHERE spcname = 'enc'});

	PgxTde::prepare_node($node);
	copy_keystore($primary, $node);
	if ($format eq 'plain')
	{
		command_ok([ 'pg_basebackup', @connection, '-D', $data, '-X', $method, '-T', "$dir=$to" ],
			"$name: pg_basebackup");
	}
	else
	{
		my $tar = work_dir() . "/$name";
		command_ok([ 'pg_basebackup', @connection, '-D', $tar, '-X', $method, '-F', 'tar' ], "$name: pg_basebackup");
		is_deeply([ files_with({ mark => 'MARK_row' }, $tar) ], [], "$name: no mark in the archives");
		isnt(scalar files_with({ mark => 'MARK_plain' }, "$tar/base.tar"), 0, "$name: but that of the plain table");
		mkdir $data, 0700;
		system_or_bail('tar', '-xf', "$tar/base.tar", '-C', $data);
		system_or_bail('tar', '-xf', "$tar/pg_wal.tar", '-C', "$data/pg_wal") if -e "$tar/pg_wal.tar";
		system_or_bail('tar', '-xf', "$tar/$oid.tar", '-C', $to);
		system_or_bail('cp', "$tar/backup_manifest", $data);
		symlink $to, "$data/pg_tblspc/$oid" or die "could not make a link: $!";
	}
	command_like([ 'pg_verifybackup', '-n', $data ], qr/^backup successfully verified$/m, "$name: pg_verifybackup");
	# Read at the start, which makes the link anew.
	write_file("$data/tablespace_map", "$oid $to\n") if $format eq 'tar';

	is_deeply([ files_with($MARK, "$data/pg_wal", $to) ], [], "$name: no mark in tablespace and WAL");
	cmp_ok(scalar(files_below("$data/pg_wal")), '>', 0, "$name: there is WAL");
	mkdir $node->archive_dir;
	$node->append_conf('postgresql.conf',
		'port = ' . $node->port . "\nunix_socket_directories = '" . $node->host . "'\narchive_mode = off");
	return ($node, $to);
}

my %ways = (plain_stream => 'command', plain_fetch => 'none', tar_stream => 'none', tar_fetch => 'command');
foreach my $name (sort keys %ways)
{
	my ($node, $to) = restored(split /_/, $name);
	configure_node($node, open => $ways{$name});
	if ($ways{$name} eq 'command')
	{
		$node->start;
	}
	else
	{
		($rc) = shim_start($node, $PASSPHRASE);
		is($rc, 0, "$name: started with the passphrase");
	}
	is_content(fingerprint($node, 'e'), $known, "$name: content");
	($rc, $out) = run_program(
		[ 'pg_amcheck', '-h', $node->host, '-p', $node->port, '--heapallindexed', 'e' ]);
	is("$rc$out", '0', "$name: pg_amcheck");
	$node->stop;
	checksums_pass($node, $blocks, $name);
	next if $name ne 'tar_fetch';

	# The two checks see damage in an encrypted file, so their silence means something.
	my ($file) = grep { m{/\d+$} && -s $_ > 1_000_000 } sort(files_below($to));
	my $content = slurp_raw($file);
	substr($content, 8192 * 5 + 4000, 1) ^= "\x01";
	write_file($file, $content);
	($rc, $out) = run_program([ 'pg_checksums', '--check', '-D', $node->data_dir ]);
	is($rc, 1, 'control: pg_checksums finds a changed bit');
	like($out, qr/^Bad checksums: +1$/m, 'control: in one page');
	($rc, $out, $err) = run_program([ 'pg_verifybackup', '-n', $node->data_dir ]);
	like($err, qr/checksum mismatch/, 'control: pg_verifybackup finds it too');
}

# ---- pg_dump and pg_restore --------------------------------------------------------------------------

my $dump = work_dir() . '/dump';
command_ok([ 'pg_dump', @connection, '-Fc', '-f', "$dump.custom", 'e' ], 'pg_dump, custom format');
command_ok([ 'pg_dump', @connection, '-f', "$dump.sql", 'e' ], 'pg_dump, plain format');
is_deeply([ files_with($MARK, "$dump.sql") ], ["$dump.sql: mark"], 'control: a dump is plaintext, as documented');
$primary->safe_psql('postgres', "CREATE DATABASE $_") foreach qw(from_custom from_sql);
command_ok([ 'pg_restore', @connection, '-d', 'from_custom', "$dump.custom" ], 'pg_restore into a plain database');
command_ok(
	[
		'psql', @connection, '-XqAt', '-v', 'ON_ERROR_STOP=1', '-o', "$dump.out", '-d', 'from_sql', '-f',
		"$dump.sql"
	],
	'psql into a plain database');
foreach my $db (qw(from_custom from_sql))
{
	(my $got = fingerprint($primary, $db)) =~ s/^$db\./e./mg;
	is_content($got, $known, "$db: content");
}

# ---- pg_receivewal ------------------------------------------------------------------------------------

my $received = work_dir() . '/received';
mkdir $received, 0700;
{
	# Its name, which the query below asks for, must not be that of this test.
	local %ENV = $primary->_get_env(PGAPPNAME => undef);
	my $receiver = IPC::Run::start([ 'pg_receivewal', '-D', $received, @connection ]);
	$primary->poll_query_until('postgres',
		q{SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = 'pg_receivewal'})
	  or die 'pg_receivewal does not stream';
	my $last;
	foreach my $round (1 .. 3)
	{
		$primary->safe_psql('e', "CREATE TABLE received$round AS
			SELECT g, 'MARK_received' || g AS x FROM generate_series(1, 40000) g");
		rotate($primary) if $round == 2;
		$last = finish_segment($primary);
	}
	wait_for('pg_receivewal', sub { -e "$received/$last" });
	$receiver->signal('INT');
	$receiver->finish;
	is($?, 0, 'pg_receivewal ends well');
	my ($same, @different) = same_wal($wal, $received, $last);
	is("@different", '', 'segments of pg_receivewal are those of the server');
	cmp_ok($same, '>=', 3, "$same of them were compared");
	is_deeply([ files_with($MARK, $received) ], [], 'no mark in them');
}

# ---- pg_recvlogical -------------------------------------------------------------------------------------

# Changes of one transaction, of which the walsender keeps no more than 64 kB in memory if told so.  A reader
# that does not read holds it in the middle, where its spill files can be looked at.
sub decoded
{
	my ($slot, $table, $small) = @_;
	my $name = $small ? 'spilling' : 'in memory';
	local %ENV = $primary->_get_env(PGAPPNAME => undef);
	$ENV{PGOPTIONS} = '-c logical_decoding_work_mem=64kB' if $small;

	$primary->safe_psql('e', "CREATE TABLE $table (id int, x text)");
	command_ok([ 'pg_recvlogical', @connection, '-d', 'e', '-S', $slot, '-P', 'test_decoding', '--create-slot' ],
		"$name: slot");
	# One segment of WAL, so one spill file; it is complete before the first change arrives.
	$primary->safe_psql('e', "SELECT pg_switch_wal();
		INSERT INTO $table SELECT g, 'MARK_$table' || g || repeat('.', 100) FROM generate_series(1, 30000) g");
	my $end = $primary->safe_psql('e', 'SELECT pg_current_wal_flush_lsn()');
	pipe(my $reader, my $writer) or die "could not make a pipe: $!";
	my $client = IPC::Run::start(
		[
			'pg_recvlogical', @connection, '-d', 'e', '-S', $slot, '--start', '--no-loop', '--endpos', $end,
			'-f', '-'
		],
		'>', $writer);
	close $writer;
	if ($small)
	{
		sysread $reader, my $first, 1;
		my @spilled = grep { /\.spill$/ } files_below($primary->data_dir . "/pg_replslot/$slot");
		my $size = 0;
		$size += -s $_ foreach @spilled;
		cmp_ok($size, '>', 1_000_000, "$name: " . @spilled . " files hold $size bytes");
		is_deeply([ files_with($MARK, @spilled) ], [], "$name: no mark in them");
		local $/;
		$out = $first . <$reader>;
	}
	else
	{
		local $/;
		$out = <$reader>;
	}
	$client->finish;
	is($?, 0, "$name: pg_recvlogical");
	my $rows = () = $out =~ /^table public\.$table: INSERT: id\[integer\]:\d+ x\[text\]:'MARK_$table\d+\.{100}'$/mg;
	is($rows, 30000, "$name: every row, as plaintext");
	is_deeply([ files_with($MARK, $wal) ], [], "$name: no mark in WAL");
	command_ok([ 'pg_recvlogical', @connection, '-d', 'e', '-S', $slot, '--drop-slot' ], "$name: slot dropped");
	return;
}
decoded('slot_memory', 'in_memory', 0);
decoded('slot_spill', 'spilled', 1);

# ---- temporary files of a sort -----------------------------------------------------------------------------

foreach my $case ([ 'e', $dir ], [ 'from_sql', $primary->data_dir . '/base' ])
{
	my ($db, $where) = @$case;
	my $session = $primary->background_psql($db);
	$session->query_safe(qq{
		SET work_mem = '64kB'; SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off;
		BEGIN; DECLARE c CURSOR FOR SELECT x FROM t ORDER BY x, id});
	my $row = $session->query_safe('FETCH 1 FROM c');
	like($row, qr/^MARK_changed/, "$db: sorted");
	my @files = grep { m{/pgsql_tmp/} && -s $_ } files_below($where);
	cmp_ok(scalar(@files), '>', 0, "$db: there are temporary files: " . @files);
	is_deeply([ files_with($MARK, @files) ], [], "$db: no mark in them");
	my $rest = $session->query_safe('MOVE ALL FROM c; CLOSE c; COMMIT; SELECT count(*) FROM t');
	like($rest, qr/^\d+$/m, "$db: and the sort ends");
	$session->quit;
}

# ---- and after all of that ------------------------------------------------------------------------------------

($rc, $out) = run_program([ @amcheck, 'e' ]);
is("$rc$out", '0', 'pg_amcheck at the end');
($rc, $out) = run_program([ 'vacuumdb', @connection, '-z', 'e' ]);
is($rc, 0, 'vacuumdb');
($rc, $out) = run_program([ 'reindexdb', @connection, 'e' ]);
is($rc, 0, 'reindexdb');
($rc, $out) = run_program([ @amcheck, 'e' ]);
is("$rc$out", '0', 'pg_amcheck after both');
$primary->stop;
checksums_pass($primary, $blocks, 'the primary at the end');
is_deeply([ files_with($MARK, $dir, $wal, $primary->archive_dir) ],
	[], 'no mark in tablespace, WAL and archive at the end');

done_testing();
