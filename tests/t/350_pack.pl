# 350_pack.pl
#		Packed backups of a real server: what is restored equals, byte for byte, what the server had; nothing of
#		it is readable in between; and whatever is done to the container is noticed.
#
# The library is called through tests/t/pack_tool; what pgx_dmpall and pgx_rcvall make of it is another test.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use File::Compare;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PgxTde;
use Test::More;

my $MARK = { mark => 'MARK_' };
my $HEADER = 140;
my $CHUNK = 65536 + 16;
my $tool = "$ENV{PGX_BUILDDIR}/tests/t/pack_tool";
my ($rc, $out, $err);

my $primary = new_primary('primary', checksums => 1, conf => "autovacuum = off\nbgwriter_lru_maxpages = 0");
my %dir = map { $_ => tablespace_dir($primary, $_) } qw(enc enc128 plain);
my $connection = $primary->connstr('postgres');

$primary->safe_psql('postgres', $_)
  foreach (
	"CREATE TABLESPACE enc LOCATION '$dir{enc}' WITH (tablespace_encryption_algorithm = 'AES256')",
	"CREATE TABLESPACE enc128 LOCATION '$dir{enc128}' WITH (tablespace_encryption_algorithm = 'AES128')",
	"CREATE TABLESPACE plain LOCATION '$dir{plain}'",
	'CREATE DATABASE e TABLESPACE enc');
$primary->safe_psql('e', q{
	CREATE TABLE t (id int PRIMARY KEY, x text);
	INSERT INTO t SELECT g, 'MARK_row' || g FROM generate_series(1, 100000) g;
	CREATE INDEX ON t (x);
	CREATE UNLOGGED TABLE u AS SELECT g FROM generate_series(1, 1000) g;
	CREATE TABLE t128 TABLESPACE enc128 AS SELECT g, 'MARK_other' || g AS x FROM generate_series(1, 30000) g;
	CREATE TABLE p TABLESPACE plain AS SELECT g, 'MARK_plain' || g AS x FROM generate_series(1, 1000) g;
	VACUUM t; CHECKPOINT});
my $known = fingerprint($primary, 'e');
my %oid = map { $_ => $primary->safe_psql('postgres', "SELECT oid FROM pg_tablespace WHERE spcname = '$_'") } keys %dir;

# Where the tool is to put things for a restored node; tablespaces too.
sub place
{
	my ($name) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	PgxTde::prepare_node($node);
	mkdir $node->basedir;
	my @map = map { "$oid{$_}=" . $node->basedir . "/to_$_" } sort keys %dir;
	return ($node, @map);
}

sub pack_to
{
	my ($name, $codec, $jobs, %params) = @_;
	my $file = work_dir() . "/$name";
	my @status = run_program(
		[
			@{ $params{with} // [] }, $tool, 'pack', keystore_file($primary), pass_file($primary),
			$primary->data_dir, $connection, $file, $codec, $jobs
		]);
	return ($file, @status);
}

sub verify
{
	my ($file, @id) = @_;
	return run_program([ $tool, 'verify', keystore_file($primary), pass_file($primary), $file, 1, @id ]);
}

sub unpack_to
{
	my ($file, $data, $jobs, @map) = @_;
	return run_program([ $tool, 'unpack', keystore_file($primary), pass_file($primary), $file, $data, $jobs, @map ]);
}

# Regular files below a directory, relative to it.
sub below
{
	my ($dir) = @_;
	return map { substr $_, 1 + length $dir } files_below($dir);
}

# ---- there and back ------------------------------------------------------------------------------

my %made;
foreach my $case ([ 'zstd', 1 ], [ 'lz4', 2 ], [ 'zstd:1', 2 ], [ 'lz4:9', 1 ], [ 'none', 1 ])
{
	my ($codec, $jobs) = @$case;
	(my $name = "pack_${codec}_$jobs") =~ tr/:/_/;
	my ($file, $status, $text, $messages) = pack_to($name, $codec, $jobs);
	is($status, 0, "$name: made");
	die "no container: $messages" if $status != 0;
	my ($id, $raw, $packed) = $text =~ /^([0-9a-f]{32})\n(\d+) (\d+)$/m;
	is(-s $file, $packed, "$name: the size is that of the file");
	ok(!-e "$file.partial", "$name: and no other name is left");
	$made{$codec} = { file => $file, id => $id, raw => $raw, packed => $packed };
	is_deeply([ files_with($MARK, $file) ], [], "$name: no mark in it");
	($rc, $out, $err) = verify($file, $id);
	is($rc, 0, "$name: verified");

	my ($node, @map) = place($name);
	my $data = $node->data_dir;
	($rc, $out, $err) = unpack_to($file, $data, $jobs, @map);
	is($rc, 0, "$name: restored");

	# Its checksums are of what the server read and sent.
	command_like([ 'pg_verifybackup', '-n', $data ], qr/^backup successfully verified$/m, "$name: pg_verifybackup");

	# And nothing has written to these since.
	my ($same, @different) = (0);
	foreach my $space (sort keys %dir)
	{
		my $to = $node->basedir . "/to_$space";
		is(readlink("$data/pg_tblspc/$oid{$space}"), $to, "$name: link to tablespace $space");
		foreach my $relative (below($to))
		{
			compare("$to/$relative", "$dir{$space}/$relative") == 0 ? $same++ : push @different, $relative;
		}
	}
	is("@different", '', "$name: files of tablespaces are the server's, byte for byte");
	cmp_ok($same, '>', 300, "$name: $same were compared");
	is_deeply([ files_with($MARK, $node->basedir . '/to_enc', $node->basedir . '/to_enc128') ],
		[], "$name: no mark in the encrypted tablespaces");
	isnt(scalar files_with($MARK, $node->basedir . '/to_plain'), 0, "$name: control: but in the plain one");
	next if $codec ne 'zstd' && $codec ne 'lz4';

	copy_keystore($primary, $node);
	mkdir $node->archive_dir;
	configure_node($node);
	$node->append_conf('postgresql.conf', 'port = ' . $node->port . "\nunix_socket_directories = '" . $node->host . "'");
	$node->start;
	is_content(fingerprint($node, 'e'), $known, "$name: content");
	$node->stop;
	($rc, $out) = run_program([ 'pg_checksums', '--check', '-D', $data ]);
	is($rc, 0, "$name: pg_checksums");
}
cmp_ok($made{zstd}{packed}, '<', $made{zstd}{raw} / 4, 'zstd makes it small: the pages were decrypted before');
cmp_ok($made{lz4}{packed}, '<', $made{lz4}{raw} / 2, 'so does lz4');
cmp_ok($made{none}{packed}, '>', $made{none}{raw}, 'and "none" does not');

# A directory that holds something is left alone.
{
	my $to = work_dir() . '/occupied';
	mkdir $to;
	write_file("$to/file", 'mine');
	($rc, $out, $err) = unpack_to($made{zstd}{file}, $to, 1);
	is($rc, 1, 'a target that is not empty');
	like($err, qr/error: directory "\Q$to\E" exists but is not empty/, 'and why');
	is_deeply([ below($to) ], ['file'], 'nothing was added');
}
($rc, $out, $err) = (pack_to('pack_zstd_1', 'zstd', 1))[ 1 .. 3 ];
is($rc, 1, 'an existing container is not overwritten');
like($err, qr/error: file ".*pack_zstd_1" already exists/, 'and why');

# ---- nothing is staged -------------------------------------------------------------------------------

SKIP:
{
	my $trace = work_dir() . '/trace';
	my @strace = ('strace', '-f', '-q', '-o', $trace, '-e', 'trace=open,openat,creat,memfd_create');
	skip 'strace cannot trace here', 2 if system("@strace true") != 0;
	my ($file, $status) = pack_to('traced', 'zstd', 1, with => \@strace);
	is($status, 0, 'made under strace');
	my @opened = grep { /O_WRONLY|O_RDWR|creat\(|memfd/ && !/ENOENT|clear_refs/ } split /\n/, slurp_raw($trace);
	is_deeply([ map { /"([^"]*)"/ } @opened ], ["$file.partial"], 'the container is all that it writes to');
}

# ---- damage -------------------------------------------------------------------------------------------

my $good = slurp_raw($made{zstd}{file});
my $other = slurp_raw((pack_to('second', 'zstd', 1))[0]);
my $chunks = int((length($good) - $HEADER + $CHUNK - 1) / $CHUNK);
cmp_ok($chunks, '>=', 5, "there are chunks to be moved: $chunks");

sub chunk { return $HEADER + $_[0] * $CHUNK; }
sub flip { my ($content, $at) = @_; substr($content, $at, 1) ^= "\x01"; return $content; }

sub swap
{
	my ($content, $i, $j) = @_;
	my $one = substr $content, chunk($i), $CHUNK;
	substr($content, chunk($i), $CHUNK) = substr $content, chunk($j), $CHUNK;
	substr($content, chunk($j), $CHUNK) = $one;
	return $content;
}
my $damaged = qr/error: file ".*" is damaged, cut off, or put together from pieces of others/;
my $wrong_key = qr/error: file ".*" does not open with this master key, or its header was altered/;
my $another = qr/error: file ".*" belongs to another backup/;
my @damage = (
	[ 'another magic', flip($good, 0), 1, qr/is not a sealed stream/ ],
	[ 'another version', flip($good, 11), 1, qr/has a version that this program does not know/ ],
	[ 'another keystore', flip($good, 30), 2, qr/the keystore does not belong to file/ ],
	[ 'another key id', flip($good, 43), 2, qr/needs master key 3/ ],
	[ 'another stream id', flip($good, 70), 2, $wrong_key ],
	[ 'another wrapped key', flip($good, 100), 2, $wrong_key ],
	[ 'a bit in the first chunk', flip($good, chunk(0)), 1, $damaged ],
	[ 'a bit in the middle', flip($good, chunk(3) + 30000), 1, $damaged ],
	[ 'the last bit', flip($good, length($good) - 1), 1, $damaged ],
	[ 'empty', '', 1, qr/is not a sealed stream/ ],
	[ 'half a header', substr($good, 0, 100), 1, $damaged ],
	[ 'only a header', substr($good, 0, $HEADER), 1, $damaged ],
	[ 'cut off in a chunk', substr($good, 0, chunk(3) + 1000), 1, $damaged ],
	[ 'cut off between chunks', substr($good, 0, chunk(3)), 1, $damaged ],
	[ 'without the last byte', substr($good, 0, -1), 1, $damaged ],
	[ 'without the last chunk', substr($good, 0, chunk($chunks - 1)), 1, $damaged ],
	[ 'one byte more', "${good}x", 1, $damaged ],
	[ 'twice', $good . $good, 1, $damaged ],
	[ 'two chunks swapped', swap($good, 1, 2), 1, $damaged ],
	[ 'a chunk left out', substr($good, 0, chunk(2)) . substr($good, chunk(3)), 1, $damaged ],
	[ 'a chunk of another backup', substr($good, 0, chunk(2)) . substr($other, chunk(2), $CHUNK) . substr($good, chunk(3)), 1, $damaged ],
	[ 'the end of another backup', substr($good, 0, chunk(3)) . substr($other, chunk(3)), 1, $damaged ],
	[ 'the header of another backup', substr($other, 0, $HEADER) . substr($good, $HEADER), 1, $another ],
	[ 'another backup', $other, 1, $another ]);
my $bad = work_dir() . '/bad';
my $to = work_dir() . '/refused';
my $run = 0;
foreach my $case (@damage)
{
	my ($name, $content, $code, $message) = @$case;
	write_file($bad, $content);
	($rc, $out, $err) = verify($bad, $made{zstd}{id});
	is($rc, $code, "$name: refused");
	like($err, $message, "$name: and why");

	# Without the id of the backup, only what is found in the file counts; what was written is never a cluster.
	next if $name eq 'another backup';
	$run++;
	($rc, $out, $err) = unpack_to($bad, "$to$run", 1, map { "$oid{$_}=$to$run.$_" } keys %dir);
	is($rc, $code, "$name: not restored");
	like($err, $damaged, "$name: and why, without the id") if $message eq $another;
	ok(!-e "$to$run/global/pg_control", "$name: and without a control file");
}
isnt(scalar(map { files_below("$to$_.enc") } grep { -d "$to$_.enc" } 1 .. $run),
	0, 'control: some of them did leave files');
write_file($bad, $good);
($rc) = verify($bad, $made{zstd}{id});
is($rc, 0, 'control: undamaged it is accepted');

# ---- keys -----------------------------------------------------------------------------------------------

rotate($primary) foreach 1 .. 2;
($rc) = verify($made{zstd}{file});
is($rc, 0, 'after two rotations');
my $stranger = work_dir() . '/stranger';
mkdir $stranger, 0700;
($rc) = pgx_keystore([ 'create', "$stranger/keystore.ks" ], "$PASSPHRASE\n");
is($rc, 0, 'another keystore');
($rc, $out, $err) = run_program([ $tool, 'verify', "$stranger/keystore.ks", pass_file($primary), $made{zstd}{file}, 1 ]);
is($rc, 2, 'does not open it');
like($err, qr/the keystore does not belong to file/, 'and why');

# ---- faults on the way ------------------------------------------------------------------------------------

# No room: the limit on a file's size stands for a full disk.
{
	my ($file, $status, $text, $messages) =
	  pack_to('too_large', 'zstd', 1, with => [ 'sh', '-c', 'trap "" XFSZ; ulimit -f 200; exec "$@"', 'sh' ]);
	is($status, 1, 'no room for the container');
	like($messages, qr/error: could not write file ".*too_large\.partial": /, 'and why');
	ok(!-e $file && !-e "$file.partial", 'nothing is left');
}
($rc, $out, $err) = run_program(
	[
		$tool, 'pack', keystore_file($primary), pass_file($primary), $primary->data_dir,
		'host=/nowhere dbname=postgres', work_dir() . '/unreachable', 'zstd', 1
	]);
is($rc, 1, 'no server');
like($err, qr/error: could not connect to the server: /, 'and why');
ok(!-e work_dir() . '/unreachable.partial', 'nothing is left');

# Killed at several moments; the file never has its name then.  And the server goes away.
$primary->safe_psql('e', 'ALTER TABLE t SET (autovacuum_enabled = off);
	CREATE TABLE big AS SELECT g, md5(g::text) AS x FROM generate_series(1, 300000) g; CHECKPOINT');
foreach my $bytes (0, 100_000, 2_000_000, 6_000_000)
{
	foreach my $what ('tool', 'server')
	{
		my $file = work_dir() . "/killed_${what}_$bytes";
		my $messages = '';
		my $h = IPC::Run::start(
			[
				$tool, 'pack', keystore_file($primary), pass_file($primary), $primary->data_dir, $connection,
				$file, 'zstd:12', 1
			],
			'>', \my $ignored, '2>', \$messages);
		my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
		until ((-e "$file.partial" && -s _ >= $bytes) || time > $deadline) { select undef, undef, undef, 0.002; }
		$what eq 'tool' ? $h->signal('KILL') : $primary->stop('immediate');
		eval { $h->finish };
		ok(!-e $file, "$what killed at $bytes bytes: no container");
		next if $what eq 'tool';
		like($messages, qr/error: could not (connect to the server|take the base backup|receive|begin)/,
			"$what killed at $bytes bytes: message");
		ok(!-e "$file.partial", "$what killed at $bytes bytes: nothing is left");
		$primary->start;
	}
}

# ---- memory -----------------------------------------------------------------------------------------------

# Three times the data: the same memory.
sub peak { return $_[0] =~ /^peak (\d+) kB$/m ? $1 : die 'no peak'; }
my (undef, $rc_small, undef, $err_small) = pack_to('before', 'zstd', 1);
$primary->safe_psql('e', 'INSERT INTO big SELECT g, md5(g::text) FROM generate_series(1, 2000000) g; CHECKPOINT');
my ($large, $rc_large, undef, $err_large) = pack_to('after', 'zstd', 1);
is("$rc_small$rc_large", '00', 'made from little and from much');
cmp_ok(peak($err_large), '<', peak($err_small) + 4096,
	'memory does not grow with it: ' . peak($err_small) . ' and ' . peak($err_large) . ' kB');
cmp_ok(peak($err_large), '<', 65536, 'and is less than 64 MiB');
($rc, $out, $err) = verify($large);
is($rc, 0, 'restoring reads all of it');
cmp_ok(peak($err), '<', 65536, 'in less than 64 MiB: ' . peak($err) . ' kB');

done_testing();
