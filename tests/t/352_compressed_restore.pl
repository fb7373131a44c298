# 352_compressed_restore.pl
#		pgx_rcvall from compressed backups: to every kind of end, with every kind of keystore; and damaged, cut off,
#		mixed or interrupted, it is refused, and the same command succeeds when the cause is gone.

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
my $HEADER = 140;
my $CHUNK = 65536 + 16;
my $node = backup_primary('main', checksums => 1, conf => "autovacuum = off\nmax_wal_senders = 5\n");
my $area = area_dir($node);
my $data = $node->data_dir;
my ($rc, $out, $err);
my @open = ('-B', $area, '--keystore-passphrase', '--passphrase-file', pass_file($node));
my @make = ('--passphrase-file', pass_file($node), '--compress');

fill_tablespaces($node, 'MARK_packed');
$node->safe_psql('postgres',
	q{CREATE TABLE big TABLESPACE sec AS SELECT g, 'MARK_packed' || md5(g::text) AS x FROM generate_series(1, 40000) g;
	  CHECKPOINT});

# The server comes up from what was recovered.
sub comes_up
{
	my ($wanted, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$node->start;
	is_content(fingerprint($node, 'postgres'), $wanted, "$name: content");
	return;
}

# ---- the newest state, and before that ------------------------------------------------------------------

dmpall_ok($node, @make, 'zstd', '--label', 'first');
my $at_backup = fingerprint($node, 'postgres');
my $old_keystore = slurp_raw(keystore_file($node));
($rc, $out) = rcvall($node, '-l');
like($out, qr/^\S+ \S+ +COMPLETE +\Q$area\E/m, 'it is in the list');
rotate($node);
$node->safe_psql('postgres', "INSERT INTO t_sec SELECT g, 'MARK_packed later' FROM generate_series(1, 300) g");
$node->safe_psql('postgres', "SELECT pg_create_restore_point('here')");
my $here = fingerprint($node, 'postgres');
$node->safe_psql('postgres', "DELETE FROM t_sec WHERE g % 3 = 0");
my $newest = fingerprint($node, 'postgres');
archived($node);
lose($node);

($rc, $out, $err) = rcvall($node, '--dry-run', @open);
is($rc, 0, '--dry-run') or diag($err);
ok(!-e "$data/PG_VERSION", 'changes nothing');
rcvall_ok($node, @open, '-n', 'here');
is_deeply([ files_with($MARK, tablespace_dir($node, 'sec')) ], [], 'no mark where it was restored');
ok(!-e "$data/$_", "no $_ is left") foreach qw(backup_manifest recovery.signal pgx_rcvall.incomplete);
comes_up($here, 'to a restore point');
lose($node);
($rc, $out, $err) = rcvall($node, @open, '-n', 'nowhere');
is($rc, 1, 'an unknown restore point: exit code');
like($err, qr/restore point "nowhere" does not exist/, 'an unknown restore point: message');
ok(!-e "$data/PG_VERSION", 'an unknown restore point: nothing is touched');

# What the first recovery archived is another timeline.
rcvall_ok($node, @open, '--jobs', 2, '--target-timeline', 1);
comes_up($newest, 'to the newest state of the first timeline');
lose($node, 1);
rcvall_ok($node, @open, '--target-timeline', 1, '--progress');
comes_up($newest, 'with the copy of the keystore in the backup');

# ---- keys that do not fit ----------------------------------------------------------------------------------

rotate($node);
dmpall_ok($node, @make, 'lz4', '--label', 'second');
my $wanted = fingerprint($node, 'postgres');
my $keystore = slurp_raw(keystore_file($node));
archived($node);
lose($node);
($rc, $out, $err) = rcvall($node, '-B', $area);
is($rc, 2, 'not open: exit code');
like($err, qr/error: the keystore is not open/, 'not open: message');
my $wrong = write_file(work_dir() . '/wrong', "another passphrase\n");
($rc, $out, $err) = rcvall($node, '-B', $area, '--keystore-passphrase', '--passphrase-file', $wrong);
is($rc, 2, 'wrong passphrase: exit code');
write_file(keystore_file($node), $old_keystore);
($rc, $out, $err) = rcvall($node, @open);
is($rc, 2, 'an older keystore: exit code');
like($err, qr/needs master key \d+.*as new as the backup, or newer/s, 'an older keystore: message');
unlink keystore_file($node);
pgx_keystore([ 'create', '--kdf-cost', 10, keystore_file($node) ], "$PASSPHRASE\n");
($rc, $out, $err) = rcvall($node, @open);
is($rc, 1, 'another keystore: exit code');
like($err, qr/does not belong to the backup/, 'another keystore: message');
ok(!-e "$data/PG_VERSION", 'nothing of that touched the data directory');
write_file(keystore_file($node), $keystore);
pgx_keystore([ '--enable-auto-open', keystore_file($node) ], "$PASSPHRASE\n");
rcvall_ok($node, '-B', $area);
comes_up($wanted, 'by auto-open');
lose($node);
unlink keystore_dir($node) . '/keystore.aks';

# ---- damage ---------------------------------------------------------------------------------------------------

my ($second) = grep { backup_info($_)->{label} eq 'second' } map { "$area/$_" } grep { !/incomplete/ } backups_of($node);
my ($first) = grep { backup_info($_)->{label} eq 'first' } map { "$area/$_" } grep { !/incomplete/ } backups_of($node);
my $pack = "$second/data.pgxpack";
my $good = slurp_raw($pack);
my $other = slurp_raw("$first/data.pgxpack");
my $chunks = int((length($good) - $HEADER + $CHUNK - 1) / $CHUNK);
cmp_ok($chunks, '>=', 6, "there are chunks to be moved: $chunks");

sub chunk { return $HEADER + $_[0] * $CHUNK; }
sub flip { my ($content, $at) = @_; substr($content, $at, 1) ^= "\x01"; return $content; }
my $swapped = $good;
substr($swapped, chunk(3), $CHUNK) = substr $good, chunk(4), $CHUNK;
substr($swapped, chunk(4), $CHUNK) = substr $good, chunk(3), $CHUNK;
my $damaged = qr/error: file ".*" is damaged, cut off, or put together from pieces of others/;
foreach my $case (
	[ 'a bit in the middle', flip($good, chunk(4) + 30000), 1, $damaged ],
	[ 'the last bit', flip($good, length($good) - 1), 1, $damaged ],
	[ 'the wrapped key', flip($good, 100), 2, qr/does not open with this master key, or its header was altered/ ],
	[ 'empty', '', 1, qr/is not a sealed stream/ ],
	[ 'cut off in a chunk', substr($good, 0, chunk(4) + 1000), 1, $damaged ],
	[ 'cut off between chunks', substr($good, 0, chunk(4)), 1, $damaged ],
	[ 'longer', "${good}x", 1, $damaged ],
	[ 'reordered', $swapped, 1, $damaged ],
	[ 'spliced', substr($good, 0, chunk(4)) . substr($other, chunk(4)), 1, $damaged ],
	[ 'another backup', $other, 1, qr/belongs to another backup/ ])
{
	my ($name, $content, $code, $message) = @$case;
	write_file($pack, $content);
	($rc, $out, $err) = rcvall($node, @open);
	is($rc, $code, "$name: exit code");
	like($err, $message, "$name: message");
	ok(!-e "$data/global/pg_control", "$name: no control file, so no server starts from it");
}
unlink $pack;
($rc, $out) = rcvall($node, '-l', '-B', $area);
like($out, qr/DAMAGED +\Q$second\E/, 'without the file the backup is listed as damaged');
write_file($pack, $good);

# ---- no room, killed, and then again -------------------------------------------------------------------------------

{
	local %ENV = $node->_get_env();
	delete @ENV{qw(PGHOST PGPORT PGDATABASE PGUSER PGDATA)};
	($rc, $out, $err) = run_program(
		[
			'sh', '-c', 'trap "" XFSZ; ulimit -f 2000; exec "$@"', 'sh',
			'pgx_rcvall', '-D', $data, @open
		]);
	is($rc, 1, 'no room: exit code');
	like($err, qr/error: could not write file ".*": File too large/, 'no room: message');
	ok(!-e "$data/global/pg_control", 'no room: no control file');
	foreach my $signal (qw(KILL TERM))
	{
		my $text = '';
		my $run = IPC::Run::start([ 'pgx_rcvall', '-D', $data, @open ], '<', '/dev/null', '>', \$text, '2>', \$text);
		foreach (1 .. 1000 * $PostgreSQL::Test::Utils::timeout_default)
		{
			last if -e "$data/base" || glob(tablespace_dir($node, 'sec') . '/PG_*/*');
			$run->pump_nb;
			usleep(1_000);
		}
		$run->signal($signal);
		eval { $run->finish };
		ok(-e "$data/pgx_rcvall.incomplete", "$signal: marked as incomplete");
		unlike($text, qr/completed successfully/, "$signal: not done");
		ok(!-e "$data/recovery.signal", "$signal: and not ready for a server");
	}
}
rcvall_ok($node, @open);
is_recovered($node, $wanted, 'the same command after all that');

# Dead at one point after the other: in its own steps, and with "+" in those of the thread that writes files.
SKIP:
{
	skip 'strace (package strace) is needed, and that it may trace processes of this user', 1 if !can_inject();

	kill_at_each($node,
		[
			'mkdir:1', 'rename:1', 'fsync:2', '+mkdir:1', '+mkdir:15', '+pwrite64:1', '+pwrite64:300', 'syncfs:1', 'rename:2', 'symlink:1',
			'symlink:2', 'fsync:5', 'rename:3', 'wait4:1', 'wait4:2', 'unlink:3', 'unlink:5', 'unlink:6', 'unlink:7'
		],
		run => [ 'pgx_rcvall', @open ],
		before => sub { lose($node) },
		killed => sub { recovers_again($node, $wanted, $_[0], @open) });
}
$node->start;

# ---- WAL in the backup alone, tablespaces elsewhere ---------------------------------------------------------------------

$node->append_conf('postgresql.conf', 'archive_mode = off');
$node->restart;
$node->safe_psql('postgres', "INSERT INTO t_sec VALUES (0, 'MARK_packed last')");
$wanted = fingerprint($node, 'postgres');
dmpall_ok($node, @make, 'zstd', '--no-archive', '--label', 'third');
my ($sec, $moved) = (tablespace_dir($node, 'sec'), tablespace_dir($node, 'moved'));
lose($node);
rcvall_ok($node, @open, '--tablespace-mapping', "$sec=$moved");
comes_up($wanted, 'no archive, a tablespace elsewhere');
is($node->safe_psql('postgres', q{SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'sec'}),
	$moved, 'and it is there');
$node->stop;

done_testing();
