# 013_audit.pl
#		Every key event of pgx_keystore leaves one line, in the system's log and, where that is asked for, in a file: who,
#		what, on which keystore, which key or slot, and the outcome; and nothing secret.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Utils;
use PgxTde;
use Test::More;

my $object = "$ENV{PGX_BUILDDIR}/tests/t/.libs/syslog_to.so";
system_or_bail('make', '-s', '-C', $ENV{PGX_BUILDDIR}, 'tests/t/syslog_to.la') if !-e $object;

my $first = 'the first phrase of test 013';
my $second = 'the second phrase of test 013';
my $wrong = 'the wrong phrase of test 013';
my @fast = ('--kdf-cost', 10);
my $top = work_dir();
my ($file, $log, $syslog) = ("$top/k/keystore.ks", "$top/audit", "$top/syslog");
mkdir "$top/$_", 0700 foreach qw(k copy backups);
my $user = getpwuid($<);
my $uuid = qr/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/;
my $all = '';
my @secrets = ($first, $second, $wrong);

sub taken
{
	my ($path) = @_;
	my $text = slurp_raw($path) // '';
	unlink $path;
	$all .= $text;
	return split /\n/, $text;
}

# What a command is to leave; nothing: no event.
sub event
{
	my ($args, $lines, $rc, $what, @rest) = @_;
	my ($got, $out, $err) = run_program([ 'pgx_keystore', @$args ], stdin => $lines,
		env => { LD_PRELOAD => $object, SYSLOG_TO => $syslog, PGX_AUDIT_FILE => $log, HOME => $top });
	my $name = join ' ', map { s{^\Q$top\E/}{}r } @$args;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($got, $rc, $name) or diag($err);
	my @in_file = taken($log);
	my @in_syslog = taken($syslog);
	if (!defined $what)
	{
		is(scalar(@in_file) + scalar(@in_syslog), 0, "$name: no event") or diag(@in_file);
		return $out;
	}
	my $outcome = $rc == 0 ? 'success' : 'failure';
	my $level = $rc == 0 ? 5 : 4;
	is(scalar(@in_file), 1, "$name: one line in the file");
	is(scalar(@in_syslog), 1, "$name: one line in the system's log");
	my ($line) = ($in_file[0] // '') =~ /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \S+ pgx_keystore\[\d+\]: (.*)$/;
	is($in_syslog[0], "authpriv $level " . ($line // ''), "$name: the same, facility and level");
	like($line, qr/^event=\Q$what\E outcome=$outcome /, "$name: event and outcome");
	like($line, qr/ user=\Q$user\E(?: |$)/, "$name: who");
	like($line, $_, "$name: on what") foreach @rest;
	return $out;
}

my @on = (qr/ keystore=\Q$file\E(?: |$)/, qr/ uuid=$uuid(?: |$)/);
event([ 'create', @fast, $file ], "short\n", 1, 'create', qr/ keystore=\Q$file\E .*reason="[^"]+"$/);
event([ 'create', @fast, $file ], "$first\n", 0, 'create', @on, qr/ generation=1(?: |$)/);
event([ 'info', $file ], '', 0);
event([ 'slot', 'list', $file ], '', 0);
event([ 'info', '--open', $file ], "$first\n", 0, 'open', @on);
event([ 'info', '--open', $file ], "$wrong\n", 2, 'open', qr/ reason=".*passphrase is wrong"$/);
event([ 'passwd', @fast, $file ], "$wrong\n$second\n", 2, 'change-passphrase', qr/ reason=".*passphrase is wrong"$/);
event([ 'passwd', @fast, $file ], "$first\n$second\n", 0, 'change-passphrase', @on, qr/ generation=2(?: |$)/, qr/ slot=1(?: |$)/);
event([ 'slot', 'add', '--label', 'Bob', @fast, $file ], "$second\n$first\n", 0, 'add-slot', @on, qr/ generation=3(?: |$)/, qr/ slot=2(?: |$)/);
event([ 'slot', 'change', '--slot', 2, @fast, $file ], "$second\n$first\n", 0, 'change-passphrase', @on, qr/ slot=2(?: |$)/);
event([ 'slot', 'label', '--slot', 2, '--label', 'Carol', $file ], "$second\n", 0, 'label-slot', @on, qr/ slot=2(?: |$)/);
event([ 'slot', 'remove', '--slot', 2, $file ], "$second\n", 0, 'remove-slot', @on, qr/ slot=2(?: |$)/);
event([ 'slot', 'remove', '--slot', 1, $file ], "$second\n", 1, 'remove-slot', @on, qr/ slot=1(?: |$)/, qr/ reason="slot 1 is the last way to open keystore .*"$/);
my $recovery = event([ 'recovery-key', 'add', '--stdout', @fast, $file ], "$second\n", 0, 'add-recovery-key', @on, qr/ slot=2(?: |$)/);
chomp $recovery;
push @secrets, $recovery;
event([ 'keys', $file ], "$second\n", 0, 'open', @on);
event([ 'rotate', $file ], "$second\n", 0, 'rotate', @on, qr/ key=2(?: |$)/);
event([ 'rekey', $file ], "$second\n\n", 1, 'rekey', qr/ reason="1 slots would be lost/);
event([ 'rekey', $file ], "$second\n$recovery\n", 0, 'rekey', @on);
event([ '--enable-auto-open', $file ], "$second\n", 0, 'enable-auto-open', @on);
event([ 'auto-open', 'status', $file ], '', 0);
event([ 'auto-open', 'disable', $file ], '', 0, 'disable-auto-open', qr/ keystore=\Q$file\E/);
event([ 'backup', $file, '--to', "$top/backups" ], '', 0, 'backup', @on);
event([ 'backup', $file, '--to', "$file.prev" ], '', 1, 'backup', @on, qr/ reason=".*is not a directory.*"$/);
event([ 'copy', '--from', $file, '--to', "$top/copy" ], '', 0, 'copy', qr/ uuid=$uuid/);
event([ 'get-key', '--purpose', 'test', '--key-id', 2, $file ], "$second\n", 0, 'get-key', @on, qr/ key=2(?: |$)/);
event([ 'destroy', 2, '--force', $file ], "$second\n", 1, 'destroy', qr/ key=2.* reason="master key 2 is the active one"$/);
event([ 'destroy', 1, '--force', $file ], "$second\n", 0, 'destroy', @on, qr/ key=1(?: |$)/);
event([ 'repair', '--from', "$top/copy/keystore.ks", $file, '--force' ], '', 0, 'repair', qr/ keystore=\Q$file\E/);

# A line that could not be written is a failure, before anything is done.
my $before = slurp_raw($file);
my ($rc, $out, $err) = run_program([ 'pgx_keystore', 'rotate', '--audit-file', "$top/absent/audit", $file ], stdin => "$second\n");
is($rc, 1, 'an audit file that cannot be opened');
like($err, qr/error: could not open audit file "\Q$top\E\/absent\/audit"/, 'is told');
ok($before eq slurp_raw($file), 'and nothing is done');

# Whatever a name holds, it stays one line and one value.
mkdir "$top/a \"b\"\nevent=open", 0700;
event([ 'create', @fast, "$top/a \"b\"\nevent=open/keystore.ks" ], "$first\n", 0, 'create', qr/ keystore="\Q$top\E\/a \\"b\\"\\x0aevent=open\/keystore.ks"/);

unlike($all, qr/\Q$_\E/, 'no secret in any line') foreach @secrets;
like($all, qr/\Q$file\E/, 'control: the lines are there');
done_testing();
