# Passphrases on a terminal: what is asked, that nothing is echoed, and that the
# terminal is as before after every end.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PgxCommand;
use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;

BEGIN
{
	plan skip_all => 'IO::Pty is not installed (package libio-pty-perl)' unless eval { require IO::Pty; 1 };
}

my $top = new_dir();
mkdir "$top/a", 0700;
my $file = new_keystore("$top/a");

sub echo_is_on
{
	my ($fd) = @_;
	my $t = POSIX::Termios->new;
	$t->getattr($fd) or die "could not get terminal mode: $!";
	return $t->getlflag & POSIX::ECHO ? 1 : 0;
}

# Start a program whose terminal is a new one.
sub start
{
	my (@argv) = @_;
	my $pty = IO::Pty->new;
	note 'run on a terminal: ', join ' ', @argv;
	my $pid = fork // die "could not fork: $!";
	if ($pid == 0)
	{
		$pty->make_slave_controlling_terminal;
		my $slave = $pty->slave;
		open STDIN, '<&', $slave;
		open STDOUT, '>&', $slave;
		open STDERR, '>&', $slave;
		close $slave;
		close $pty;
		exec @argv or POSIX::_exit(127);
	}
	# Our own end of the slave stays open, so that its mode can be seen after the program's end.
	return { pty => $pty, fd => fileno($pty->slave), pid => $pid, seen => '' };
}

# Read what comes within a time; false at the end.
sub read_on
{
	my ($t, $seconds) = @_;
	my $r = '';
	vec($r, fileno($t->{pty}), 1) = 1;
	return 1 unless select($r, undef, undef, $seconds);
	my $n = sysread $t->{pty}, my $text, 4096;
	$t->{seen} .= $text if $n;
	return $n;
}

# Read until the text matches; false after a while.
sub expect
{
	my ($t, $like) = @_;
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;
	while ($t->{seen} !~ $like && time < $end)
	{
		last unless read_on($t, 1);
	}
	note $t->{seen};
	return $t->{seen} =~ $like;
}

sub forget { $_[0]{seen} = '' }
sub send_text { my ($t, $text) = @_; syswrite $t->{pty}, $text; return }

# Echo goes off before the prompt appears, so waiting for the prompt is enough.
sub prompted
{
	my ($t, $like, $name) = @_;
	ok(expect($t, $like), "$name: prompt");
	is(echo_is_on($t->{fd}), 0, "$name: echo is off");
	return;
}

# The end, and what was said after the last forget().
sub finish
{
	my ($t, $seconds) = @_;
	my $end = time + ($seconds // $PostgreSQL::Test::Utils::timeout_default);
	my $status;
	while (time < $end)
	{
		if (waitpid($t->{pid}, POSIX::WNOHANG) == $t->{pid})
		{
			$status = $?;
			last;
		}
		select undef, undef, undef, 0.05;
	}
	if (!defined $status)
	{
		kill 'KILL', $t->{pid};
		waitpid $t->{pid}, 0;
		return ('timeout', $t->{seen});
	}
	my $r = '';
	vec($r, fileno($t->{pty}), 1) = 1;
	while (select(my $ready = $r, undef, undef, 0.2))
	{
		sysread($t->{pty}, my $text, 4096) or last;
		$t->{seen} .= $text;
	}
	note $t->{seen};
	is(echo_is_on($t->{fd}), 1, 'echo is on again');
	return ($status & 127 ? 'signal ' . ($status & 127) : $status >> 8, $t->{seen});
}

# ---- the right passphrase ----

my $t = start('pgx_keystore', '--enable-auto-open', '--host-secret', "$top/secret", $file);
prompted($t, qr/^Enter the passphrase: $/, 'enable');
send_text($t, "$passphrase\n");
my ($rc, $said) = finish($t);
is($rc, 0, 'enable: exit code');
like($said, qr/^Enter the passphrase: \r\nAutomatic opening of the keystore is now enabled\r\n$/, 'enable: the whole dialogue');
unlike($said, qr/\Q$passphrase\E/, 'enable: no echo');

# ---- a new passphrase is asked for twice ----

$t = start('pgx_keystore', 'create', @fast, "$top/b/keystore.ks");
prompted($t, qr/Enter the new passphrase: $/, 'create');
send_text($t, "first passphrase\n");
prompted($t, qr/Enter the new passphrase again: $/, 'create, again');
send_text($t, "other passphrase\n");
($rc, $said) = finish($t);
is($rc, 1, 'two different ones: exit code');
like($said, qr/error: the two passphrases are not the same/, 'two different ones: message');
unlike($said, qr/first passphrase|other passphrase/, 'two different ones: no echo');
ok(!-e "$top/b", 'nothing was made');

$t = start('pgx_keystore', 'passwd', @fast, $file);
prompted($t, qr/Enter the passphrase: $/, 'passwd');
send_text($t, "$passphrase\n");
prompted($t, qr/Enter the new passphrase: $/, 'passwd, new');
send_text($t, "second passphrase\n");
prompted($t, qr/Enter the new passphrase again: $/, 'passwd, again');
send_text($t, "second passphrase\n");
($rc, $said) = finish($t);
is($rc, 0, 'passwd: exit code');
like($said, qr/has been changed/, 'passwd: result');

# A wrong passphrase is told before a new one is asked for.
$t = start('pgx_keystore', 'passwd', @fast, $file);
prompted($t, qr/Enter the passphrase: $/, 'passwd, wrong');
send_text($t, "$passphrase\n");
($rc, $said) = finish($t);
is($rc, 2, 'passwd, wrong: exit code');
unlike($said, qr/new passphrase/, 'passwd, wrong: no new one is asked for');

# ---- other ends of a prompt ----

my @info = ('pgx_keystore', 'info', '--open', $file);
$t = start(@info);
prompted($t, qr/Enter the passphrase: $/, 'end of file');
send_text($t, "\cD");
($rc, $said) = finish($t);
is($rc, 1, 'end of file: exit code');
like($said, qr/error: no passphrase was entered/, 'end of file: message');

$t = start(@info);
prompted($t, qr/Enter the passphrase: $/, 'empty line');
send_text($t, "\n");
($rc, $said) = finish($t);
is($rc, 1, 'empty line: exit code');
like($said, qr/too short or too long/, 'empty line: message');

for my $case ([ "\cC", 2, 'interrupt' ], [ "\c\\", 3, 'quit' ])
{
	my ($key, $signo, $name) = @$case;
	$t = start(@info);
	prompted($t, qr/Enter the passphrase: $/, $name);
	send_text($t, "half a pass");
	send_text($t, $key);
	($rc, $said) = finish($t);
	is($rc, "signal $signo", "$name: ends by that signal");
	unlike($said, qr/half a pass/, "$name: no echo");
}
for my $sig (qw(TERM HUP))
{
	$t = start(@info);
	prompted($t, qr/Enter the passphrase: $/, $sig);
	kill $sig, $t->{pid};
	($rc) = finish($t);
	is($rc, 'signal ' . ($sig eq 'TERM' ? 15 : 1), "$sig: ends by that signal");
}

# Nor is a signal lost that comes as soon as the prompt is there, before anything is read.
{
	my $ended = 0;
	for (1 .. 40)
	{
		$t = start(@info);
		expect($t, qr/Enter the passphrase: $/) or last;
		kill 'TERM', $t->{pid};
		($rc) = finish($t);
		last if $rc ne 'signal 15';
		$ended++;
	}
	is($ended, 40, 'a signal right after the prompt ends it, 40 times');
}

# Stopped and continued, it asks again, with the echo on in between.
$t = start(@info);
prompted($t, qr/Enter the passphrase: $/, 'stop');
kill 'TSTP', $t->{pid};
my $stopped = 0;
my $asked_again = qr/Enter the passphrase: \r\nEnter the passphrase: $/;
my $give_up = time + $PostgreSQL::Test::Utils::timeout_default;
until ($stopped || $t->{seen} =~ $asked_again || time > $give_up)
{
	read_on($t, 0.1);
	$stopped = ${^CHILD_ERROR_NATIVE} if waitpid($t->{pid}, POSIX::WNOHANG | POSIX::WUNTRACED) == $t->{pid};
}
# The program is the leader of a session whose group is orphaned, where POSIX lets SIGTSTP do nothing;
# then it has asked again at once.
if ($stopped)
{
	is(echo_is_on($t->{fd}), 1, 'echo is on while it is stopped');
	forget($t);
	kill 'CONT', $t->{pid};
}
ok(expect($t, $stopped ? qr/Enter the passphrase: $/ : $asked_again),
	'it asks again');
send_text($t, "second passphrase\n");
($rc, $said) = finish($t);
is($rc, 0, 'and then takes the passphrase');

# ---- without a terminal ----

cmd_fails([@info], 1, [ qr/end of file on standard input/, qr/hint: Run the command on a terminal/ ], 'no terminal, no input');
($rc) = (run_cmd([ 'sh', '-c', 'exec "$@" <&-', 'sh', @info ]))[0];
is($rc, 1, 'closed standard input');

# ---- pg_ctl: three tries ----

SKIP:
{
	my $shim = "$ENV{PGX_SHIM_DIR}/pg_ctl" if $ENV{PGX_SHIM_DIR};
	skip 'no pg_ctl shim ($PGX_SHIM_DIR)', 1 unless $shim && -x $shim;
	skip 'pg_ctl refuses root', 1 if $> == 0;

	# The server and the real pg_ctl are stand-ins: this is about the dialogue.
	mkdir "$top/bin";
	write_file("$top/bin/postgres", "#!/bin/sh\necho $top/a\n", 0755);
	write_file("$top/bin/pg_ctl", "#!/bin/sh\necho real pg_ctl: \"\$@\"\nexit 7\n", 0755);
	local $ENV{PATH} = "$top/bin:$ENV{PATH}";
	my @start = ($shim, '-D', $top, '--keystore-passphrase', 'start');

	my $tries = start(@start);
	for my $i (1 .. 3)
	{
		prompted($tries, qr/Enter the passphrase: $/, "try $i");
		forget($tries);
		send_text($tries, $i == 2 ? "short\n" : "wrong passphrase $i\n");
		next if $i == 3;
		ok(expect($tries, $i == 2 ? qr/too short or too long/ : qr/passphrase is wrong/), "try $i is refused");
	}
	my ($code, $text) = finish($tries);
	is($code, 2, 'three wrong ones: exit code');
	unlike($text, qr/real pg_ctl/, 'nothing is started');
	unlike($text, qr/wrong passphrase/, 'no echo');

	$tries = start(@start);
	prompted($tries, qr/Enter the passphrase: $/, 'first of two');
	send_text($tries, "wrong passphrase\n");
	prompted($tries, qr/wrong.*Enter the passphrase: $/s, 'second of two');
	send_text($tries, "second passphrase\n");
	($code, $text) = finish($tries);
	is($code, 7, 'a wrong one, then the right one: the exit code is that of the real pg_ctl');
	like($text, qr/real pg_ctl: -D \Q$top\E start\r\n$/, 'which was started without our option');

	$tries = start(@start);
	prompted($tries, qr/Enter the passphrase: $/, 'interrupt');
	send_text($tries, "\cC");
	($code, $text) = finish($tries);
	is($code, 'signal 2', 'interrupt ends it');
	unlike($text, qr/real pg_ctl/, 'nothing is started');
}

done_testing();
