# 323_standby_faults.pl
#		pgx_rcvall --standby on disks that are full, and with a keystore that comes through a real sshd: whatever fails,
#		nothing is left.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PgxBackup;
use PgxDisk;
use PgxSshd;
use PgxStandby;
use PgxTde;

my $primary = backup_primary('primary', conf => "autovacuum = off\n");
fill_tablespaces($primary, 'MARK_build');
$primary->safe_psql('postgres',
	q{CREATE TABLE big TABLESPACE sec AS SELECT g, md5(g::text) AS x FROM generate_series(1, 100000) g; CHECKPOINT});
my $plan = plan_standby($primary, 'standby');
my $from = "host='" . $primary->host . "' port=" . $primary->port . ' dbname=postgres';
my @from = ('--from', $from);
my @slot = ('--slot', 'slot1', '--create-slot');
my @pass = ('--passphrase-file', pass_file($primary), @slot);
my @backup = ('-B', area_dir($primary), '--primary-conninfo', $from);

dmpall_ok($primary, '--label', 'plain');
dmpall_ok($primary, '--label', 'packed', '--compress=zstd', '--passphrase-file', pass_file($primary));

# ---- full disks ------------------------------------------------------------------------------------

my $disk = small_disk();

sub full_disk_fails
{
	my ($name, $limit, $message, @args) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($rc, $out, $err) = on_small_disk($limit, build_args($plan, @args));
	is($rc, 1, "$name: exit code");
	like($err, $message, "$name: message");
	is(left_on_disk(), '', "$name: nothing is left on the disk");
	standby_absent($plan, $name);
	return;
}

SKIP:
{
	skip 'a user namespace is needed, and unshare (package util-linux) that can keep its rights', 1 if !can_limit_disk();

	my @data = (@pass, '-D', "$disk/data");
	my $full = qr/No space left on device/;
	full_disk_fails('base backup', 'size=6m', qr/$full.*program ".*pg_basebackup" failed with exit code 1/s, @from, @data);
	# WAL is received beside the data, into segments of their whole length.
	full_disk_fails('its WAL', 'size=12m', qr/$full.*program ".*pg_basebackup" failed with exit code 1/s, @from, @data);
	full_disk_fails('a directory for the keystore', 'nr_inodes=1', qr/could not create directory "\Q$disk\E\/keys": $full/, @from, @pass,
		'--keystore-location', "$disk/keys");
	full_disk_fails('keystore', 'nr_inodes=2', $full, @from, @pass, '--keystore-location', "$disk/keys");
	full_disk_fails('automatic opening', 'size=4k', $full, @from, @pass, '--keystore-location', "$disk/keys", '--auto-open');

	full_disk_fails('from a backup', 'size=6m', qr/could not (copy|write|create) file ".*$full/, @backup, @data, '--backup', 'plain');
	full_disk_fails('from a compressed backup', 'size=6m', qr/could not (write|create) file ".*$full/, @backup, @data, '--backup', 'packed');
	full_disk_fails('no room for directories', 'nr_inodes=20', $full, @backup, @data, '--backup', 'packed');

	# As large as it must be, it works there too.
	my ($rc, $out, $err) = on_small_disk('size=600m', 'sh', '-c', '"$@" && psql -XAtq -h "$0" -p ' . $plan->{port}
		. " -d postgres -c 'SELECT pg_is_in_recovery()' && pg_ctl -s -w -D '$disk/data' stop", $primary->host, build_args($plan, @from, @data));
	is($rc, 0, 'control: a disk with room') or diag($err);
	like($out, qr/^The standby is streaming\.\nt$/m, 'control: a standby is built on it');
	stop_standby($plan);
}

# ---- a keystore that comes through sshd ----------------------------------------------------------------

SKIP:
{
	skip 'sshd is not installed', 1 unless find_sshd();
	my $dir = work_dir() . '/ssh';
	mkdir $dir, 0700;
	my $sshd = start_sshd($dir);

	my @ssh = map { "--ssh-option=$_" } ssh_options($sshd);
	my $keystore = "$sshd->{host}:" . keystore_dir($primary);

	build_fails($plan, 'no such directory over there', 1, qr/could not fetch the keystore "\/nowhere\/keystore.ks" from host "\Q$sshd->{host}\E"/,
		@from, @pass, @ssh, '--keystore', "$sshd->{host}:/nowhere");
	mkdir "$dir/empty", 0700;
	write_file("$dir/empty/keystore.ks", '');
	build_fails($plan, 'an empty file over there', 1, qr/could not fetch the keystore/, @from, @pass, @ssh, '--keystore', "$sshd->{host}:$dir/empty");
	write_file("$dir/empty/keystore.ks", substr slurp_raw(keystore_file($primary)), 0, 300);
	build_fails($plan, 'half a file over there', 1, qr/error: .*(corrupted|damaged|truncated)/, @from, @pass, @ssh, '--keystore',
		"$sshd->{host}:$dir/empty");
	build_fails($plan, 'a name for the shell over there', 1, qr/could not fetch the keystore/, @from, @pass, @ssh, '--keystore',
		"$sshd->{host}:$dir/x;touch $dir/pwned;");
	ok(!-e "$dir/pwned", 'and no shell ran it');
	build_fails($plan, 'another port', 1, qr/could not fetch the keystore/, @from, @pass, '--ssh-option=-p', '--ssh-option=1', @ssh,
		'--keystore', $keystore);
	build_fails($plan, 'no such program', 1, qr/could not run program "\/nowhere\/ssh"/, @from, @pass, '--ssh=/nowhere/ssh', '--keystore', $keystore);
	build_fails($plan, 'the wrong passphrase for it', 2, qr/passphrase/, @from, @slot, @ssh, '--keystore', $keystore, '--passphrase-file',
		write_file(work_dir() . '/bad', "not the passphrase\n"));

	my $weird = "$dir/it's a `place` \$(x)";
	mkdir $weird, 0700;
	write_file("$weird/keystore.ks", slurp_raw(keystore_file($primary)));
	foreach my $case ([ 'from the primary', $keystore, @from ], [ 'a directory with a name', "$sshd->{host}:$weird", @backup ])
	{
		my ($name, $place, @how) = @$case;
		my ($rc, $out, $err) = build($plan, @how, @pass, @ssh, '--keystore', $place);
		is($rc, 0, "$name: built") or diag($err);
		is_same_file(keystore_file($primary), "$plan->{keys}/keystore.ks", "$name: the same bytes");
		streams($plan, $name);
		stop_standby($plan);
	}
	my $log = slurp_raw($sshd->{log});
	like($log, qr/Accepted publickey/, 'control: sshd was asked');
	is(index($log, $PASSPHRASE), -1, 'and knows no passphrase');
}

done_testing();
