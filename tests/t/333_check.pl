# 333_check.pl
#		pgx_rcvall --check: what fits passes, and what is missing is named: the file, the segment, the key.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PgxBackup;
use PgxTde;

my $node = backup_primary('main', open => 'none');
my $area = area_dir($node);
my $keystore = keystore_file($node);
fill_tablespaces($node, 'MARK_backup');
dmpall_ok($node);
my $backup = newest_backup($node);
my $of_the_day = slurp_raw($keystore);
foreach (1 .. 3)
{
	rotate($node);
	$node->safe_psql('postgres', "INSERT INTO t_sec SELECT g, 'MARK_backup' FROM generate_series(1, 100) g");
	archived($node);
}
my $key = backup_info($backup)->{keystore}{master_keys}[0];

sub check
{
	my (@options) = @_;
	return run_program([ 'pgx_rcvall', '--check', '-B', $area, '--keystore-passphrase', @options ], stdin => "$PASSPHRASE\n");
}

sub fits
{
	my ($name, $like) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($rc, $out, $err) = check();
	is($rc, 0, "$name: exit code") or diag($err);
	like($out, qr/^Backup: \Q$backup\E\nKeystore: $like\nFiles: complete\nWAL: complete up to [0-9A-F\/]+ on timeline 1\nBackup, WAL and keystore fit together\.\n$/,
		"$name: what it says");
	return;
}

sub fails
{
	my ($name, $code, $like, @options) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($rc, $out, $err) = check(@options);
	is($rc, $code, "$name: exit code");
	like($err, $like, "$name: message");
	unlike($out, qr/fit together/, "$name: and it does not pass");
	return;
}

# ---- what fits ---------------------------------------------------------------------------------

fits('beside the running server', qr/"\Q$keystore\E" opens the backup/);
my $today = slurp_raw($keystore);
$node->stop;
write_file($keystore, $of_the_day);
fits('with the keystore of its day', qr/"\Q$keystore\E" opens the backup/);
unlink $keystore;
fits('with the keystore lost', qr/"\Q$keystore\E", lost, as the backup has it, opens the backup/);
ok(!-e $keystore, 'and it has not been put there');
write_file($keystore, $today);

# ---- what does not ------------------------------------------------------------------------------

my ($rc, $out, $err) = run_program([ 'pgx_rcvall', '--check', '-B', $area ]);
is($rc, 2, 'keystore closed: exit code');
like($err, qr/the keystore is not open/, 'keystore closed: message');
like($out, qr/^Files: complete$/m, 'keystore closed: the rest is looked at');
($rc, $out, $err) = run_program([ 'pgx_rcvall', '--check', '-B', $area, '--keystore-passphrase' ], stdin => "wrong passphrase\n");
is($rc, 2, 'wrong passphrase: exit code');
like($err, qr/passphrase is wrong/, 'wrong passphrase: message');

my ($file) = grep { -s > 8000 } glob "$backup/tablespaces/*/PG_*/*/*";
my $bytes = slurp_raw($file);
(my $relative = $file) =~ s{^.*/tablespaces/}{pg_tblspc/};
unlink $file;
fails('a file is missing', 1, qr/"\Q$relative\E" is present in the manifest but not on disk.*is not what its manifest says/s);
write_file($file, substr($bytes, 0, -1) . chr(255 ^ ord substr $bytes, -1));
fails('a file is changed', 1, qr/checksum mismatch for file "\Q$relative\E"/);
write_file($file, $bytes);

my @segments = sort grep { /^[0-9A-F]{24}$/ } slurp_dir("$area/archived_wal");
my $segment = $segments[-2];
rename "$area/archived_wal/$segment", "$area/away" or die "$!";
fails('a segment is missing', 1, qr/WAL segment "$segment" is missing, but there are later ones/);
fails('a segment and a key', 1, qr/does not belong to the backup.*WAL segment "$segment" is missing/s,
	'--keystore-location', do {
		my $dir = work_dir() . '/stranger';
		mkdir $dir, 0700;
		pgx_keystore([ 'create', '--kdf-cost', 10, "$dir/keystore.ks" ], "$PASSPHRASE\n");
		$dir;
	});
# Zeroes behind the first page: only reading all of it shows that.
my $whole = slurp_raw("$area/away");
write_file("$area/archived_wal/$segment", substr($whole, 0, 64) . "\0" x (length($whole) - 64));
fails('a segment is empty', 1, qr/WAL cannot be read beyond [0-9A-F\/]+/);
rename "$area/away", "$area/archived_wal/$segment" or die "$!";

# The key that the backup needs is destroyed; in the keystore of today it is a former one.
($rc, $out, $err) = run_program([ 'pgx_keystore', 'destroy', '--force', $key, $keystore ], stdin => "$PASSPHRASE\n");
is($rc, 0, 'control: the key can be destroyed with force') or diag($err);
fails('a key is destroyed', 2, qr/master key $key, which the backup needs, has been destroyed/);
write_file($keystore, $today);
fits('all is well again', qr/"\Q$keystore\E" opens the backup/);

done_testing();
