# pgx_keystore copy to another host, through a real sshd on the loopback interface.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Cwd ();
use PgxCommand;
use PgxSshd;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'sshd is not installed' unless find_sshd();

my $top = new_dir();
my $bin = Cwd::abs_path((grep { -x "$_/pgx_keystore" } split /:/, $ENV{PATH})[0]);
my $sshd = start_sshd($top);
my @ssh = map { ('--ssh-option', $_) } ssh_options($sshd);
my @remote = ('--remote-command', "$bin/pgx_keystore");

mkdir "$top/primary", 0700;
my $source = new_keystore("$top/primary");
my $uuid = keystore_uuid($source);
my @copy = ('pgx_keystore', 'copy', '--from', $source, @ssh, @remote);
my $host = $sshd->{host};

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
unlike(read_file($sshd->{log}), qr/\Q$passphrase\E/, 'no passphrase in the log of sshd');

done_testing();
