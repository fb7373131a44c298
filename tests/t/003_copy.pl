# pgx_keystore copy and receive on one machine: what is copied, and what is refused.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PgxCommand;
use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $top = new_dir();
mkdir "$top/primary", 0700;
my $source = new_keystore("$top/primary");
my $uuid = keystore_uuid($source);

my $conf = write_file("$top/servers.conf", <<"EOF");
# our group
[primary]
keystore = $top/primary
conninfo = host=db1

[standby]
keystore = $top/standby

[remote-source]
keystore = $top/primary
host = db9.example
EOF
my @copy = ('pgx_keystore', 'copy', '--servers', $conf);

sub newer
{
	my ($file) = @_;
	my ($rc, undef, $err) = run_cmd([ 'pgx_keystore', 'passwd', @fast, $file ],
		stdin => "$passphrase\n$passphrase\n");
	die $err if $rc;
}

sub listing { my ($dir) = @_; return join ' ', sort grep { !/^\.\.?$/ } slurp_dir($dir) }

# ---- the way it is meant ----

# Its sealed key must not travel; a stranger's file must not either.
write_file("$top/primary/keystore.aks", 'sealed');
write_file("$top/primary/notes", 'x');

my $out = cmd_ok([ @copy, '--to', 'standby' ],
	qr/^keystore $uuid generation 1 has been copied to "\Q$top\E\/standby\/keystore.ks"$/m, 'copy to a server');
like($out, qr/^    pgx_keystore --enable-auto-open \Q$top\E\/standby\/keystore\.ks$/m, 'says how to enable auto-open');
is(mode_of("$top/standby"), '0700', 'directory was made 0700');
is(mode_of("$top/standby/keystore.ks"), '0600', 'file is 0600');
is(read_file("$top/standby/keystore.ks"), read_file($source), 'the same bytes');
is(listing("$top/standby"), 'keystore.ks keystore.lock', 'and nothing else was copied');

cmd_ok([ @copy, '--to', 'standby' ], qr/^keystore $uuid generation 1 is already up to date in /, 'copy again');
ok(!-e "$top/standby/keystore.ks.prev", 'which writes nothing');

newer($source);
cmd_ok([ @copy, '--to', 'standby' ], qr/generation 2 has been copied/, 'copy a newer one');
is(read_file("$top/standby/keystore.ks"), read_file($source), 'the same bytes');
is(keystore_generation("$top/standby/keystore.ks.prev"), 1, 'the former one is kept');

cmd_ok([ @copy, '--from', 'standby', '--to', "$top/third" ], qr/has been copied/, 'from a server to a directory');
cmd_ok([ 'pgx_keystore', 'copy', '--from', $source, '--to', "$top/fourth/" ], qr/has been copied/, 'from a file');
cmd_ok([ 'pgx_keystore', 'copy', '--from', "$top/primary", '--to', "$top/fifth" ], qr/has been copied/, 'from a directory');
cmd_ok([ 'pgx_keystore', 'copy', '--to', 'standby' ], qr/already up to date/, 'servers file by environment',
	env => { PGX_SERVERS => $conf });
cmd_ok([ 'pgx_keystore', 'receive', "$top/sixth" ], qr/^keystore $uuid generation 2 has been copied/,
	'receive', stdin => read_file($source));
cmd_ok([ 'pgx_keystore', 'info', '--open', "$top/sixth/keystore.ks" ], qr/^Master key 1:\s+active/m,
	'the copy opens', stdin => "$passphrase\n");
chdir $top or die $!;
cmd_ok([ @copy, '--to', './standby' ], qr/already up to date/, 'relative directory');
chdir '/';

# ---- refused: {name, preparation, arguments, messages}; the target stays as it was ----

my $target = "$top/target/keystore.ks";
my $newer_copy = do { mkdir "$top/newer", 0700; write_file("$top/newer/keystore.ks", read_file($source)) };
newer($newer_copy);
my $other = do { mkdir "$top/other", 0700; new_keystore("$top/other") };
my $pgdata = new_dir();
write_file("$pgdata/PG_VERSION", "15\n");
mkdir "$pgdata/global";

my @refused = (
	[ 'newer target', sub { write_file($target, read_file($newer_copy)) }, [],
		qr/error: target keystore "\Q$target\E" is newer than the source/,
		qr/detail: The target has generation 3, the source 2\./, qr/hint: .*--force/ ],
	[ 'other UUID', sub { write_file($target, read_file($other)) }, [],
		qr/error: target "\Q$target\E" is another keystore/, qr/detail: The target has UUID .*, the source $uuid\./ ],
	[ 'same generation, other bytes',
		sub {
			# A change of another copy of generation 1.
			write_file($target, read_file("$top/standby/keystore.ks.prev"));
			newer($target);
			unlink "$target.prev";
		},
		[], qr/error: target keystore "\Q$target\E" has the generation of the source, but other contents/ ],
	[ 'damaged target', sub { write_file($target, substr(read_file($source), 0, -1)) }, [], qr/corrupted/ ],
	[ 'target is not a keystore', sub { write_file($target, 'x' x 600) }, [], qr/is not a keystore/ ],
	[ 'target of mode 0640', sub { write_file($target, read_file("$top/standby/keystore.ks.prev"), 0640) }, [],
		qr/hint: .*chmod/ ],
	[ 'target of mode 0640, with --force',
		sub { write_file($target, read_file("$top/standby/keystore.ks.prev"), 0640) }, ['--force'], qr/hint: .*chmod/ ],
	[ 'target is a symbolic link', sub { symlink $newer_copy, $target }, ['--force'], qr/symbolic link/ ],
	[ 'target is a broken symbolic link', sub { symlink "$top/nowhere", $target }, ['--force'], qr/symbolic link/ ],
	[ 'target is a directory', sub { mkdir $target, 0700 }, ['--force'], qr/not a regular file/ ],
	[ 'target directory of mode 0750', sub { chmod 0750, "$top/target" }, ['--force'], qr/hint: .*chmod/ ],
	[ 'target directory is read-only', sub { chmod 0500, "$top/target" }, ['--force'], qr/Permission denied/ ],
);
for my $case (@refused)
{
	my ($name, $prepare, $args, @texts) = @$case;
	SKIP:
	{
		skip 'root may write everywhere', 2 if $name =~ /read-only/ && $> == 0;
		system 'rm', '-rf', "$top/target";
		mkdir "$top/target", 0700;
		chmod 0700, "$top/target";
		$prepare->();
		my $state = sub { join '|', mode_of($target), mode_of("$top/target"), readlink($target) // '', -f $target ? read_file($target) : '' };
		my $before = $state->();
		cmd_fails([ @copy, @$args, '--to', "$top/target" ], 1, \@texts, "refused: $name");
		is($state->(), $before, 'target is untouched');
		chmod 0700, "$top/target";
	}
}
system 'rm', '-rf', "$top/target";

mkdir "$top/real", 0700;
symlink "$top/real", "$top/linked";
link $source, "$top/real/keystore.ks" or die $!;
write_file("$top/plain", '');
write_file("$top/bad.conf", "[primary]\nkeystore = $top/primary\nhots = x\n");
write_file("$top/open.conf", read_file($conf), 0666);
my @usage = (
	[ 'the same directory', [ '--to', 'primary' ], qr/source and target are the same directory "\Q$top\E\/primary"/ ],
	[ 'the same directory by another path', [ '--to', "$top/../" . ($top =~ s/.*\///r) . '/primary/' ], qr/are the same directory/ ],
	[ 'the same file by a hard link', [ '--to', "$top/real" ], qr/are the same file/ ],
	[ 'a target directory that is a symbolic link', [ '--from', 'standby', '--to', "$top/linked" ], qr/symbolic link|not a directory/ ],
	[ 'a target that is a file', [ '--to', "$top/plain" ], qr/not a directory/ ],
	[ 'no parent directory', [ '--to', "$top/no/such" ], qr/could not create directory .*: No such file/ ],
	[ 'in the data directory', [ '--to', "$pgdata/ks" ], qr/is inside the data directory/ ],
	[ 'an unknown server', [ '--to', 'stanby' ], qr/error: unknown server name "stanby"/,
		qr/hint: Servers in file "\Q$conf\E": "primary", "standby", "remote-source"\./ ],
	[ 'an unknown source', [ '--from', 'x', '--to', 'standby' ], qr/error: unknown server name "x"/ ],
	[ 'a source on another host', [ '--from', 'remote-source', '--to', 'standby' ],
		qr/the keystore of server "remote-source" is on host "db9.example"/, qr/hint: .*--from FILE/ ],
	[ 'a remote source', [ '--from', 'db9:/x', '--to', 'standby' ], qr/the source is on host "db9"/ ],
	[ 'no source file', [ '--from', "$top/none/keystore.ks", '--to', 'standby' ], qr/No such file|does not exist/ ],
	[ 'a host that looks like an option', [ '--to', '-oProxyCommand=x:/y' ], qr/looks like an option/ ],
	[ 'an IPv6 address', [ '--to', 'fe80::1:/y' ], qr/looks like an IPv6 address/ ],
	[ 'a relative remote directory', [ '--to', 'h:y' ], qr/directory "y" on host "h" is not an absolute path/ ],
	[ 'an empty target', [ '--to', '' ], qr/invalid value for option --to/ ],
	[ 'no servers file', [ '--servers', "$top/none.conf", '--to', 'standby' ], qr/could not open file "\Q$top\E\/none.conf"/, qr/hint: .*--servers/ ],
	[ 'an unknown key', [ '--servers', "$top/bad.conf", '--to', 'standby' ], qr/file "\Q$top\E\/bad.conf", line 3: unknown key "hots"/ ],
	[ 'a servers file others can write', [ '--servers', "$top/open.conf", '--to', 'standby' ], qr/hint: Run: chmod go-w/ ],
);
for my $case (@usage)
{
	my ($name, $args, @texts) = @$case;
	cmd_fails([ @copy, @$args ], 1, \@texts, "refused: $name");
}
ok(!-e "$pgdata/ks", 'nothing in the data directory');

# An unsafe source is not copied.
for my $mode (0640, 0604)
{
	chmod $mode, $source;
	cmd_fails([ @copy, '--to', "$top/new" ], 1, qr/hint: .*chmod/, sprintf('source of mode %04o', $mode));
}
chmod 0600, $source;
ok(!-e "$top/new", 'no directory was made');

# ---- --force ----

for my $case ([ 'a newer one', $newer_copy ], [ 'another one', $other ])
{
	my ($name, $file) = @$case;
	mkdir "$top/target", 0700;
	write_file($target, read_file($file));
	cmd_ok([ @copy, '--force', '--to', "$top/target" ], qr/generation 2 has been copied/, "--force over $name");
	is(read_file($target), read_file($source), 'it is replaced');
	is(read_file("$target.prev"), read_file($file), 'and kept as .prev');
	system 'rm', '-rf', "$top/target";
}
mkdir "$top/target", 0700;
write_file($target, 'x' x 600);
cmd_ok([ @copy, '--force', '--to', "$top/target" ], qr/has been copied/, '--force over a damaged one');

# ---- receive ----

my $bytes = read_file($source);
my @received = map { [ "the first $_ bytes", substr $bytes, 0, $_ ] } (0, 1, 8, 55, 56, 100, length($bytes) - 1);
push @received, [ 'one byte more', $bytes . 'x' ], [ 'text', "hello\n" ], [ 'more than 1 MB', $bytes . 'x' x 1100000 ];
for my $case (@received)
{
	my ($name, $stdin) = @$case;
	cmd_fails([ 'pgx_keystore', 'receive', "$top/incoming" ], 1, qr/error: /, "receive $name", stdin => $stdin);
	ok(!-e "$top/incoming", 'no directory is left');
}
cmd_fails([ 'pgx_keystore', 'receive', "$top/other" ], 1, qr/is another keystore/, 'receive over another keystore', stdin => $bytes);

# ---- a full disk ----

# RLIMIT_FSIZE stands for it: the write comes up short, then fails.
mkdir "$top/full", 0700;
write_file("$top/full/keystore.ks", read_file("$top/standby/keystore.ks.prev"));
my $old = read_file("$top/full/keystore.ks");
for my $limit (0, 1, 100, length($bytes) - 1)
{
	cmd_fails([ 'sh', '-c', 'trap "" XFSZ; exec prlimit --fsize="$0" -- "$@"', $limit, @copy, '--to', "$top/full" ],
		1, qr/error: could not write/, "file size limit $limit");
	is(read_file("$top/full/keystore.ks"), $old, 'the target is the old one');
	is(listing("$top/full"), 'keystore.ks keystore.lock', 'nothing else is left');
}
SKIP:
{
	skip 'mounting a small file system takes root', 3 if $> != 0;
	mkdir "$top/small", 0700;
	skip 'could not mount', 3
	  if system('mount', '-t', 'tmpfs', '-o', 'size=8k,mode=0700', 'tmpfs', "$top/small") != 0;
	mkdir "$top/small/ks", 0700;
	write_file("$top/small/fill", q{x} x 8192);
	cmd_fails([ @copy, '--to', "$top/small/ks" ], 1, qr/No space left on device/, 'full file system');
	ok(!-e "$top/small/ks/keystore.ks", 'no keystore is left');
	is(system('umount', "$top/small"), 0, 'unmounted');
}

# ---- killed ----

# Wherever it is killed, the target is the old file or the new one, and the next copy succeeds.
my %seen;
my $kills = 25;
my $start = time;
run_cmd([ @copy, '--to', "$top/timed" ]);
my $duration = time - $start;
for my $i (1 .. $kills)
{
	system 'rm', '-rf', "$top/killed";
	mkdir "$top/killed", 0700;
	write_file("$top/killed/keystore.ks", $old);
	my $pid = fork;
	if ($pid == 0)
	{
		open STDOUT, '>', '/dev/null';
		open STDERR, '>', '/dev/null';
		exec @copy, '--to', "$top/killed" or POSIX::_exit(127);
	}
	select undef, undef, undef, 1.5 * $duration * $i / $kills;
	kill 'KILL', $pid;
	waitpid $pid, 0;
	my $now = read_file("$top/killed/keystore.ks");
	$seen{ !defined $now ? 'none' : $now eq $old ? 'old' : $now eq $bytes ? 'new' : 'broken' }++;
	my ($rc) = run_cmd([ @copy, '--to', "$top/killed" ]);
	$seen{'next copy failed'}++ if $rc != 0 || read_file("$top/killed/keystore.ks") ne $bytes;
}
note join ', ', map { "$_: $seen{$_}" } sort keys %seen;
is(($seen{old} // 0) + ($seen{new} // 0), $kills, "killed $kills times: old or new, and the next copy works")
  or diag explain \%seen;
ok(!$seen{'next copy failed'}, 'the next copy works');

# ---- two at once ----

mkdir "$top/race", 0700;
my @pids;
for (1 .. 6)
{
	my $pid = fork;
	if ($pid == 0)
	{
		open STDOUT, '>', '/dev/null';
		exec @copy, '--to', "$top/race" or POSIX::_exit(127);
	}
	push @pids, $pid;
}
is(join(' ', map { waitpid $_, 0; $? } @pids), '0 0 0 0 0 0', 'six copies at once succeed');
is(read_file("$top/race/keystore.ks"), $bytes, 'and leave the keystore');

done_testing();
