# The pg_ctl shim: everything of the real pg_ctl passes through, and what is
# handed over for --keystore-passphrase.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PgxCommand;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'PostgreSQL refuses to run as root' if $> == 0;
my $shim = "$ENV{PGX_SHIM_DIR}/pg_ctl" if $ENV{PGX_SHIM_DIR};
plan skip_all => 'no pg_ctl shim ($PGX_SHIM_DIR)' unless $shim && -x $shim;
my ($real) = map { "$_/pg_ctl" } grep { -x "$_/pg_ctl" } split /:/, $ENV{PATH};

# ---- the same words to both: {arguments, exit code} ----

my $top = new_dir();
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->start;
my $down = PostgreSQL::Test::Cluster->new('down');
$down->init;
my ($up_dir, $down_dir) = ($node->data_dir, $down->data_dir);
my $no_pgdata = { PGDATA => undef };

my @same = (
	[ [], 1 ],
	[ ['--version'], 0 ],
	[ ['-V'], 0 ],
	[ ['frobnicate'], 1 ],
	[ ['--frobnicate'], 1 ],
	[ [ '-x', 'start' ], 1 ],
	[ [ 'start', 'stop' ], 1 ],
	[ [ 'start', '--version' ], 1 ],
	[ ['start'], 1 ],
	[ [ 'start', '-D' ], 1 ],
	[ ['status'], 1 ],
	[ [ 'status', '-D', "$top/none" ], 4 ],
	[ [ 'status', '-D', $top ], 4 ],
	[ [ 'status', '-D', $down_dir ], 3 ],
	[ [ '-D', $up_dir, 'status' ], 0 ],
	[ [ "--pgdata=$up_dir", 'status' ], 0 ],
	[ [ '-D', $up_dir, '--', 'status' ], 0 ],
	[ [ '--keystore', 'status' ], 1 ],
	[ [ 'start', '-D', "$top/none" ], 1 ],
	[ [ 'restart', '-D', $top, '-s', '-t', '5', '-m', 'nonsense' ], 1 ],
	[ [ 'stop', '-D', $down_dir ], 1 ],
	[ [ 'stop', '-m', 'gently', '-D', $up_dir ], 1 ],
	[ [ 'reload', '-D', $down_dir ], 1 ],
	[ [ 'reload', '-D', $up_dir ], 0 ],
	[ [ 'promote', '-D', $up_dir ], 1 ],
	[ [ 'promote', '-D', $down_dir ], 1 ],
	[ [ 'logrotate', '-D', $up_dir ], 0 ],
	[ [ 'logrotate', '-D', $down_dir ], 1 ],
	[ ['kill'], 1 ],
	[ [ 'kill', 'NONSENSE', '1' ], 1 ],
	[ [ 'kill', 'TERM', '999999999' ], 1 ],
	[ [ '-S', 'auto', 'start' ], 1 ],
	[ [ 'init', '-D', $up_dir, '-s' ], 1 ],
);
for my $case (@same)
{
	my ($args, $code) = @$case;
	my @of_real = run_cmd([ $real, @$args ], env => $no_pgdata);
	my @of_shim = run_cmd([ $shim, @$args ], env => $no_pgdata);
	is($of_real[0], $code, "real pg_ctl exits $code: @$args");
	is_deeply(\@of_shim, \@of_real, "the shim does the same: @$args");
}
is_deeply([ run_cmd([ $shim, 'status' ], env => { PGDATA => $down_dir }) ],
	[ run_cmd([ $real, 'status' ], env => { PGDATA => $down_dir }) ], 'PGDATA');

my $real_help = (run_cmd([ $real, '--help' ]))[1];
for my $arg ('--help', '-?')
{
	my ($rc, $out, $err) = run_cmd([ $shim, $arg ]);
	is($rc, 0, "$arg: exit code");
	is(substr($out, 0, length $real_help), $real_help, "$arg: the real pg_ctl's help comes first");
	like(substr($out, length $real_help), qr/^  --keystore-passphrase /m, "$arg: then our options");
}

# Modes that change something.
cmd_ok([ $shim, 'initdb', '-s', '-D', "$top/new", '-o', '-A trust -N' ], qr/^/, 'init makes a cluster');
ok(-f "$top/new/PG_VERSION", 'it is there');
is((run_cmd([ $shim, '-D', $down_dir, '-l', "$top/down.log", '-w', 'start' ]))[0], 0, 'start');
is((run_cmd([ $shim, '-D', $down_dir, 'status' ]))[0], 0, 'it runs');
is((run_cmd([ $shim, '-D', $down_dir, '-l', "$top/down.log", 'restart', '-m', 'fast' ]))[0], 0, 'restart');
is((run_cmd([ $shim, '-D', $down_dir, 'kill', 'HUP', (split /\n/, read_file("$down_dir/postmaster.pid"))[0] ]))[0], 0, 'kill');
is((run_cmd([ $shim, '-D', $down_dir, 'stop', '-m', 'immediate' ]))[0], 0, 'stop');

# ---- misuse of our options: nothing is started ----

mkdir "$top/keys", 0700;
my $file = new_keystore("$top/keys");
my $uuid = keystore_uuid($file);
my @start = ($shim, '-D', $down_dir, '-s', '-w', '-t', '20', '-l', "$top/down.log");

sub not_running
{
	my ($name) = @_;
	is((run_cmd([ $real, '-D', $down_dir, 'status' ]))[0], 3, "$name: no server runs");
}

for my $mode (qw(status stop reload promote logrotate init initdb))
{
	for my $words ([ '--keystore-passphrase', $mode ], [ $mode, '--keystore-passphrase' ],
		[ $mode, '--keystore-passphrase-file', "$top/pw" ])
	{
		cmd_fails([ $shim, '-D', $down_dir, @$words ], 1,
			[ qr/error: option --keystore-passphrase cannot be used with mode "$mode"/, qr/hint: .*"start" or "restart"/ ],
			"refused: @$words", stdin => "$passphrase\n");
	}
}
cmd_fails([ $shim, '-D', $up_dir, '--keystore-passphrase', 'kill', 'TERM', '1' ], 1,
	qr/cannot be used with mode "kill"/, 'refused: kill');
cmd_fails([ @start, '--keystore-passphrase=secret', 'start' ], 1, qr/takes no value: others could see it/, 'a value');
cmd_fails([ @start, 'start', '--keystore-passphrase-file' ], 1, qr/requires a file name/, 'no file name');

# What the real one refuses anyway it refuses in its own words, without a question.
cmd_fails([ $shim, '--keystore-passphrase', 'start' ], 1, qr/no database directory specified/, 'no data directory', env => $no_pgdata);
cmd_fails([ $shim, '--keystore-passphrase' ], 1, qr/no operation specified/, 'no mode', env => $no_pgdata);
cmd_fails([ $shim, '--keystore-passphrase', 'begin' ], 1, qr/unrecognized operation mode "begin"/, 'unknown mode', env => $no_pgdata);

cmd_fails([ @start, '--keystore-passphrase', 'start' ], 1,
	[ qr/error: keystore location is not configured/, qr/hint: Specify pgx_tde.keystore_location parameter in postgresql.conf\./ ],
	'no location', stdin => "$passphrase\n");
$down->append_conf('postgresql.conf', "pgx_tde.keystore_location = '$top/keys'");
for my $case (
	[ "-c pgx_tde.keystore_location=$top/none", 1, qr/$top\/none.*(?:does not exist|No such file)/ ],
	[ "-c 'pgx_tde.keystore_location='", 1, qr/keystore location is not configured/ ],
	[ "--pgx_tde.keystore_location=$down_dir", 1, qr/is inside the data directory/ ],
	[ '-c pgx_tde.keystore_location=keys', 1, qr/is inside the data directory/ ],
	[ "-c 'unclosed", 1, qr/a quote in the options of the server is not closed/ ],
	[ '--no_such_parameter=1', 1, qr/could not read the configuration of the server.*\n.*detail: .*no_such_parameter/ ])
{
	my ($options, $code, $like) = @$case;
	cmd_fails([ @start, '--keystore-passphrase', '-o', $options, 'start' ], $code, $like, "-o $options",
		stdin => "$passphrase\n");
}
cmd_fails([ @start, '--keystore-passphrase', 'start' ], 2, qr/could not open keystore "\Q$file\E": passphrase is wrong/,
	'wrong passphrase', stdin => "not the passphrase\n$passphrase\n");
cmd_fails([ @start, '--keystore-passphrase', 'restart' ], 2, qr/passphrase is wrong/,
	'wrong passphrase, restart', stdin => "not the passphrase\n");
cmd_fails([ @start, '--keystore-passphrase', 'start' ], 1, qr/end of file on standard input/, 'no passphrase');
cmd_fails([ @start, '--keystore-passphrase', 'start' ], 1, qr/too short or too long/, 'short passphrase', stdin => "short\n");
my $pw = write_file("$top/pw", "$passphrase\n", 0640);
cmd_fails([ @start, '--keystore-passphrase-file', $pw, 'start' ], 1, qr/hint: Run: chmod 0600/, 'passphrase file open to others');
chmod 0600, $pw;
chmod 0640, $file;
cmd_fails([ @start, '--keystore-passphrase-file', $pw, 'start' ], 1, qr/hint: .*chmod/, 'keystore open to others');
chmod 0600, $file;
my $good = read_file($file);
write_file($file, substr($good, 0, -1));
cmd_fails([ @start, '--keystore-passphrase-file', $pw, 'start' ], 1, qr/corrupted/, 'damaged keystore');
write_file($file, $good);
not_running('after all that was refused');
ok(!-e "$top/down.log" || read_file("$top/down.log") !~ /not the passphrase|\Q$passphrase\E/, 'no passphrase in the log');

# ---- what is handed over, seen by a stand-in for the real pg_ctl ----

mkdir "$top/bin";
write_file("$top/bin/postgres", <<'EOF', 0755);
#!/bin/sh
# Answers as "postgres -C" does, and notes how it was asked.
for arg; do printf '%s\n' "$arg"; done >>"$FAKE_DIR/asked"
cat "$FAKE_DIR/location"
EOF
write_file("$top/bin/pg_ctl", <<'EOF', 0755);
#!/bin/sh
for arg; do printf '%s\n' "$arg"; done >"$FAKE_DIR/args"
cat /proc/$$/environ >"$FAKE_DIR/environ"
cat /proc/$$/cmdline >"$FAKE_DIR/cmdline"
ulimit -S -c >"$FAKE_DIR/core"
ls -l /proc/$$/fd >"$FAKE_DIR/fds"
if [ -n "$PGX_KEYSTORE_FD" ]; then
	# Standard output of cat is all that was in the pipe; that cat ends shows that its write end is closed.
	eval "cat <&$PGX_KEYSTORE_FD" >"$FAKE_DIR/message"
fi
exit 42
EOF
my %fake = (PATH => "$top/bin:$ENV{PATH}", FAKE_DIR => $top);
write_file("$top/location", "$top/keys\n");

sub through_fake
{
	my ($args, %opt) = @_;
	unlink "$top/$_" for qw(args environ cmdline core fds message asked);
	my ($rc, undef, $err) = run_cmd([ $shim, @$args ], env => { %fake, %{ delete $opt{env} // {} } }, %opt);
	return ($rc, $err);
}

# Pipes that the stand-in has open; some come from this test.
sub pipe_count { return scalar grep { /pipe:/ } split /\n/, read_file("$top/fds") }

# The key itself, from the library through another door: the message must open the keystore, so it is
# compared with what a second handover says, and looked for where it must not be.
my ($rc, $err) = through_fake([ '-D', $down_dir, '--keystore-passphrase', 'start', '-w', '-o', "-c a.b='x y' -F" ],
	stdin => "$passphrase\nsecond line\n");
is($rc, 42, 'the exit code is that of the real pg_ctl');
is($err, '', 'and nothing is said');
is(read_file("$top/args"), "-D\n$down_dir\nstart\n-w\n-o\n-c a.b='x y' -F\n", 'our option is taken out, the rest is as it was');
is(read_file("$top/asked"), "-D\n$down_dir\n-c\na.b=x y\n-F\n-c\nlc_messages=C\n-C\npgx_tde.keystore_location\n",
	'the server was asked with its own options');
my $message = read_file("$top/message");
is(length $message, 56, '56 bytes came through the pipe');
is(substr($message, 0, 8), 'PGXKSK01', 'magic');
is(unpack('H*', substr $message, 8, 16), $uuid =~ tr/-//dr, 'keystore UUID');
my $key = substr $message, 24;
isnt($key, "\0" x 32, 'a key');

my $environ = read_file("$top/environ");
like($environ, qr/(?:^|\0)PGX_KEYSTORE_FD=\d+\0/, 'the environment names the descriptor');
for my $where (qw(environ cmdline args asked))
{
	my $text = read_file("$top/$where");
	for my $secret ($passphrase, $key, unpack('H*', $key), unpack('H*', $passphrase))
	{
		ok(index(lc $text, lc $secret) < 0, "no secret in $where");
	}
}
my ($fd) = $environ =~ /PGX_KEYSTORE_FD=(\d+)/;
cmp_ok($fd, '>', 2, 'not one of the standard descriptors');
my $pipes = pipe_count();

through_fake([ '-D', $down_dir, "--keystore-passphrase-file=$pw", 'restart' ]);
is(read_file("$top/message"), $message, 'restart, with a file: the same message');
is(read_file("$top/args"), "-D\n$down_dir\nrestart\n", 'and our option is taken out');
through_fake([ 'start', '--keystore-passphrase' ], env => { PGDATA => $down_dir }, stdin => "$passphrase\n");
is(read_file("$top/message"), $message, 'PGDATA instead of -D');

# The next line of standard input is left for the real pg_ctl's children; a wrong first one is the end.
($rc) = through_fake([ '-D', $down_dir, '--keystore-passphrase', 'start' ], stdin => "not the passphrase\n$passphrase\n");
is($rc, 2, 'wrong passphrase: exit code');
ok(!-e "$top/args", 'wrong passphrase: the real pg_ctl is not started');

# With standard input, output or error closed, the pipe must not take their numbers.
($rc) = run_cmd([ 'sh', '-c', 'exec "$@" <&- >&- 2>&-', 'sh', $shim, '-D', $down_dir, "--keystore-passphrase-file=$pw", 'start' ], env => \%fake);
is($rc, 42, 'closed standard descriptors');
is(read_file("$top/message"), $message, 'closed standard descriptors: the same message');

# The server's limit for core dumps is as it was before.
for my $limit (0, 1000, 'unlimited')
{
	my ($code) = run_cmd([ 'sh', '-c', 'ulimit -S -c "$0" 2>/dev/null || exit 99; exec "$@"', $limit, $shim,
			'-D', $down_dir, "--keystore-passphrase-file=$pw", 'start' ], env => \%fake);
  SKIP:
	{
		skip "the hard limit is below $limit", 1 if $code == 99;
		is(read_file("$top/core"), "$limit\n", "core limit $limit is kept");
	}
}

# Without our options nothing is opened, handed over or asked.
($rc) = through_fake([ '-D', $down_dir, 'start' ]);
is($rc, 42, 'plain start passes through');
ok(!-e "$top/message" && !-e "$top/asked", 'and nothing is asked or handed over');
unlike(read_file("$top/environ"), qr/PGX_KEYSTORE_FD/, 'nor is there a descriptor');
is($pipes - pipe_count(), 1, 'with our option one more pipe was inherited: the read end');

# restart takes the options of the last start, if there are no others.
write_file("$down_dir/postmaster.opts", qq($top/bin/postgres "-D" "$down_dir" "-c" "work_mem=1 MB"\n));
through_fake([ '-D', $down_dir, "--keystore-passphrase-file=$pw", 'restart' ]);
is(read_file("$top/asked"), "-D\n$down_dir\n-D\n$down_dir\n-c\nwork_mem=1 MB\n-c\nlc_messages=C\n-C\npgx_tde.keystore_location\n",
	'restart: the options of the last start');
through_fake([ '-D', $down_dir, "--keystore-passphrase-file=$pw", '-o', '-F', 'restart' ]);
unlike(read_file("$top/asked"), qr/work_mem/, 'restart with -o: not those');
unlink "$down_dir/postmaster.opts";

# ---- finding the real one ----

# Ourselves in PATH, also twice and under another name of the same file, and a copy of ourselves.
mkdir "$top/$_" for qw(link copy);
symlink $shim, "$top/link/pg_ctl";
write_file("$top/copy/pg_ctl", read_file($shim), 0755);
for my $dirs ("$ENV{PGX_SHIM_DIR}:$top/bin", "$top/link:$ENV{PGX_SHIM_DIR}:$top/bin", "$top/copy:$ENV{PGX_SHIM_DIR}:$top/bin",
	"$ENV{PGX_SHIM_DIR}:$top/copy:$ENV{PGX_SHIM_DIR}:$top/copy:$top/bin", "$top/none:$ENV{PGX_SHIM_DIR}:$top/bin")
{
	my ($code) = run_cmd([ 'timeout', '20', 'pg_ctl', 'status' ], env => { PATH => "$dirs:/usr/bin:/bin", FAKE_DIR => $top });
	is($code, 42, 'found behind ' . ($dirs =~ s/\Q$top\E|\Q$ENV{PGX_SHIM_DIR}\E/.../gr));
}
# With none in PATH it is the one that the shim was built for.
like((run_cmd([ $shim, '--version' ], env => { PATH => '/usr/bin:/bin' }))[1], qr/^pg_ctl \(PostgreSQL\)/, 'none in PATH');

$node->stop;
done_testing();
