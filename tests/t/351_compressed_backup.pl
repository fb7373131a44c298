# 351_compressed_backup.pl
#		pgx_dmpall --compress: what is in the area then, that nothing of it is readable or staged on disk, and
#		that whatever happens on the way leaves no backup that is not whole.
#
# The format and its damage table, through the library, are in 350_pack.pl.

use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

use PgxBackup;
use PgxTde;

my $MARK = { mark => 'MARK_packed' };
my $node = backup_primary('main', conf => "autovacuum = off\nmax_wal_senders = 5\n");
my $area = area_dir($node);
my ($rc, $out, $err);

fill_tablespaces($node, 'MARK_packed');
$node->safe_psql('postgres',
	q{CREATE TABLE big TABLESPACE sec AS SELECT g, 'MARK_packed' || md5(g::text) AS x FROM generate_series(1, 60000) g;
	  CREATE TABLE open TABLESPACE plain AS SELECT g, 'MARK_packed' || g AS x FROM generate_series(1, 2000) g;
	  CHECKPOINT});
my @with_file = ('--passphrase-file', pass_file($node));

# A backup that must succeed; returns its directory.  Names tell the second, so the last one need not be the newest.
sub backup_ok
{
	my (@options) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($status, $text, $messages) = dmpall($node, '--json', @options);
	is($status, 0, "pgx_dmpall @options") or die $messages;
	return JSON::PP::decode_json($text)->{directory};
}

# ---- in the area -----------------------------------------------------------------------------------

my $uncompressed = backup_ok();
my $plain = backup_info($uncompressed);
isnt(scalar files_with($MARK, "$uncompressed/tablespaces"), 0,
	'control: the plain tablespace of an uncompressed backup can be read');

foreach my $case ([ 'zstd', 0.5 ], [ 'lz4', 0.7 ], [ 'zstd:9', 0.5, '-j', 2 ], [ 'none', 2 ])
{
	my ($codec, $ratio, @options) = @$case;
	my $dir = backup_ok('--compress', $codec, @with_file, @options);
	my $info = backup_info($dir);
	is($info->{method}, 'packed', "$codec: method");
	is($info->{compression}, $codec =~ s/:.*//r, "$codec: compression");
	like($info->{packed}{id}, qr/^[0-9a-f]{32}$/, "$codec: id");
	is($info->{packed}{master_key}, status_of($node, 'active_master_key'), "$codec: master key");
	is_deeply($info->{keystore}{master_keys}, [ 0 + status_of($node, 'active_master_key') ], "$codec: keys it needs");
	is_deeply([ map { "$_->{name} $_->{algorithm}" } @{ $info->{tablespaces} } ], [ 'sec AES256', 'plain none' ],
		"$codec: tablespaces");
	is_deeply(
		[ sort grep { !/^\./ } slurp_dir($dir) ],
		[qw(backup_info.json conf data.pgxpack keystore)], "$codec: nothing else is there");
	cmp_ok($info->{packed}{data_size}, '>', 20 * 1024 * 1024, "$codec: size of the data");
	cmp_ok($info->{size}, '<', $plain->{size} * $ratio, "$codec: $info->{size} bytes, uncompressed $plain->{size}");
	is_deeply([ files_with($MARK, $dir) ], [], "$codec: no mark in it, not even of the plain tablespace");
	ok($info->{wal}{archive_complete}, "$codec: archived WAL is there");
}
is(scalar(backups_of($node)), 2, 'two are kept');

($rc, $out, $err) = dmpall($node, '--compress=lz4', '--json', '--progress', @with_file);
is($rc, 0, '--json') or diag($err);
my $json = JSON::PP::decode_json($out);
is($json->{status}, 'COMPLETE', 'status');
is($json->{packed}{master_key}, status_of($node, 'active_master_key'), 'JSON tells the key');
like($err, qr{^\d+/\d+ kB \(100%\)$}m, '--progress');
like($err, qr{^0/\d+ kB \(0%\)$}m, 'from the begin');
($rc) = dmpall($node, '--config-only');
is($rc, 0, 'configuration of a compressed backup can be renewed');
is(backup_info($json->{directory})->{packed}{id}, $json->{packed}{id}, 'and the rest stays as it is');

# ---- ways to open ------------------------------------------------------------------------------------

{
	local %ENV = $node->_get_env();
	delete @ENV{qw(PGHOST PGPORT PGDATABASE PGUSER)};
	my @command = ('pgx_dmpall', '-D', $node->data_dir, '--compress', 'zstd', '--no-verify');
	($rc, $out, $err) = run_program([@command], stdin => "$PASSPHRASE\n");
	is($rc, 0, 'the passphrase from standard input') or diag($err);
	($rc, $out, $err) = run_program([@command], stdin => "not the passphrase\n");
	is($rc, 2, 'a wrong one: exit code');
	like($err, qr/error: .*passphrase/i, 'a wrong one: message');
	($rc, $out, $err) = run_program([@command], stdin => '');
	is($rc, 1, 'none: exit code');
	like($err, qr/error: .*passphrase/i, 'none: message');
	auto_open($node, $PASSPHRASE);
	($rc, $out, $err) = run_program([@command], stdin => '');
	is($rc, 0, 'auto-open') or diag($err);
	($rc, $out, $err) = run_program([ @command, '--keystore-passphrase' ], stdin => "not the passphrase\n");
	is($rc, 2, '--keystore-passphrase asks all the same');
	unlink keystore_dir($node) . '/keystore.aks';
}
my @were = backups_of($node);
foreach my $case (
	[ [qw(--compress gzip)],   qr/gzip/ ],
	[ [qw(--compress zstd:99)], qr/--compress must be in range 1\.\.19/ ],
	[ [qw(--jobs 2)],           qr/option --compress is necessary for option --jobs/ ],
	[ [ '--passphrase-file', '/x' ], qr/option --compress is necessary for option --passphrase-file/ ],
	[ ['--keystore-passphrase'], qr/option --compress is necessary for option --keystore-passphrase/ ],
	[ [qw(--compress zstd --jobs 65)], qr/--jobs must be in range 1\.\.64/ ],
	[ [qw(--compress zstd -Y /bin/true)], qr/option --compress conflicts with option -Y/ ],
	[ [qw(--compress zstd --config-only)], qr/option --compress conflicts with option --config-only/ ],
	[ [ qw(--compress zstd --keystore-passphrase), @with_file ], qr/conflicts with option --passphrase-file/ ],
	[ [ qw(--compress zstd --passphrase-file), work_dir() . '/missing' ], qr/could not open file ".*missing"/ ])
{
	my ($options, $like) = @$case;
	($rc, $out, $err) = dmpall($node, @$options);
	is($rc, 1, "@$options: exit code");
	like($err, $like, "@$options: message");
}

# Another keystore in the place of the server's.
{
	my $file = keystore_file($node);
	rename $file, "$file.away" or die "$!";
	pgx_keystore([ 'create', '--kdf-cost', 10, $file ], "$PASSPHRASE\n");
	($rc, $out, $err) = dmpall($node, '--compress', 'zstd', @with_file);
	is($rc, 2, 'another keystore: exit code');
	like($err, qr/the keystore does not belong to key table/, 'another keystore: message');
	unlink $file;
	($rc, $out, $err) = dmpall($node, '--compress', 'zstd', @with_file);
	is($rc, 1, 'no keystore: exit code');
	like($err, qr/keystore\.ks/, 'no keystore: message');
	rename "$file.away", $file or die "$!";
}
is_deeply([ backups_of($node) ], \@were, 'nothing of all that left or took a backup');

# ---- nothing is staged ---------------------------------------------------------------------------------

my $strace = system('strace -f -o /dev/null true >/dev/null 2>&1') == 0;
my $program = (grep { -x } map { "$_/pgx_dmpall" } split /:/, $ENV{PATH})[0];

# pgx_dmpall --compress under strace; returns its exit code, standard error and the trace.
sub traced
{
	my ($expressions, @options) = @_;
	local %ENV = $node->_get_env();
	delete @ENV{qw(PGHOST PGPORT PGDATABASE PGUSER)};
	my $trace = work_dir() . '/trace';
	($rc, $out, $err) = run_program(
		[
			'strace', '-f', '-qq', '-o', $trace, (map { ('-e', $_) } @$expressions),
			$program, '-D', $node->data_dir, '--compress', 'zstd', @with_file, @options
		]);
	return ($rc, $err, slurp_raw($trace));
}

SKIP:
{
	skip 'strace (package strace) is needed, and that it may trace processes of this user', 30 if !$strace;
	my ($status, $messages, $trace) = traced([ 'trace=open,openat,creat,memfd_create' ], '--keep', 9, '--label', 'traced');
	is($status, 0, 'made under strace') or diag($messages);

	# The memory of a program that has keys is closed to a tracer, so names cannot be seen; but all writes are accounted
	# for: lock, marker, container, keystore and description.
	is_deeply(
		[ map { /(O_WRONLY|O_RDWR).* = [0-9]+$/ } grep { /O_WRONLY|O_RDWR|creat\(|memfd/ } split /\n/, $trace ],
		[ 'O_RDWR', ('O_WRONLY') x 4 ],
		'it opens five files for writing');
	my ($made) = grep { backup_info($_)->{label} eq 'traced' } map { "$area/$_" } grep { !/incomplete/ } backups_of($node);
	is_deeply(
		[ map { substr $_, 1 + length $made } sort(files_below($made)) ],
		[qw(backup_info.json data.pgxpack keystore/keystore.ks)],
		'and beside lock and marker these are what there is');

	# ---- killed and failing, at one point after the other --------------------------------------------------

	cmp_ok(scalar(grep { !/incomplete/ } backups_of($node)), '>=', 2, 'control: two backups, as many as are kept');
	my @packing = ('pgx_dmpall', '--compress', 'zstd', @with_file);
	kill_at_each($node,
		[
			'mkdir:2', 'fsync:1', 'fsync:3', 'mkdir:3', '+write:3', 'fsync:6', 'rename:1', 'fsync:9', 'mkdir:4', 'fsync:12',
			'rename:2', 'unlink:2', 'fsync:15', 'rename:3', 'rename:4', 'rmdir:1', 'unlink:5'
		],
		run => \@packing,
		killed => sub {
			my ($name) = @_;
			my @complete = grep { !/incomplete/ } backups_of($node);
			my @bad = grep {
				!backup_info("$area/$_")->{packed} || -e "$area/$_/INCOMPLETE" || -s "$area/$_/data.pgxpack" < 1_000_000
			} @complete;
			is("@bad", '', "$name: what is listed is whole");
			cmp_ok(scalar(@complete), '>=', 2, "$name: and not less than are kept");
			my ($code, $text) = rcvall($node, '-l', '-B', $area);
			is_deeply(
				[ sort $text =~ /^\S+ \S+ +COMPLETE +\S*\/(\S+)/mg ],
				[ sort @complete ], "$name: and it alone is listed as complete");
		});
	dmpall_ok($node, '--compress', 'zstd', @with_file);
	is(scalar(grep { /incomplete/ } backups_of($node)), 0, 'the next run puts the rest away');
	@were = backups_of($node);
	foreach my $case (
		[ 'fsync:error=EIO:when=5', qr/error: could not sync file .*: Input\/output error/ ],
		[ 'rename:error=EIO:when=1', qr/error: could not rename file ".*data\.pgxpack\.partial"/ ],
		[ 'rename:error=EIO:when=2', qr/error: could not rename file ".*backup_info\.json\.tmp"/ ])
	{
		my ($inject, $like) = @$case;
		($status, $messages, $trace) = injected($node, "+$inject", @packing);
		like($trace, qr/INJECTED/, "$inject: control");
		is($status, 1, "$inject: exit code");
		like($messages, $like, "$inject: message");
		is_deeply([ backups_of($node) ], \@were, "$inject: the backups are those of before");
	}
}

# The limit on a file's size stands for a full disk.
{
	local %ENV = $node->_get_env();
	delete @ENV{qw(PGHOST PGPORT PGDATABASE PGUSER)};
	($rc, $out, $err) = run_program(
		[
			'sh', '-c', 'trap "" XFSZ; ulimit -f 500; exec "$@"', 'sh',
			'pgx_dmpall', '-D', $node->data_dir, '--compress', 'zstd', @with_file
		]);
	is($rc, 1, 'no room: exit code');
	like($err, qr/error: could not write file ".*data\.pgxpack\.partial": /, 'no room: message');
	is_deeply([ backups_of($node) ], \@were, 'no room: the backups are those of before');
}

# Killed, interrupted and left by its server while the file grows.  The level is for the time that this takes.
foreach my $what (qw(KILL TERM server))
{
	my $text = '';
	my $run = start_dmpall($node, \$text, '--compress', 'zstd:19', @with_file);
	foreach (1 .. 200 * $PostgreSQL::Test::Utils::timeout_default)
	{
		last if grep { -s > 200_000 } glob("$area/*.incomplete/data.pgxpack.partial");
		$run->pump_nb;
		usleep(5_000);
	}
	my @growing = glob("$area/*.incomplete/data.pgxpack.partial");
	is(scalar(@growing), 1, "$what: while the file grows");
	$what eq 'server' ? $node->stop('immediate') : $run->signal($what);
	eval { $run->finish };
	my @now = backups_of($node);
	is_deeply([ grep { !/incomplete/ } @now ], \@were, "$what: the backups are those of before");
	if ($what eq 'KILL')
	{
		is(scalar(grep { /incomplete/ } @now), 1, 'KILL: what is left is marked as incomplete');
		dmpall_ok($node, '--compress', 'zstd', @with_file);
		@were = backups_of($node);
		is(scalar(grep { /incomplete/ } @were), 0, 'KILL: the next run puts it away');
		next;
	}
	is($? >> 8, 1, "$what: exit code");
	is(scalar(grep { /incomplete/ } @now), 0, "$what: nothing is left");
	like($text, $what eq 'TERM' ? qr/interrupted by signal/ : qr/error: could not (take|receive)/, "$what: message");
}
$node->start;
dmpall_ok($node, '--compress', 'zstd', @with_file);
is(scalar(grep { /incomplete/ } backups_of($node)), 0, 'the next run is whole, and nothing else is there');

# ---- the key goes on --------------------------------------------------------------------------------------

rotate($node, 2);
my $info = backup_info(backup_ok('--compress', 'zstd', @with_file));
is($info->{packed}{master_key}, status_of($node, 'active_master_key'), 'after rotations: the newest master key');
is_deeply($info->{keystore}{master_keys}, [ $info->{packed}{master_key} ], 'and it alone');

done_testing();
