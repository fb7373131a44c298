# pgx_keystore create, info, passwd and auto-open, and what they refuse.

use strict;
use warnings;

use Digest::SHA qw(sha256);
use FindBin;
use lib $FindBin::RealBin;
use PgxCommand;
use PostgreSQL::Test::Utils;
use Test::More;

my $top = new_dir();
my $file = "$top/a/keystore.ks";
my $uuid_re = qr/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/;
my @host_secret = ('--host-secret', "$top/host/secret");
mkdir "$top/host", 0700;

sub ks { return [ 'pgx_keystore', @_ ] }

# ---- create ----

my $out = cmd_ok(ks('create', @fast, $file),
	qr/^keystore $uuid_re has been created in "\Q$file\E"$/, 'create', stdin => "$passphrase\n");
my ($uuid) = $out =~ /($uuid_re)/;
is(mode_of("$top/a"), '0700', 'directory was made 0700');
is(mode_of($file), '0600', 'file is 0600');

my $before = read_file($file);
cmd_fails(ks('create', @fast, $file), 1, qr/error: file "\Q$file\E" already exists/,
	'create over an existing keystore', stdin => "another passphrase\n");
is(read_file($file), $before, 'and it is untouched');

# What fails leaves nothing behind.
for my $case (
	[ '', qr/end of file on standard input/, 'nothing on standard input' ],
	[ "1234567\n", qr/passphrase is too short or too long/, '7 bytes' ],
	[ 'x' x 201 . "\n", qr/passphrase is too short or too long/, '201 bytes' ],
	[ 'x' x 5000 . "\n", qr/passphrase is too short or too long/, '5000 bytes' ],
	[ "\n", qr/passphrase is too short or too long/, 'empty line' ],
	[ "12345678\0\n", qr/the passphrase contains a zero byte/, 'zero byte' ])
{
	my ($stdin, $like, $name) = @$case;
	cmd_fails(ks('create', @fast, "$top/fail/keystore.ks"), 1, $like, "create: $name", stdin => $stdin);
	ok(!-e "$top/fail", 'and there is no directory');
}
cmd_fails(ks('create', "$top/fail/other.ks"), 1, qr/does not name a file "keystore.ks"/, 'other file name');
cmd_fails(ks('create', "$top/no/such/keystore.ks"), 1, qr/could not create directory .*: No such file/,
	'no parent directory');
cmd_fails(ks('create', "$file/keystore.ks"), 1, qr/not a directory/i, 'a file where a directory should be');

for my $length (8, 200)
{
	mkdir "$top/len$length", 0700;
	cmd_ok(ks('create', @fast, "$top/len$length/keystore.ks"), qr/has been created/,
		"passphrase of $length bytes", stdin => 'x' x $length . "\n");
	cmd_ok(ks('info', '--open', "$top/len$length/keystore.ks"), qr/^Master key 1:/m,
		'opens it', stdin => 'x' x $length . "\n");
}
cmd_ok(ks('info', '--open', "$top/len8/keystore.ks"), qr/^Master key 1:/m,
	'no newline after the passphrase', stdin => 'x' x 8);
cmd_ok(ks('info', '--open', "$top/len8/keystore.ks"), qr/^Master key 1:/m,
	'CR LF after the passphrase', stdin => 'x' x 8 . "\r\n");

# Places where a keystore must not be.
my $pgdata = new_dir();
write_file("$pgdata/PG_VERSION", "15\n");
mkdir "$pgdata/$_" for qw(global base sub);
for my $dir ($pgdata, "$pgdata/sub", "$pgdata/new")
{
	cmd_fails(ks('create', @fast, "$dir/keystore.ks"), 1,
		qr/is inside the data directory "\Q$pgdata\E"/, "create in $dir", stdin => "$passphrase\n");
}
symlink "$pgdata/sub", "$top/link";
cmd_fails(ks('create', @fast, "$top/link/keystore.ks"), 1,
	qr/is inside the data directory "\Q$pgdata\E"/, 'through a symbolic link', stdin => "$passphrase\n");
my $tablespace = new_dir();
mkdir "$tablespace/PG_15_202209061";
cmd_fails(ks('create', @fast, "$tablespace/new/keystore.ks"), 1,
	qr/is inside a tablespace directory "\Q$tablespace\E"/, 'in a tablespace', stdin => "$passphrase\n");
ok(!-e "$pgdata/new" && !-e "$pgdata/sub/keystore.ks" && !-e "$tablespace/new", 'nothing was made');

mkdir "$top/open", 0755;
chmod 0755, "$top/open";
cmd_fails(ks('create', @fast, "$top/open/keystore.ks"), 1,
	qr/hint: .*chmod (?:0?700|u=rwx,go=|go-rwx) ["']?\Q$top\E\/open/i, 'directory open to others', stdin => "$passphrase\n");

# ---- info ----

cmd_ok(ks('info', $file), qr/^UUID:\s+$uuid\nGeneration:\s+1\n/m, 'info needs no passphrase');
cmd_ok(ks('info', $file), qr/^Slot 1:\s+passphrase, scrypt N=2\^10 r=8 p=1, /m, 'info shows the slot');
cmd_ok(ks('info', $file), qr/^Auto-open:\s+not enabled$/m, 'info shows no auto-open');
unlike((run_cmd(ks('info', $file)))[1], qr/Master key/, 'no list of keys without a passphrase');
cmd_ok(ks('info', '--open', $file), qr/^Master key 1:\s+active, created 20.*, by pgx_keystore$/m,
	'info --open', stdin => "$passphrase\n");
cmd_fails(ks('info', '--open', $file), 2, qr/could not open keystore .*passphrase is wrong/,
	'info --open, wrong passphrase', stdin => "not the passphrase\n");
cmd_fails(ks('info', '--open', $file), 1, qr/end of file on standard input/, 'info --open, no passphrase');

SKIP:
{
	my ($rc, $json, $err) = run_cmd(ks('info', '--json', '--open', $file), stdin => "$passphrase\n");
	skip 'built without libjansson', 1 if $err =~ /not supported by this build/;
	require JSON::PP;
	my $data = JSON::PP::decode_json($json);
	is_deeply(
		[ @$data{qw(uuid generation)}, $data->{modes}, $data->{auto_open}{kind},
			$data->{slots}[0]{kdf}{name}, $data->{slots}[0]{kdf}{cost},
			$data->{master_keys}[0]{state}, $data->{master_keys}[0]{retired} ],
		[ $uuid, 1, { file => '0600', directory => '0700' }, 'none', 'scrypt', 10, 'active', undef ],
		'info --json');
}

# ---- bad keystores: {name, change, message} ----

my $good = read_file($file);
my @damage = (
	[ 'empty', sub { '' }, 1, qr/is (?:corrupted|not a keystore|damaged)/ ],
	[ 'truncated in the header', sub { substr $_[0], 0, 20 }, 1, qr/is (?:corrupted|damaged)|corrupted/ ],
	[ 'truncated by one byte', sub { substr $_[0], 0, -1 }, 1, qr/corrupted|damaged/ ],
	[ 'one byte too long', sub { $_[0] . 'x' }, 1, qr/corrupted|damaged/ ],
	[ 'wrong magic', sub { my $b = shift; substr($b, 0, 1) = 'X'; $b }, 1, qr/is not a keystore/ ],
	[ 'unknown version',
		sub {
			# A later version: everything else, the digest too, is in order.
			my $b = substr $_[0], 0, -32;
			substr($b, 8, 2) = pack 'n', 3;
			return $b . sha256($b);
		},
		1, qr/has format version 3, but only versions 1 and 2 are supported/ ],
);
mkdir "$top/bad", 0700;
my $bad = "$top/bad/keystore.ks";
for my $case (@damage)
{
	my ($name, $change, $code, $like) = @$case;
	write_file($bad, $change->($good));
	cmd_fails(ks('info', $bad), $code, $like, "info: $name");
	cmd_fails(ks('passwd', @fast, $bad), $code, $like, "passwd: $name",
		stdin => "$passphrase\nanother passphrase\n");
	is(read_file($bad), $change->($good), 'and it is untouched');
}

# A byte flipped anywhere is never accepted.  The unit tests flip every byte; here every seventh.
my @accepted;
for my $i (map { $_ * 7 } 0 .. (length($good) - 1) / 7)
{
	my $b = $good;
	substr($b, $i, 1) = chr(ord(substr $b, $i, 1) ^ 0x40);
	write_file($bad, $b);
	my ($rc, $o) = run_cmd(ks('info', '--open', $bad), stdin => "$passphrase\n");
	push @accepted, $i unless ($rc == 1 || $rc == 2) && $o eq '';
}
is("@accepted", '', 'no flipped byte goes unnoticed');

unlink $bad;
cmd_fails(ks('info', $bad), 1, qr/error: .*(?:does not exist|No such file)/, 'no keystore');
symlink $file, $bad;
cmd_fails(ks('info', $bad), 1, qr/symbolic link/, 'symbolic link');
unlink $bad;
mkdir $bad, 0700;
cmd_fails(ks('info', $bad), 1, qr/not a regular file/, 'directory');
rmdir $bad;
for my $mode (0640, 0604, 0660, 0610)
{
	write_file($bad, $good, $mode);
	cmd_fails(ks('info', $bad), 1, qr/hint: .*chmod/, sprintf('mode %04o', $mode));
}
chmod 0600, $bad;
chmod 0750, "$top/bad";
cmd_fails(ks('info', $bad), 1, qr/hint: .*chmod/, 'directory of mode 0750');
chmod 0700, "$top/bad";

# ---- passwd ----

cmd_fails(ks('passwd', @fast, $file), 2, qr/passphrase is wrong/, 'passwd, wrong passphrase',
	stdin => "not the passphrase\nanother passphrase\n");
cmd_fails(ks('passwd', @fast, $file), 1, qr/too short or too long/, 'passwd, short new passphrase',
	stdin => "$passphrase\nshort\n");
cmd_fails(ks('passwd', @fast, $file), 1, qr/end of file/, 'passwd, no new passphrase', stdin => "$passphrase\n");
is(read_file($file), $good, 'and the keystore is untouched');
cmd_ok(ks('passwd', @fast, $file), qr/has been changed, generation 2$/, 'passwd',
	stdin => "$passphrase\nanother passphrase\n");
is(read_file("$file.prev"), $good, 'the former file is kept');
cmd_fails(ks('info', '--open', $file), 2, qr/passphrase is wrong/, 'the old passphrase is refused',
	stdin => "$passphrase\n");
cmd_ok(ks('info', '--open', $file), qr/^Master key 1:/m, 'the new one opens', stdin => "another passphrase\n");
is(keystore_uuid($file), $uuid, 'UUID is the same');

my $old_pw = write_file("$top/old.pw", "another passphrase\nsecond line\n");
my $new_pw = write_file("$top/new.pw", "$passphrase\n");
cmd_ok(ks('passwd', @fast, '--passphrase-file', $old_pw, '--new-passphrase-file', $new_pw, $file),
	qr/has been changed, generation 3$/, 'passwd with files');
for my $mode (0640, 0604)
{
	chmod $mode, $new_pw;
	cmd_fails(ks('info', '--open', '--passphrase-file', $new_pw, $file), 1,
		[ qr/has permissions 0\d+, which let others at it/, qr/hint: Run: chmod 0600/ ],
		sprintf('passphrase file of mode %04o', $mode));
}
chmod 0600, $new_pw;
symlink $new_pw, "$top/link.pw";
cmd_fails(ks('info', '--open', '--passphrase-file', "$top/link.pw", $file), 1, qr/is a symbolic link/,
	'passphrase file is a symbolic link');
cmd_fails(ks('info', '--open', '--passphrase-file', $top, $file), 1, qr/is not a regular file/,
	'passphrase file is a directory');
cmd_fails(ks('info', '--open', '--passphrase-file', "$top/none", $file), 1, qr/could not open file/,
	'passphrase file does not exist');

# ---- auto-open ----

cmd_ok(ks('auto-open', 'status', @host_secret, $file), qr/^auto-open: not enabled$/, 'status before');
cmd_fails(ks('--enable-auto-open', @host_secret, $file), 2, qr/passphrase is wrong/,
	'enable with a wrong passphrase', stdin => "not the passphrase\n");
ok(!-e "$top/a/keystore.aks", 'nothing was written');
cmd_ok(ks('--enable-auto-open', @host_secret, $file),
	qr/^Automatic opening of the keystore is now enabled$/, '--enable-auto-open', stdin => "$passphrase\n");
is(mode_of("$top/a/keystore.aks"), '0600', 'keystore.aks is 0600');
cmd_ok(ks('auto-open', 'status', @host_secret, $file), qr/^auto-open: enabled \(host\)$/m, 'status after');
cmd_ok(ks('info', @host_secret, $file), qr/^Auto-open:\s+enabled \(host\)$/m, 'info after');

mkdir "$top/moved", 0700;
write_file("$top/moved/$_", read_file("$top/a/$_")) for qw(keystore.ks keystore.aks);
my ($rc, $text) = run_cmd(ks('auto-open', 'status', @host_secret, "$top/moved/keystore.ks"));
is($rc, 2, 'status of a copied keystore.aks: exit code');
like($text, qr/^auto-open: not usable \(host\): \S/, 'status of a copied keystore.aks');

cmd_ok(ks('passwd', @fast, $file), qr/has been changed/, 'change the passphrase',
	stdin => "$passphrase\nanother passphrase\n");
cmd_ok(ks('auto-open', 'status', @host_secret, $file), qr/^auto-open: enabled \(host\)$/m,
	'auto-open outlives a change of the passphrase');
cmd_ok(ks('auto-open', 'disable', @host_secret, $file),
	qr/^Automatic opening of the keystore is now disabled$/, 'disable');
ok(!-e "$top/a/keystore.aks", 'keystore.aks is gone');
cmd_ok(ks('auto-open', 'disable', @host_secret, $file), qr/now disabled$/, 'disable again');

done_testing();
