# Slots, the recovery key, the life of master keys, rekey, backup and repair: on files, without a server.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PgxCommand;
use PostgreSQL::Test::Utils;
use Test::More;

my $top = new_dir();
mkdir "$top/$_", 0700 for qw(a b host);
my $file = new_keystore("$top/a");
my @host_secret = ('--host-secret', "$top/host/secret");
my $second = 'the passphrase of a second custodian';
my $third = 'the passphrase of a third custodian';

sub ks { return [ 'pgx_keystore', @_ ] }
sub slots { return (run_cmd(ks('slot', 'list', $file)))[1] }

sub opens
{
	my ($pass, $name) = @_;
	return cmd_ok(ks('keys', $file), qr/^ +1 /m, $name, stdin => "$pass\n");
}

sub opens_not
{
	my ($pass, $name) = @_;
	return cmd_fails(ks('keys', $file), 2, qr/error: .*passphrase is wrong/, $name, stdin => "$pass\n");
}

# ---- slots ----

cmd_ok(ks('slot', 'add', @fast, '--label', 'Bob', $file), qr/^slot 2 has been added to keystore "\Q$file\E", generation 2$/,
	'slot add', stdin => "$passphrase\n$second\n");
opens($second, 'the second opens');
opens($passphrase, 'and so does the first');
like(slots(), qr/^ +2  passphrase  20\S+  .*scrypt N=2\^10 r=8 p=1  Bob$/m, 'slot list');
my $before = read_file($file);
cmd_fails(ks('slot', 'add', @fast, '--label', 'Bob', $file), 1, qr/has the label "Bob" already/, 'a label that is taken', stdin => "$passphrase\n$third\n");
cmd_fails(ks('slot', 'add', @fast, $file), 2, qr/passphrase is wrong/, 'slot add, wrong passphrase', stdin => "not the one\n$third\n");
cmd_fails(ks('slot', 'add', @fast, $file), 1, qr/too short or too long/, 'slot add, short passphrase', stdin => "$passphrase\nshort\n");
cmd_fails(ks('slot', 'change', '--slot', 7, @fast, $file), 1, qr/has no slot 7/, 'slot change, no such slot', stdin => "$passphrase\n$third\n");
cmd_fails(ks('slot', 'remove', '--slot', 7, $file), 1, qr/has no slot 7/, 'slot remove, no such slot', stdin => "$passphrase\n");
cmd_fails(ks('slot', $_, $file), 1, qr/error: no slot is specified/, "slot $_ without --slot") for qw(change remove label);
cmd_fails(ks('slot', 'label', '--slot', 2, $file), 1, qr/error: no label is specified/, 'slot label without --label');
cmd_fails(ks('slot', 'frob', $file), 1, qr/unknown operation "slot frob"/, 'slot frob');
cmd_fails(ks('slot', 'remove', '--slot', '0', $file), 1, qr/--slot must be in range/, '--slot 0');
cmd_fails(ks('slot', 'list'), 1, qr/keystore location is not specified/, 'slot list of nothing');
cmd_fails(ks('slot', 'list', '-d', 'x', $file), 1, qr/a keystore file and option -d cannot be used together/, 'FILE and -d');
is(read_file($file), $before, 'and the keystore is untouched');

cmd_ok(ks('slot', 'label', '--slot', 1, '--label', 'Alice', $file), qr/is now labelled "Alice"/, 'slot label', stdin => "$second\n");
like(slots(), qr/^ +1 .*  Alice$/m, 'the label is there');
cmd_ok(ks('slot', 'change', '--slot', 2, @fast, $file), qr/^the passphrase of slot 2 of .* has been changed, generation 4$/,
	'slot change, opened by another', stdin => "$passphrase\n$third\n");
opens($third, 'the new one opens');
opens_not($second, 'the old one does not');
like(slots(), qr/^ +2 .*  Bob$/m, 'number and label stay');

# passwd changes the slot that its passphrase opens.
cmd_ok(ks('passwd', @fast, $file), qr/^the passphrase of keystore "\Q$file\E" has been changed, generation 5$/, 'passwd',
	stdin => "$third\n$second\n");
opens($passphrase, 'of one slot only');
opens($second, 'to the new one');

# ---- recovery key ----

cmd_fails(ks('recovery-key', 'add', @fast, $file), 1, qr/error: the recovery key is shown on a terminal only/,
	'recovery key, no terminal', stdin => "$passphrase\n");
cmd_fails(ks('recovery-key', 'frob', $file), 1, qr/unknown operation "recovery-key frob"/, 'recovery-key frob');
my $out = cmd_ok(ks('recovery-key', 'add', '--stdout', @fast, '--label', 'safe', $file),
	qr/^[0-9A-Z]{5}(?:-[0-9A-Z]{5}){7}$/, 'recovery-key add --stdout', stdin => "$passphrase\n");
chomp(my $recovery = $out);
like(slots(), qr/^ +3  recovery .*  safe$/m, 'its slot');
opens($recovery, 'it opens');
opens(lc $recovery, 'in small letters too');
(my $spaced = $recovery) =~ tr/-/ /;
opens($spaced, 'with spaces too');
my $typo = $recovery;
substr($typo, 7, 1) = substr($typo, 7, 1) eq '7' ? '8' : '7';
cmd_fails(ks('keys', $file), 2, qr/group 2/, 'a mistyped group is named', stdin => "$typo\n");
cmd_fails(ks('passwd', @fast, $file), 1, qr/a recovery key cannot be changed/, 'passwd with it', stdin => "$recovery\nanother passphrase\n");
cmd_ok(ks('slot', 'change', '--slot', 1, @fast, $file), qr/slot 1/, 'but it gives a custodian a new passphrase',
	stdin => "$recovery\n$third\n");
opens($third, 'which opens');

cmd_ok(ks('slot', 'remove', '--slot', $_, $file), qr/^slot $_ has been removed from/, "slot remove $_", stdin => "$second\n") for 1, 3;
opens_not($recovery, 'the recovery key does not open any more');
cmd_fails(ks('slot', 'remove', '--slot', 2, $file), 1, qr/slot 2 is the last way to open keystore/, 'the last way in stays', stdin => "$second\n");
opens($second, 'and opens');

# ---- KDFs ----

cmd_fails(ks('slot', 'add', '--kdf', 'md5', $file), 1, qr/unknown key derivation "md5"/, 'unknown KDF');
cmd_fails(ks('slot', 'add', '--kdf-cost', 12, '--kdf-time', '1s', $file), 1, qr/--kdf-cost and --kdf-time cannot be used together/, 'cost and time');
cmd_fails(ks('slot', 'add', '--kdf-time', $_, $file), 1, qr/invalid value "\Q$_\E" for option --kdf-time|--kdf-time must be in range/, "--kdf-time $_")
  for qw(1 0s 1m 5ms 61s 1.5s -1s 99999999999s), '';
cmd_fails(ks('slot', 'add', '--fips', '--kdf', 'scrypt', $file), 1, qr/"scrypt" cannot be used with --fips/, '--fips with scrypt');
cmd_ok(ks('slot', 'add', '--kdf-time', '20ms', '--label', 'timed', $file), qr/^slot \d+ has been added/, '--kdf-time', stdin => "$second\n$third\n");
cmd_ok(ks('benchmark', '--kdf-time', '20ms'), qr/^scrypt N=2\^17 r=8 p=1: \d+ ms \(default\)$/m, 'benchmark');
cmd_ok(ks('benchmark', '--kdf-time', '20ms'), qr/^pbkdf2-sha512 iterations=\d+: \d+ ms \(--kdf=pbkdf2 --kdf-time=20ms\)$/m, 'benchmark: chosen');

mkdir "$top/fips", 0700;
my $fips = "$top/fips/keystore.ks";
cmd_ok(ks('create', '--fips', $fips), qr/has been created/, 'create --fips', stdin => "$passphrase\n");
cmd_ok(ks('info', $fips), qr/^Policy: +FIPS, PBKDF2 only$/m, 'info tells the policy');
cmd_ok(ks('slot', 'list', $fips), qr/pbkdf2-sha512 iterations=210000/, 'its slot');
cmd_fails(ks('slot', 'add', @fast, $fips), 1, qr/the FIPS policy of keystore .* forbids scrypt/, 'no scrypt slot', stdin => "$passphrase\n$second\n");
cmd_ok(ks('slot', 'add', '--label', 'two', $fips), qr/^slot 2 has been added/, 'a slot by default is PBKDF2', stdin => "$passphrase\n$second\n");

# ---- history, rotate, destroy ----

cmd_ok(ks('rotate', $file), qr/^master key 2 is the active one of keystore/, 'rotate', stdin => "$second\n");
cmd_ok(ks('keys', $file), qr/^ +1  retired .*\n +2  active .*pgx_keystore/m, 'keys', stdin => "$second\n");
cmd_fails(ks('rotate', $file), 2, qr/passphrase is wrong/, 'rotate, wrong passphrase', stdin => "not the passphrase\n");

$before = read_file($file);
cmd_fails(ks('destroy', 1, $file), 1, [ qr/error: it is not known what needs master key 1/, qr/hint: Name the data directory with -D/ ],
	'destroy without knowing', stdin => "$second\n");
cmd_fails(ks('destroy', 2, '--force', $file), 1, qr/error: master key 2 is the active one/, 'destroy the active key', stdin => "$second\n");
cmd_fails(ks('destroy', 9, '--force', $file), 2, qr/error: there is no master key 9/, 'destroy an unknown key', stdin => "$second\n");
cmd_fails(ks('destroy', 'x', $file), 1, qr/invalid value "x" for option KEYID/, 'destroy x');
cmd_fails(ks('destroy', 1, '-D', "$top/none", $file), 1, [ qr/could not open file/, qr/hint: Since it cannot be told/ ],
	'destroy, no data directory', stdin => "$second\n");
is(read_file($file), $before, 'and the keystore is untouched');
cmd_ok(ks('destroy', 1, '--force', $file), qr/^master key 1 of keystore .* has been destroyed/, 'destroy --force', stdin => "$second\n");
cmd_ok(ks('keys', $file), qr/^ +1  destroyed /m, 'its record stays', stdin => "$second\n");
cmd_fails(ks('destroy', 1, '--force', $file), 1, qr/has been destroyed already/, 'destroy it again', stdin => "$second\n");

# ---- rekey ----

cmd_ok(ks('slot', 'add', @fast, '--label', 'three', $file), qr/added/, 'one more slot', stdin => "$second\nanother passphrase\n");
cmd_ok(ks('auto-open', 'enable', @host_secret, $file), qr/now enabled/, 'auto-open before', stdin => "$second\n");
$before = read_file($file);
cmd_fails(ks('rekey', @host_secret, $file), 1, [ qr/error: 2 slots would be lost/, qr/detail: Slot \d+, passphrase, label "three"\./ ],
	'rekey that would lose slots', stdin => "$second\n");
cmd_fails(ks('rekey', @host_secret, $file), 2, qr/passphrase is wrong|opens no slot/, 'rekey, one passphrase wrong',
	stdin => "$second\nnot the passphrase\n");
is(read_file($file), $before, 'and the keystore is untouched');
$out = cmd_ok(ks('rekey', '--force', @host_secret, $file), qr/has a new keystore key, generation \d+$/m, 'rekey --force',
	stdin => "$second\nanother passphrase\n");
like($out, qr/^slot \d+ \(passphrase, label "timed"\) has been removed$/m, 'what was removed is told');
opens($second, 'the first of the two opens');
opens('another passphrase', 'and the second');
opens_not($third, 'the one that was not given does not');
cmd_ok(ks('auto-open', 'status', @host_secret, $file), qr/^auto-open: enabled \(host\)$/m, 'auto-open works after it');

# ---- backup, verify, repair ----

cmd_ok(ks('info', $file), qr/^Last backup: +never$/m, 'no backup yet');
cmd_fails(ks('backup', $file), 1, qr/no target is specified/, 'backup to nowhere');
cmd_fails(ks('backup', '--to', "$top/a", $file), 1, qr/hint: Name a directory on another disk/, 'backup into its own directory');
$out = cmd_ok(ks('backup', '--to', "$top/backups", $file), qr/has been backed up to "\Q$top\E\/backups\/keystore-[^"]+\.ks"$/, 'backup');
my ($copy) = $out =~ /to "([^"]+)"$/;
is(read_file($copy), read_file($file), 'the copy is the same');
cmd_ok(ks('info', $file), qr/^Last backup: +20\S+, generation \d+$/m, 'info tells it');
cmd_ok(ks('verify', $file), qr/is in order, as far as it can be told without the passphrase$/m, 'verify');
cmd_ok(ks('verify', '--open', @host_secret, $file), qr/is in order$/m, 'verify --open', stdin => "$second\n");
cmd_ok(ks('rotate', $file), qr/active one/, 'a change', stdin => "$second\n");
cmd_ok(ks('info', $file), qr/^Last backup: .*; not backed up since the last change$/m, 'info tells that');

my $good = read_file($file);
cmd_fails(ks('repair', '--from', $copy, $file), 1, qr/is sound and has generation/, 'repair of a sound keystore from an older one');
is(read_file($file), $good, 'and it is untouched');
write_file($file, substr $good, 0, -7);
my ($rc, $text) = run_cmd(ks('verify', $file));
is($rc, 1, 'verify of a damaged keystore: exit code');
like($text, qr/^error: /m, 'verify of a damaged keystore');
cmd_ok(ks('repair', $file), qr/^what was there is kept as ".*damaged-/m, 'repair from .prev');
opens($second, 'it opens');
write_file($file, 'nonsense');
cmd_ok(ks('repair', '--from', $copy, $file), qr/has been put back, generation/, 'repair from the backup');
is(read_file($file), read_file($copy), 'it is the backup');
cmd_fails(ks('repair', '--from', "$top/none.ks", $file), 1, qr/none.ks" does not exist/, 'repair from nothing');

done_testing();
