# 332_recover_faults.pl
#		pgx_rcvall where something is wrong: what is missing is named before anything is touched, nothing is deleted
#		that is somebody's, and whatever a run that died has left is put right by the next one.

use strict;
use warnings;

use Fcntl qw(:flock);
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PgxBackup;
use PgxTde;

my $node = backup_primary('main');
my $area = area_dir($node);
my $data = $node->data_dir;
fill_tablespaces($node, 'MARK_backup');
dmpall_ok($node);
my $backup = newest_backup($node);
my $info = backup_info($backup);
my ($sec) = grep { $_->{name} eq 'sec' } @{ $info->{tablespaces} };

# Several segments after the backup.
foreach my $i (1 .. 3)
{
	$node->safe_psql('postgres', "INSERT INTO t_sec SELECT g, 'MARK_backup $i' FROM generate_series(1, 100) g");
	archived($node);
}
my $content = fingerprint($node, 'postgres');

# Nothing but what the node's own keeps there.
sub untouched
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is_deeply([ map { grep { !/^\./ } slurp_dir($_) } $data, map { $_->{location} } @{ $info->{tablespaces} } ], [],
		"$name: nothing is touched");
}

sub refused
{
	my ($name, $like, @options) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($rc, $out, $err) = rcvall($node, '-B', $area, @options);
	is($rc, 1, "$name: exit code");
	return like($err, $like, "$name: message");
}

# ---- refused before anything is touched -------------------------------------------------------------

refused('running', qr/the server is running.*Please stop the server and retry\./s);
ok(is_running($node), 'and it still is');
$node->stop;
refused('not empty', qr/directory "\Q$data\E" is not empty.*Move what is in it to another place/s);
ok(-e "$data/PG_VERSION", 'not empty: it is still there');

lose($node);
write_file("$sec->{location}/stranger", 'not ours');
refused('a tablespace is not empty', qr/directory "\Q$sec->{location}\E" is not empty.*"stranger"/s);
ok(-e "$sec->{location}/stranger", 'a tablespace is not empty: the file is still there');
unlink "$sec->{location}/stranger";
untouched('a tablespace is not empty');

rmdir $sec->{location} or die "$!";
refused('no directory for a tablespace',
	qr/the directory "\Q$sec->{location}\E" for the tablespace with OID "$sec->{oid}" does not exist/);
mkdir $sec->{location} or die "$!";
untouched('no directory for a tablespace');

my @segments = sort grep { /^[0-9A-F]{24}$/ } slurp_dir("$area/archived_wal");
my $segment = $segments[-2];
rename "$area/archived_wal/$segment", "$area/away" or die "$!";
refused('a segment is missing', qr/WAL segment "$segment" is missing, but there are later ones/);
untouched('a segment is missing');

write_file("$area/archived_wal/$segment", "\0" x 16777216);
refused('a segment is damaged', qr/WAL segment ".*$segment" is not usable: it does not begin with the page/);
write_file("$area/archived_wal/$segment", 'short');
refused('a segment is short', qr/WAL segment ".*$segment" is not usable: its size is wrong/);
untouched('a segment is damaged');
unlink "$area/archived_wal/$segment";
rename "$area/away", "$area/archived_wal/$segment" or die "$!";

my $keystore = keystore_file($node);
rename $keystore, "$keystore.away" or die "$!";
rename "$backup/keystore", "$backup/keystore.away" or die "$!";
refused('the backup is not whole', qr/backup data "\Q$backup\E" is lost: "keystore\/keystore.ks" is missing.*has not yet been performed/s);
rename "$backup/keystore.away", "$backup/keystore" or die "$!";
pgx_keystore([ 'create', '--kdf-cost', 10, $keystore ], "another passphrase\n");
refused('keystore of another server', qr/keystore "\Q$keystore\E" does not belong to the backup/);
rename "$keystore.away", $keystore or die "$!";
untouched('keystore');

mkdir "$area/inside", 0700;
{
	my ($rc, $out, $err) = run_program([ 'pgx_rcvall', '-D', "$area/inside", '-B', $area ]);
	is($rc, 1, 'data directory in the area: exit code');
	like($err, qr/directory "\Q$area\E\/inside" and the backup storage directory "\Q$area\E" overlap/,
		'data directory in the area: message');
}
rmdir "$area/inside";

# The area is somebody's who makes a backup, say.
{
	open my $fh, '+<', "$area/pgx_backup.lock" or die "$!";
	flock $fh, LOCK_EX or die "$!";
	refused('two at once', qr/is being executed by another user.*Retry after the other process terminates\./s);
	untouched('two at once');
}

# ---- a plan ------------------------------------------------------------------------------------------

my ($rc, $out, $err) = rcvall($node, '-B', $area, '--dry-run');
is($rc, 0, 'dry run') or diag($err);
like($out, qr/^Backup: \Q$backup\E\nData directory: \Q$data\E\nTablespace sec: \Q$sec->{location}\E\n/, 'dry run: what it tells');
untouched('dry run');
($rc, $out, $err) = rcvall($node, '-B', $area, '--dry-run', '--json');
is(decode_json($out)->{status}, 'CHECKED', 'dry run in JSON');

# ---- damage that only copying or verifying shows -------------------------------------------------------

my ($file) = grep { -s > 8000 } glob "$backup/tablespaces/$sec->{oid}/PG_*/*/*";
my $bytes = slurp_raw($file);
write_file($file, substr($bytes, 0, 100) . chr(255 ^ ord substr $bytes, 100, 1) . substr($bytes, 101));
refused('a bit is flipped in the backup', qr/checksum mismatch.*what was restored is not what the manifest/s);
ok(-e "$data/pgx_rcvall.incomplete", 'a bit is flipped: what was restored is marked');
ok(!-e "$data/recovery.signal", 'and is no server');
unlink $file;
refused('a file is missing in the backup', qr/is present in the manifest but not on disk.*what was restored is not/s);
write_file($file, substr $bytes, 0, -1);
refused('a file is short in the backup', qr/has size \d+ on disk but size \d+ in the manifest.*what was restored is not/s);
ok(!-e "$data/global/pg_control", 'a file is short: there is no control file');
write_file($file, $bytes);
write_file("$backup/data/base/more", 'more');
refused('a file more is in the backup', qr/"\Q$backup\E\/data\/base\/more" is present on disk but not in the manifest.*is not/s);
unlink "$backup/data/base/more";
my $manifest = slurp_raw("$backup/data/backup_manifest");
write_file("$backup/data/backup_manifest", $manifest =~ s/"Size": (\d)/"Size": 1$1/r);
refused('the manifest is changed', qr/backup manifest .* is not valid: its checksum does not match/);
write_file("$backup/data/backup_manifest", $manifest);
write_file("$sec->{location}/stranger", 'not ours');
refused('a stranger came meanwhile', qr/directory "\Q$sec->{location}\E" is not empty/);
ok(-e "$sec->{location}/stranger", 'and stays');
unlink "$sec->{location}/stranger";
rcvall_ok($node, '-B', $area);
is_recovered($node, $content, 'after the damage is repaired');

# ---- killed --------------------------------------------------------------------------------------------

SKIP:
{
	skip 'strace (package strace) is needed, and that it may trace processes of this user', 1 if !can_inject();

	kill_at_each($node,
		[
			'mkdir:1', 'chmod:1', 'rename:1', 'fsync:2', 'copy_file_range:1', 'copy_file_range:40', 'copy_file_range:900',
			'symlink:1', 'symlink:2', 'fsync:4', 'fsync:300', 'rename:2', 'wait4:1', 'wait4:2', 'wait4:4', 'unlink:3',
			'unlink:4', 'unlink:5', 'unlink:6'
		],
		run => [ 'pgx_rcvall', '-B', $area ],
		before => sub { lose($node) },
		killed => sub { recovers_again($node, $content, $_[0], '-B', $area) });
}

# Interrupted, it stops its server and says so.
lose($node);
{
	local %ENV = $node->_get_env();
	delete @ENV{qw(PGHOST PGPORT PGDATABASE PGUSER)};
	my $slow = write_file(work_dir() . '/slow', "#!/bin/sh\nsleep 100\n", 0700);
	my $text = '';
	my $run = IPC::Run::start([ 'pgx_rcvall', '-D', $data, '-B', $area ], '<', '/dev/null', '>', \$text, '2>', \$text);
	wait_until(sub { $run->pump_nb; -e "$data/postmaster.pid" });
	$run->signal('TERM');
	$run->finish;
	is($? >> 8, 1, 'interrupted: exit code');
	like($text, qr/interrupted by signal 15/, 'interrupted: message');
	ok(!is_running($node), 'interrupted: no server is left');
	rcvall_ok($node, '-B', $area);
	is_recovered($node, $content, 'interrupted');
}

# ---- fetching WAL ----------------------------------------------------------------------------------------

my $to = work_dir() . '/fetched';
($rc) = run_program([ 'pgx_rcvall', '--fetch-wal', '-B', $area, $segment, $to ]);
is($rc, 0, '--fetch-wal: exit code');
is_same_file($to, "$area/archived_wal/$segment", '--fetch-wal: content');
($rc, $out, $err) = run_program([ 'pgx_rcvall', '--fetch-wal', '-B', $area, '0000000100000000000000FF', $to ]);
is("$rc$err", '1', '--fetch-wal: a file that is not there ends recovery, in silence');
($rc, $out, $err) = run_program([ 'pgx_rcvall', '--fetch-wal', '-B', $area, $segment, '/nowhere/x' ]);
is($rc, 255, '--fetch-wal: one that cannot be copied does not');
like($err, qr/could not create file "\/nowhere\/x"/, '--fetch-wal: message');
($rc) = run_program([ 'pgx_rcvall', '--fetch-wal', '-B', $area, "../x", $to ]);
is($rc, 255, '--fetch-wal: a path is refused');
($rc) = run_program([ 'pgx_rcvall', '--fetch-wal', $segment, $to ]);
is($rc, 255, '--fetch-wal: without -B');

done_testing();
