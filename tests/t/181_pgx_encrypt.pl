# 181_pgx_encrypt.pl
#		An existing cluster, with all kinds of things in it, is encrypted in place, checked, used,
#		and decrypted again; before each step everything that must be refused is.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use Cwd qw(abs_path);
use File::Basename;
use File::Copy;
use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PgxCommand qw(run_cmd);
use PgxPages;
use PgxTde;
use Test::More;

my ($rc, $out, $err);

# pgx_encrypt on a data directory, the passphrase from standard input.
sub pgx_encrypt
{
	my ($data, $args, $stdin) = @_;
	return run_cmd([ 'pgx_encrypt', '-D', $data, @$args ], stdin => $stdin // "$PASSPHRASE\n");
}

sub refused
{
	my ($name, $data, $args, $code, @messages) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $stdin = ref $args eq 'HASH' ? $args->{stdin} : undef;
	my ($status, $text, $error) = pgx_encrypt($data, ref $args eq 'HASH' ? $args->{args} : $args, $stdin);

	is($status, $code, "$name: exit code");
	is($text, '', "$name: no result");
	like($error, $_, "$name: message") foreach @messages;
	unlike($error, qr/\Q$PASSPHRASE\E/, "$name: nothing secret");
	return;
}

sub checksums
{
	my ($node, $bad, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my (undef, $text) = run_program([ 'pg_checksums', '--check', '-D', $node->data_dir ]);
	return like($text, qr/^Bad checksums: +$bad$/m, "$name: pg_checksums");
}

# The report of --check --json, which has to say in one word what the exit code says.
sub json_report
{
	my ($data, $code, $name, $stdin) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($status, $text, $error) = pgx_encrypt($data, [ '--check', '--json' ], $stdin);

	is("$status $error", "$code ", "--check --json, $name: exit code and no complaint");
	my $report = decode_json($text);
	is($report->{encrypted} ? 0 : 1, $code, 'the report agrees');
	return $report;
}

# ---- bad usage -------------------------------------------------------------------------------------

foreach my $case (
	[ [ '-D', 'x', '--check', '--decrypt' ], qr/error: options --check and --decrypt cannot be used together/ ],
	[ [ '-D', 'x', '--check', '--algorithm=AES128' ], qr/error: option --algorithm can be used for encrypting only/ ],
	[ [ '-D', 'x', '--json' ], qr/error: option --json can be used with --check only/ ],
	[ [ '-D', 'x', '--algorithm=ROT13' ], qr/error: invalid value "ROT13" for option --algorithm\n.*"AES128" and "AES256"/ ],
	[ [ '-D', 'x', '--jobs=0' ], qr/error: .*--jobs/ ],
	[ [ '-D', 'x', '--jobs=1000' ], qr/error: .*--jobs/ ],
	[ [ '-D', 'x', 'y' ], qr/error: too many command-line arguments \(first is "y"\)/ ],
	[ ['--frobnicate'], qr/unrecognized option '--frobnicate'/ ],
	[ [ '-D', '/nonexistent/data' ], qr{error: could not access directory "/nonexistent/data": No such file} ],
	[ [], qr/error: no data directory specified/ ])
{
	my ($args, $message) = @$case;
	($rc, $out, $err) = run_cmd([ 'pgx_encrypt', @$args ], env => { PGDATA => undef });
	is($rc, 1, "pgx_encrypt @$args: exit code");
	like($err, $message, 'message');
}
refused('not a data directory', work_dir(), [], 1, qr/error: "[^"]+" is not a data directory of PostgreSQL/);

# ---- a plain cluster -----------------------------------------------------------------------------------

my $node = PostgreSQL::Test::Cluster->new('primary');
PgxTde::prepare_node($node);
mkdir keystore_dir($node), 0700;
$node->init(allows_streaming => 'logical', has_archiving => 1, extra => [ '-k', '--no-locale', '-E', 'UTF8' ]);
$node->append_conf('postgresql.conf', "autovacuum = off\nmax_prepared_transactions = 5\nallow_in_place_tablespaces = on\n");
$node->start;
my $data = $node->data_dir;
my $place = tablespace_dir($node, 'place');
$node->safe_psql('postgres', $_)
  foreach "CREATE TABLESPACE place LOCATION '$place'", q{CREATE TABLESPACE inplace LOCATION ''}, 'CREATE DATABASE other';
$node->safe_psql('postgres', q{
	CREATE EXTENSION amcheck;
	CREATE TABLE t (id int PRIMARY KEY, x text);
	INSERT INTO t SELECT g, 'MARK_row' || g FROM generate_series(1, 20000) g;
	CREATE INDEX ON t (x);
	CREATE TABLE toasted AS SELECT g AS id, (SELECT string_agg('MARK_toast' || md5(g || '.' || h), '') FROM generate_series(1, 200) h) AS x
		FROM generate_series(1, 50) g;
	CREATE TABLE elsewhere TABLESPACE place AS SELECT g, 'MARK_elsewhere' || g AS x FROM generate_series(1, 3000) g;
	CREATE INDEX ON elsewhere (x) TABLESPACE inplace;
	CREATE UNLOGGED TABLE u AS SELECT g, 'MARK_unlogged' || g AS x FROM generate_series(1, 1000) g;
	CREATE TABLE empty (id int PRIMARY KEY);
	CREATE TABLE damaged AS SELECT g, 'MARK_damaged' || g AS x FROM generate_series(1, 1000) g;
	CREATE SEQUENCE s;
	SELECT nextval('s');
	DELETE FROM t WHERE id % 17 = 0;
	VACUUM t});
$node->safe_psql('other', q{CREATE TABLE t AS SELECT g, 'MARK_other' || g AS x FROM generate_series(1, 2000) g});

# Whoever needs WAL from before: a slot, and a transaction that is prepared.
$node->safe_psql('postgres', q{
	SELECT pg_create_logical_replication_slot('logical', 'test_decoding');
	SELECT pg_create_physical_replication_slot('physical', true)});
$node->safe_psql('postgres', q{INSERT INTO t SELECT g, 'MARK_decoded' || g FROM generate_series(100001, 100100) g});
$node->safe_psql('postgres', q{BEGIN; INSERT INTO t VALUES (0, 'MARK_prepared'); PREPARE TRANSACTION 'p'});
my $known = fingerprint($node, 'postgres', 'other');
my $damaged = $node->safe_psql('postgres', q{SELECT pg_relation_filepath('damaged')});

($rc, $out, $err) = pgx_encrypt($data, ['--check'], '');
is($rc, 1, '--check while the server runs: exit code');
is($err, '', 'no complaint');
like($out, qr/^pg_default: none; files: 0 encrypted, [1-9]\d* plain, 0 mixed, 0 damaged, \d+ empty$/m, 'and a report');
refused('while the server runs', $data, [], 1,
	qr/error: a server is running in data directory "\Q$data\E" \(PID \d+\)\n.*pg_ctl -D \Q$data\E stop/);
$node->stop('immediate');
refused('after a crash', $data, [], 1, qr/error: the server in "\Q$data\E" was not shut down cleanly/, qr/hint: Start it, and stop it/);
$node->start;
# Which the crash has emptied.
$node->safe_psql('postgres', q{INSERT INTO u SELECT g, 'MARK_unlogged' || g FROM generate_series(1, 1000) g});
my $next = $node->safe_psql('postgres', q{SELECT nextval('s')}) + 1;
$node->stop;
refused('not configured', $data, [], 1, qr/error: the server in "\Q$data\E" does not load pgx_tde/,
	qr/hint: Add pgx_tde to shared_preload_libraries/);
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'pgx_tde'");
refused('no location', $data, [], 1, qr/error: keystore location is not configured\n.*hint: Specify pgx_tde\.keystore_location/);
configure_node($node);
refused('no keystore', $data, [], 1, qr{error: keystore "[^"]+/keystore\.ks" does not exist}, qr/hint: Create it with "pgx_keystore create/);
create_keystore($node, $PASSPHRASE);
refused('wrong passphrase', $data, { args => [], stdin => "certainly another one\n" }, 2, qr/error: .*passphrase is wrong/);
refused('no passphrase', $data, { args => [], stdin => '' }, 1, qr/error: could not read the passphrase/);
refused('unknown tablespace', $data, ['--tablespace=place'], 1, qr/error: tablespace "place" does not exist/,
	qr/hint: Give "pg_default", "pg_global", the tablespace's OID or its directory/);
foreach my $file (qw(standby.signal recovery.signal backup_label))
{
	write_file("$data/$file", '');
	refused("with $file", $data, [], 1, qr/error: data directory "\Q$data\E" has a file "\Q$file\E": recovery is to come/);
	unlink "$data/$file";
}
ok(!-e "$data/pgx_tde/keys" && !-e "$data/pgx_tde/conversion", 'no refusal has left anything');
($rc, $out) = pgx_encrypt($data, ['--decrypt']);
is("$rc $out", "0 there is nothing to decrypt\n", 'nothing to decrypt');

# ---- --check of a plain cluster; it needs no keystore ------------------------------------------------------

($rc, $out, $err) = pgx_encrypt($data, ['--check'], '');
is($rc, 1, '--check, plain: exit code');
is($err, '', 'no complaint');
like($out, qr/^$_: none; files: 0 encrypted, [1-9]\d* plain, 0 mixed, 0 damaged, \d+ empty$/m, "$_ is plain")
  foreach qw(pg_default pg_global pg_wal), $place;
like($out, qr/^not everything is encrypted\n\z/m, 'and so says the last line');
{
	my $report = json_report($data, 1, 'plain');
	is($report->{data_directory}, $data, 'its name');
	is_deeply([ sort map { $_->{name} } @{ $report->{tablespaces} } ],
		[ sort qw(pg_default pg_global), map { abs_path($_) } glob "$data/pg_tblspc/*" ], 'its tablespaces');
	is(join(' ', map { $_->{algorithm} } @{ $report->{tablespaces} }, $report->{wal}), 'none none none none none', 'are plain');
	my $pages = 0;
	$pages += int((-s $_) / 8192) foreach relation_files($data);
	my $seen = 0;
	$seen += $_ foreach map { values %{ $_->{pages} } } @{ $report->{tablespaces} };
	is($seen, $pages, "every one of the $pages pages is counted");
}

# ---- there and back: every byte ------------------------------------------------------------------------------

# One bit flipped before, so that there is damage that must stay known.
{
	my $content = slurp_raw("$data/$damaged");
	substr($content, 8192 + 5000, 1) ^= "\x01";
	write_file("$data/$damaged", $content);
	checksums($node, 1, 'control: damaged');
}
my %before = map { $_ => slurp_raw($_) } relation_files($data);
# What a crash may have left.
mkdir "$data/base/pgsql_tmp";
write_file("$data/base/pgsql_tmp/pgsql_tmp1.0", 'MARK_left');
write_file("$data/pg_replslot/logical/xid-1-lsn-0-0.spill", 'MARK_left');

($rc, $out, $err) = pgx_encrypt($data, [ '-j', 3, '-P' ]);
is($rc, 0, 'encrypted: exit code');
is($out, "the data directory has been encrypted\n", 'and message');
like($err, qr{^(\d+)/\1 MB \(100%\) converted$}m, 'progress to the end');
like($err, qr/warning: checksum of block 1 of file "\Q$damaged\E" is wrong, and stays so/, 'the damage is told');
is_all_encrypted($data, 'encrypted');
is_deeply([ files_with({ mark => 'MARK_' }, "$data/base", "$data/global", "$data/pg_wal", "$data/pg_replslot", $place) ],
	[], 'no mark');
ok(!-e "$data/base/pgsql_tmp/pgsql_tmp1.0", 'temporary files are gone');
is_deeply([ grep { /pgsql_tmp\.pgx|conversion/ } files_below($data, $place) ], [], 'nothing of the conversion is left');
checksums($node, 1, 'the damage is still known');
my @modes = grep { ((stat $_)[2] & 0777) != 0600 } files_below("$data/base", "$data/global", "$data/pgx_tde");
is("@modes", '', 'modes of files');
is((pgx_encrypt($data, []))[1], "there is nothing to encrypt\n", 'a second time there is nothing to do');

($rc, $out, $err) = pgx_encrypt($data, [ '--decrypt', '-j', 2 ]);
is($rc, 0, 'decrypted: exit code');
is($out, "the data directory has been decrypted\n", 'and message');
is_deeply([ grep { slurp_raw($_) ne $before{$_} } sort keys %before ],
	["$data/$damaged"], 'every file is as it was, byte by byte, but the damaged one');
is(substr(slurp_raw("$data/$damaged"), 8192 + 24, 8168), substr($before{"$data/$damaged"}, 8192 + 24, 8168),
	'and that in all but the checksum');
is_deeply([ relation_files($data) ], [ sort keys %before ], 'no file more or less');
ok(!-e "$data/pgx_tde/keys", 'no key table');
checksums($node, 1, 'the damage is still known');
# Zero checksum: the page is given up.
write_file("$data/$damaged", substr(slurp_raw("$data/$damaged"), 0, 8192));
undef %before;
$node->start;
$node->safe_psql('postgres', 'DROP TABLE damaged');
my $whole = fingerprint($node, 'postgres', 'other');
is_content($whole, $known =~ s/^postgres\.damaged.*\n//mr, 'content is as it was');
$node->stop;

# ---- encrypted, step by step, by way of other names of the data directory --------------------------------------

my $inplace_oid;
{
	my ($link) = grep { -l $_ } glob "$data/pg_tblspc/*";
	($inplace_oid) = map { basename $_ } grep { !-l $_ && -d $_ } glob "$data/pg_tblspc/*";
	my $conf = work_dir() . '/conf';
	mkdir $conf;
	copy("$data/postgresql.conf", $conf);
	open my $fh, '>>', "$conf/postgresql.conf" or die;
	print $fh "data_directory = '$data'\n";
	close $fh;
	($rc, $out, $err) = pgx_encrypt($conf, [ '--algorithm=AES128', "--tablespace=$place" ]);
	is($rc, 0, 'one tablespace, by its directory, of a data directory that is known from its configuration');
	my $relative = basename($data);
	symlink $relative, dirname($data) . '/link';
	($rc) = run_cmd(
		[
			'sh', '-c', 'cd "$1" && exec pgx_encrypt -D link --tablespace "$2"', 'sh', dirname($data), $inplace_oid
		],
		stdin => "$PASSPHRASE\n");
	is($rc, 0, 'another, in place, by its OID, by a relative name that is a link');
	unlink dirname($data) . '/link';
}
($rc, $out) = pgx_encrypt($data, ['--check']);
is($rc, 1, '--check, in between: exit code');
like($out, qr/^\Q$place\E: AES128; files: [1-9]\d* encrypted, 0 plain/m, 'AES128');
like($out, qr/^\S*$inplace_oid: AES256; files: [1-9]\d* encrypted, 0 plain/m, 'AES256');
like($out, qr/^pg_default: none; files: 0 encrypted, [1-9]\d* plain/m, 'none');
like($out, qr/^pg_wal: AES256; files: [1-9]\d* encrypted, 0 plain/m, 'WAL is');
($rc, $out) = pgx_encrypt($data, [ '--check', "--tablespace=$place" ]);
is($rc, 0, '--check of that tablespace and WAL: exit code');
$node->start;
is_content(fingerprint($node, 'postgres', 'other'), $whole, 'content, partly encrypted');
$node->safe_psql('postgres', q{INSERT INTO elsewhere VALUES (0, 'MARK_meanwhile'); CHECKPOINT});
$node->stop;
my $older = slurp_raw(keytable_file($node));
($rc, $out, $err) = pgx_encrypt($data, [ '--passphrase-file', pass_file($node), '-N', '-v' ], '');
is($rc, 0, 'the rest');
is_all_encrypted($data, 'all');

# ---- what a server makes of it -----------------------------------------------------------------------------------

($rc, $out) = pgx_encrypt($data, ['--check']);
is($rc, 0, '--check, encrypted: exit code');
like($out, qr/^everything is encrypted\n\z/m, 'and last line');
{
	my ($status, $text, $error) = pgx_encrypt($data, [ '--check', '--progress' ]);
	like($error, qr{^(\d+)/\1 MB \(100%\) checked$}m, '--check --progress: to the end');
	my $report = json_report($data, 0, 'encrypted');
	is($report->{wal}{algorithm}, 'AES256', 'WAL');
	ok(!$report->{conversion_interrupted}, 'no conversion');
	is_deeply([ map { @{ $_->{mixed_or_damaged} } } @{ $report->{tablespaces} } ], [], 'no file is named');
}

# A page whose first bytes are torn for a moment, over and over, as a server's write might leave them to a reader.
{
	my ($torn) = grep { m{/base/\d+/\d+$} && -s $_ > 8192 } relation_files($data);
	my $good = substr slurp_raw($torn), 16, 16;
	my $tear = q{my ($path, $good, $n) = (shift, pack('H*', shift), 0); open my $fh, '+<:raw', $path or die;
		while (1) { sysseek $fh, 16, 0; syswrite $fh, $n++ % 2 ? $good : "\x00" x 16; $| = 1; print "torn\n" if $n == 1; select undef, undef, undef, 0.004 }};
	my ($said, $status, $text) = ('');
	my $tearing = IPC::Run::start([ $^X, '-e', $tear, $torn, unpack('H*', $good) ], '>', \$said);
	$tearing->pump until $said =~ /torn/;
	foreach my $round (1 .. 8)
	{
		($status, $text) = pgx_encrypt($data, ['--check']);
		is($status, 0, "--check while a page is torn now and then, $round") or diag($text);
	}
	$tearing->kill_kill(grace => 1);
	open my $fh, '+<:raw', $torn or die;
	sysseek $fh, 16, 0;
	syswrite $fh, "\x00" x 16;
	($status, $text) = pgx_encrypt($data, ['--check']);
	is($status, 1, 'control: while it stays torn');
	like($text, qr/ has 1 pages that are damaged/, 'that is told');
	sysseek $fh, 16, 0;
	syswrite $fh, $good;
	close $fh;
}
checksums($node, 0, 'encrypted');
like(start_fails($node, '-o', '-c shared_preload_libraries='), qr/could not locate a valid checkpoint record/,
	'no start without the module');
{
	# A key table from before would have the server write pages in the clear beside encrypted ones.
	my $table = slurp_raw(keytable_file($node));
	my %files = map { $_ => slurp_raw($_) } relation_files($data);
	write_file(keytable_file($node), $older);
	like(start_fails($node), qr/FATAL:  tablespace 166[34] holds encrypted data, but key table "pgx_tde\/keys" has no key for it\n/,
		'no start with an older key table');
	is_deeply([ grep { slurp_raw($_) ne $files{$_} } sort keys %files ], [], 'and nothing is written');
	write_file(keytable_file($node), $table);
}
$node->start;
$whole = fingerprint($node, 'postgres', 'other');
is($node->safe_psql('postgres', q{SELECT x FROM elsewhere WHERE g = 0}), 'MARK_meanwhile', 'what came meanwhile is there');
is_content($whole =~ s/^postgres\.elsewhere.*\n//mr, $known =~ s/^postgres\.(?:damaged|elsewhere).*\n//mgr,
	'and what was there before');
is($node->safe_psql('postgres', q{SELECT count(*) FROM u}), '1000', 'unlogged');
is($node->safe_psql('postgres', q{SELECT nextval('s')}), $next, 'the sequence goes on');
is( $node->safe_psql('postgres', q{
		SELECT count(*), min(data) FROM pg_logical_slot_get_changes('logical', NULL, NULL) WHERE data ~ 'MARK_decoded'}),
	q{100|table public.t: INSERT: id[integer]:100001 x[text]:'MARK_decoded100001'},
	'a slot from before decodes WAL from before');
$node->safe_psql('postgres', q{COMMIT PREPARED 'p'});
is($node->safe_psql('postgres', q{SELECT x FROM t WHERE id = 0}), 'MARK_prepared', 'a transaction prepared before is committed');
($rc, $out) = run_program(
	[ 'pg_amcheck', '-h', $node->host, '-p', $node->port, '--heapallindexed', '--rootdescend', 'postgres' ]);
is("$rc$out", '0', 'pg_amcheck');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_replication_slots}), '2', 'slots are kept');
$node->safe_psql('postgres', 'CREATE EXTENSION pgx_tde');
is($node->safe_psql('postgres', q{SELECT string_agg(DISTINCT spcencalgo, ' ' ORDER BY spcencalgo) FROM pgx_tablespaces}),
	'AES128 AES256', 'the view');
rotate($node);
$node->safe_psql('postgres', q{INSERT INTO t SELECT g, 'MARK_after' || g FROM generate_series(200001, 200100) g});
$whole = fingerprint($node, 'postgres', 'other');
$node->stop('immediate');
$node->start;
is_content(fingerprint($node, 'postgres', 'other'), $whole, 'content after a crash');

# --check beside a server that writes, makes and removes files all the time.  The standby too.
sub checked_under_load
{
	my ($at, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	for my $round (1 .. 4)
	{
		my ($status, $text, $error) = pgx_encrypt($at->data_dir, ['--check']);
		is("$status $error", '0 ', "--check, $name, $round: exit code and no complaint") or diag($text);
		like($text, qr/^everything is encrypted\n\z/m, 'and result');
	}
	return;
}
sub busy
{
	my ($at) = @_;
	my $script = write_file(work_dir() . '/busy.sql', q{
		CREATE TABLE busy (id int PRIMARY KEY, x text);
		INSERT INTO busy SELECT g, repeat('MARK_busy', 20) FROM generate_series(1, 2000) g;
		UPDATE busy SET id = id + 10000;
		CREATE TEMP TABLE mine AS SELECT * FROM busy;
		CHECKPOINT;
		UPDATE t SET x = x || '.' WHERE id < 1000;
		VACUUM t;
		DROP TABLE busy, mine;
		SELECT pg_switch_wal();
	});
	return IPC::Run::start([ 'pgbench', '-n', '-f', $script, '-T', 600, '-h', $at->host, '-p', $at->port, 'postgres' ],
		'>', '/dev/null', '2>', '/dev/null');
}
{
	my $load = busy($node);
	$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_tables WHERE tablename = 'busy'}) or die 'no load';
	checked_under_load($node, 'server running');
	my $first = $node->safe_psql('postgres', 'SELECT pg_current_wal_lsn()');
	$node->poll_query_until('postgres', "SELECT pg_current_wal_lsn() > '$first'") or die 'the load has ended';
	$load->signal('TERM');
	$load->finish;
	$node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'pgbench'}) or die 'still busy';
	$node->safe_psql('postgres', 'DROP TABLE IF EXISTS busy');
}

# Standbys are made anew; then one is refused as it is.
my $standby = new_standby($node, 'standby');
$standby->start;
caught_up($node, $standby);
same_content($node, $standby, [ 'postgres', 'other' ], 'a new standby');
{
	my $load = busy($node);
	checked_under_load($standby, 'standby');
	$load->signal('TERM');
	$load->finish;
	$node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'pgbench'}) or die 'still busy';
	$node->safe_psql('postgres', 'DROP TABLE IF EXISTS busy');
	caught_up($node, $standby);
	same_content($node, $standby, [ 'postgres', 'other' ], 'and after that');
	$whole = fingerprint($node, 'postgres', 'other');
}
$standby->stop;
($rc) = pgx_encrypt($standby->data_dir, ['--check']);
is($rc, 0, '--check of a standby that is down');
refused('a standby', $standby->data_dir, [], 1, qr/error: data directory "[^"]+" is that of a standby/, qr/hint: Convert the primary/);
$node->stop;
is_deeply([ files_with({ mark => 'MARK_' }, "$data/base", "$data/global", "$data/pg_wal", $place) ], [], 'no mark');

# ---- files that do not belong ---------------------------------------------------------------------------------

my $file = $node->safe_psql('postgres', q{SELECT pg_relation_filepath('t')}) if $node->start;
$node->stop;
my $good = slurp_raw("$data/$file");
my $plain_page;
{
	# A page of the same table from before, as far as form goes: any plain one.
	my $plain = PostgreSQL::Test::Cluster->new('plain');
	$plain->init;
	my ($any) = grep { -s $_ > 100_000 } relation_files($plain->data_dir);
	$plain_page = substr slurp_raw($any), 0, 8192;
}
write_file("$data/$file", substr($good, 0, 8192) . $plain_page . substr($good, 16384));
($rc, $out) = pgx_encrypt($data, ['--check']);
is($rc, 1, '--check, mixed: exit code');
like($out, qr/^file "\Q$file\E" is mixed: \d+ pages encrypted, 1 plain$/m, 'the file is named');
like($out, qr/^pg_default: AES256; files: \d+ encrypted, 0 plain, 1 mixed, 0 damaged/m, 'and counted');
{
	my $report = json_report($data, 1, 'mixed');
	my ($default) = grep { $_->{oid} == 1663 } @{ $report->{tablespaces} };
	is_deeply([ $default->{files}{mixed}, $default->{pages}{plain} ], [ 1, 1 ], 'and counted in JSON');
	is_deeply([ map { "$_->{path} $_->{pages}{plain}" } @{ $default->{mixed_or_damaged} } ], ["$file 1"], 'and named');
}
refused('decrypting what is not encrypted', $data, ['--decrypt'], 1,
	qr/error: block 1 of file "\Q$file\E" is decrypted already/, qr/hint: .*restore it, or all, from a backup/,
	qr/hint: No server can be started in "\Q$data\E" now; run this command again to go on/);
like(start_fails($node),
	qr/FATAL:  data directory "[^"]+" has not been encrypted or decrypted to the end\n.*HINT:  Run "pgx_encrypt -D /s,
	'a server refuses');
($rc, $out) = pgx_encrypt($data, ['--check']);
like($out, qr/^a conversion has been interrupted$/m, '--check says so too');
is($rc, 1, 'exit code');
ok(json_report($data, 1, 'interrupted')->{conversion_interrupted}, 'and in JSON');
refused('the other way', $data, [], 1, qr/error: the data directory is being decrypted; that has to be finished first/,
	qr/hint: Run pgx_encrypt with -D and --decrypt and without --tablespace/);
write_file("$data/$file", $good);
($rc, $out) = pgx_encrypt($data, ['--decrypt']);
is("$rc $out", "0 the data directory has been decrypted\n", 'with the file restored it goes on');

# Encrypting: the last of all is a page of noise, which is told and kept.
my $decrypted = slurp_raw("$data/$file");
write_file("$data/$file", $decrypted . ("\xa5" x 8192));
($rc, $out, $err) = pgx_encrypt($data, []);
is($rc, 0, 'encrypting noise');
like($err, qr/warning: block \d+ of file "\Q$file\E" has no valid page header/, 'is told');
($rc, $out) = pgx_encrypt($data, ['--check']);
is($rc, 1, '--check, damaged: exit code');
like($out, qr/^file "\Q$file\E" has 1 pages that are damaged, or encrypted with another key$/m, 'the file is named');
($rc, $out, $err) = pgx_encrypt($data, ['--decrypt']);
is($rc, 0, 'decrypting noise');
is(substr(slurp_raw("$data/$file"), 16 - 8192), "\xa5" x 8176, 'it is what it was');
write_file("$data/$file", $decrypted);

# ---- and back to a server that knows nothing of all this ---------------------------------------------------------

($rc, $out) = pgx_encrypt($data, ['--check'], '');
is($rc, 1, '--check, plain again');
like($out, qr/^pg_default: none; files: 0 encrypted, [1-9]\d* plain, 0 mixed, 0 damaged/m, 'all is plain');
checksums($node, 0, 'plain again');
$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', q{''});
$node->start;
is_content(fingerprint($node, 'postgres', 'other'), $whole, 'content without the module');
$node->stop;
isnt(scalar files_with({ mark => 'MARK_' }, "$data/base"), 0, 'control: marks are found');

# ---- one conversion at a time --------------------------------------------------------------------------------------

$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', q{'pgx_tde'});
{
	open my $lock, '<', $data or die;
	flock $lock, 2 | 4 or die "could not lock: $!";
	refused('another one is running', $data, [], 1, qr/error: another conversion of data directory "\Q$data\E" is running/);
}
$node->stop;

done_testing();
