# pgx_keystore copy to another host, through a real sshd on the loopback interface.
#
# sshd runs as the user who runs the test, with its own configuration, host key and authorized keys.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Cwd ();
use IO::Socket::INET;
use PgxCommand;
use PostgreSQL::Test::Utils;
use Test::More;

my ($sshd) = grep { -x } '/usr/sbin/sshd', '/usr/local/sbin/sshd', '/usr/bin/sshd';
plan skip_all => 'sshd is not installed' unless $sshd;

my $top = new_dir();
my $bin = Cwd::abs_path((grep { -x "$_/pgx_keystore" } split /:/, $ENV{PATH})[0]);
my $user = getpwuid $>;

# sshd started by root wants its separation directory; any other user's does not.
mkdir '/run/sshd', 0755 if $> == 0;

for my $key ('host_key', 'client_key')
{
	system_or_bail('ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f', "$top/$key");
}
write_file("$top/authorized_keys", read_file("$top/client_key.pub"));

my $port = do
{
	my $s = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1', LocalPort => 0) or die $!;
	$s->sockport;
};
write_file("$top/sshd_config", <<"EOF");
Port $port
ListenAddress 127.0.0.1
HostKey $top/host_key
AuthorizedKeysFile $top/authorized_keys
PidFile $top/sshd.pid
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
LogLevel VERBOSE
SetEnv LD_LIBRARY_PATH=$ENV{LD_LIBRARY_PATH}
EOF

my $pid = fork;
if ($pid == 0)
{
	open STDIN, '<', '/dev/null';
	exec $sshd, '-D', '-f', "$top/sshd_config", '-E', "$top/sshd.log" or POSIX::_exit(127);
}

END
{
	if ($pid)
	{
		my $rc = $?;
		kill 'TERM', $pid;
		waitpid $pid, 0;
		$? = $rc;
	}
}

my $up = 0;
for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	last if $up = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port);
	select undef, undef, undef, 0.1;
}
ok($up, 'sshd is up') or BAIL_OUT("sshd did not start:\n" . (read_file("$top/sshd.log") // ''));
close $up;

my @ssh = map { ('--ssh-option', $_) } (
	'-F', '/dev/null', '-p', $port, '-i', "$top/client_key", '-o', 'IdentitiesOnly=yes',
	'-o', "UserKnownHostsFile=$top/known_hosts", '-o', 'StrictHostKeyChecking=accept-new',
	'-o', 'BatchMode=yes', '-o', 'LogLevel=ERROR');
my @remote = ('--remote-command', "$bin/pgx_keystore");

mkdir "$top/primary", 0700;
my $source = new_keystore("$top/primary");
my $uuid = keystore_uuid($source);
my @copy = ('pgx_keystore', 'copy', '--from', $source, @ssh, @remote);
my $host = "$user\@127.0.0.1";

my $out = cmd_ok([ @copy, '--to', "$host:$top/far" ],
	qr/^keystore $uuid generation 1 has been copied to "\Q$top\E\/far\/keystore.ks"$/m, 'copy to HOST:DIR');
like($out, qr/^    pgx_keystore --enable-auto-open \Q$top\E\/far\/keystore\.ks$/m, 'says how to enable auto-open');
is(read_file("$top/far/keystore.ks"), read_file($source), 'the same bytes');
is(mode_of("$top/far"), '0700', 'directory is 0700');
is(mode_of("$top/far/keystore.ks"), '0600', 'file is 0600');
cmd_ok([ @copy, '--to', "$host:$top/far" ], qr/is already up to date/, 'copy again');

my $conf = write_file("$top/servers.conf",
	"[primary]\nkeystore = $top/primary\n[standby]\nkeystore = $top/far by name\nhost = $host\n");
cmd_ok([ 'pgx_keystore', 'copy', '--servers', $conf, '--to', 'standby', @ssh, @remote ],
	qr/has been copied to "\Q$top\E\/far by name\/keystore.ks"$/m, 'copy to a server with host =');

# A shell over there must see the directory as one word, and nothing else.
for my $dir ("it's", 'a$(touch pwned)b', 'a;touch pwned', '`touch pwned`', "new\nline", '-x', '*')
{
	(my $name = $dir) =~ s/\n/\\n/;
	cmd_ok([ @copy, '--to', "$host:$top/$dir" ], qr/has been copied/, "directory named $name");
	is(read_file("$top/$dir/keystore.ks"), read_file($source), 'it is there, under that name');
}
my $home = (getpwuid $>)[7];
ok(!-e "$home/pwned" && !-e "$top/pwned", 'no shell ran any of it');

# The far end decides, with its own messages, and its exit code comes back.
run_cmd([ 'pgx_keystore', 'passwd', @fast, "$top/far/keystore.ks" ], stdin => "$passphrase\n$passphrase\n");
cmd_fails([ @copy, '--to', "$host:$top/far" ], 1,
	[ qr/error: target keystore "\Q$top\E\/far\/keystore.ks" is newer than the source/,
		qr/error: host "\Q$host\E" did not take the keystore/ ], 'newer over there');
is(keystore_generation("$top/far/keystore.ks"), 2, 'and it stays');
cmd_ok([ @copy, '--force', '--to', "$host:$top/far" ], qr/generation 1 has been copied/, '--force');
is(keystore_generation("$top/far/keystore.ks.prev"), 2, 'the newer one is kept');
chmod 0755, "$top/far";
cmd_fails([ @copy, '--to', "$host:$top/far" ], 1, qr/hint: .*chmod/, 'unsafe directory over there');
chmod 0700, "$top/far";

cmd_fails([ @copy[0 .. $#copy - 2], '--remote-command', "$top/none", '--to', "$host:$top/x" ], 1,
	[ qr/could not run "\Q$top\E\/none" on host "\Q$host\E"/, qr/hint: .*--remote-command/ ], 'no command over there');
cmd_fails([ @copy[0 .. $#copy - 2], '--remote-command', '/bin/true', '--to', "$host:$top/x" ], 1,
	qr/host "\Q$host\E" did not confirm the copy/, 'a command that does nothing is noticed');
cmd_fails([ 'pgx_keystore', 'copy', '--from', $source, '--ssh-option', '-p', '--ssh-option', '1', @ssh, @remote,
		'--to', "$host:$top/x" ], 1, qr/could not reach host "\Q$host\E"/, 'nobody there');
cmd_fails([ @copy, '--ssh', "$top/none", '--to', "$host:$top/x" ], 1,
	qr/could not run program "\Q$top\E\/none": No such file/, 'no ssh program');
ok(!-e "$top/x", 'no directory was made');

# Cut off half way: a stand-in for ssh passes on a part of the input.
write_file("$top/cut", <<"EOF", 0700);
#!/bin/sh
head -c 100 | $bin/pgx_keystore receive $top/cut-off
EOF
cmd_fails([ @copy, '--ssh', "$top/cut", '--to', "$host:$top/x" ], 1, qr/error: .*(?:corrupted|damaged)/, 'connection cut off');
ok(!-e "$top/cut-off", 'nothing was stored');

# No secret is in what was sent: the bytes are the file's, and the log knows no passphrase.
unlike(read_file("$top/sshd.log"), qr/\Q$passphrase\E/, 'no passphrase in the log of sshd');

done_testing();
