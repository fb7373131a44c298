# 165_destroy.pl
#		pgx_keystore destroy: refused while the key table of a data directory or a backup needs the key, which is named; with
#		--force the same is said, and done.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PgxBackup;
use PgxTde;
use Test::More;

my $node = backup_primary('primary');
my $area = area_dir($node);
my $file = keystore_file($node);
my $pgdata = $node->data_dir;
my @d = ('-d', $node->connstr('postgres'));
fill_tablespaces($node, 'MARK_destroy');
my $of_backup = status_of($node, 'active_master_key');
dmpall_ok($node);
my $backup = newest_backup($node);
rotate($node);
archived($node);

sub destroy
{
	my ($id, $options, $rc, $name, @patterns) = @_;
	my ($got, $out, $err) = pgx_keystore([ 'destroy', $id, @$options ], "$PASSPHRASE\n");
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($got, $rc, "$name: exit code");
	like("$out$err", $_, "$name: what it says") foreach @patterns;
	return;
}

my $needed = qr/^pgx_keystore: error: master key $of_backup is still needed$/m;
my $lost = qr/^pgx_keystore: detail: The backup "\Q$backup\E"\.$/m;
my $hint = qr/^pgx_keystore: hint: Rotate the master key on the server, remove the backups .*; or lose all this with --force\.$/m;

# The server knows its own backup area; another can be named.
destroy($of_backup, [@d], 1, 'a backup of the server', $needed, $lost, $hint);
destroy($of_backup, [ @d, '--backup-destination', $area ], 1, 'and named', $needed, $lost, $hint);
$node->stop;
destroy($of_backup, [ '--backup-destination', $area, $file ], 1, 'a backup that is named', $needed, $lost, $hint);

# The key table: of this data directory; and of a copy of the keystore that was rotated ahead of it.
my ($rc, $out, $err) = pgx_keystore([ 'rotate', $file ], "$PASSPHRASE\n");
is($rc, 0, 'rotated ahead of the server');
my $of_data = $of_backup + 1;
destroy($of_data, [ '-D', $pgdata, $file ], 1, 'the key table',
	qr/^pgx_keystore: error: master key $of_data is still needed$/m,
	qr/^pgx_keystore: detail: All encrypted data and WAL of the data directory "\Q$pgdata\E"\.$/m, $hint);
destroy($of_data, [ '-D', $pgdata, '--backup-destination', $area, $file ], 1, 'both',
	qr/^pgx_keystore: detail: All encrypted data and WAL of the data directory/m,
	qr/^pgx_keystore: detail: Recovery from the backup "\Q$backup\E" to a later time\.$/m);

# What cannot be looked at might need it.
destroy($of_backup, [ '--backup-destination', work_dir() . '/none', $file ], 1, 'no such backup area',
	qr/^pgx_keystore: hint: Since it cannot be told what needs master key $of_backup, it stays; --force destroys it all the same\.$/m);
my $before = slurp_raw($file);

$node->start;
is($node->safe_psql('postgres', 'SELECT count(*) FROM t_sec'), 2000, 'control: all that was refused is there');
ok(slurp_raw($file) eq $before, 'control: the keystore is untouched');

# With --force the same is said, and it is so.
destroy($of_backup, [ @d, '--force' ], 0, 'with --force',
	qr/^pgx_keystore: warning: what needs master key $of_backup is lost for good$/m, $lost,
	qr/^master key $of_backup of server ".*" has been destroyed, generation \d+$/m);
($rc, $out, $err) = run_program([ 'pgx_rcvall', '--check', '-B', $area, '--keystore-location', keystore_dir($node), '--keystore-passphrase' ], stdin => "$PASSPHRASE\n");
isnt($rc, 0, 'the backup is lost indeed');
like("$out$err", qr/master key $of_backup, which the backup needs, has been destroyed/, 'and why');
$node->stop;
done_testing();
