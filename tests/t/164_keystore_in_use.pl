# 164_keystore_in_use.pl
#		What changes a keystore file is refused while a running server works on it, whatever its path
#		is called, and only then: not after the server has stopped or died, and not because
#		of what its postmaster.pid still says.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PgxTde;
use Test::More;
use Time::HiRes qw(usleep);

my $second = 'the second phrase of test 164';
my @fast = ('--kdf-cost', 10);
my $primary = new_primary('primary');
my $file = keystore_file($primary);
my $alias = work_dir() . '/alias';
symlink keystore_dir($primary), $alias or die "could not make a link: $!";

sub refused
{
	my ($args, $name, $path) = @_;
	my $before = slurp_raw($file);
	my ($rc, $out, $err) = pgx_keystore([ @$args, $path // $file ], "$PASSPHRASE\n$second\n");
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($rc, 1, "$name is refused");
	like($err, qr/error: keystore "[^"]+" is in use by the server in "\Q@{[ $primary->data_dir ]}\E"\n/, "$name: why");
	like($err, qr/hint: Let the server make the change, so that its standbys follow: use option -d/, "$name: what to do");
	ok($before eq slurp_raw($file), "$name: nothing is changed");
	return;
}

sub done
{
	my ($args, $lines, $name) = @_;
	my $before = slurp_raw($file);
	my ($rc, $out, $err) = pgx_keystore([ @$args, $file ], $lines);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($rc, 0, $name);
	ok($before ne slurp_raw($file), "$name: the file is another one");
	return;
}

# Wait until a process is gone.
sub gone
{
	my ($pid) = @_;
	for (1 .. 600)
	{
		return 1 if !kill 0, $pid;
		usleep(50_000);
	}
	return 0;
}

# ---- running ---------------------------------------------------------------------------------------

refused(@$_) foreach (
	[ ['rotate'], 'rotate' ],
	[ [ 'passwd', @fast ], 'passwd' ],
	[ [ 'rekey', '--force' ], 'rekey' ],
	[ [ 'slot', 'add', @fast ], 'slot add' ],
	[ [ 'slot', 'change', '--slot', 1, @fast ], 'slot change' ],
	[ [ 'slot', 'label', '--slot', 1, '--label', 'x' ], 'slot label' ],
	[ [ 'slot', 'remove', '--slot', 1 ], 'slot remove' ],
	[ [ 'recovery-key', 'add', '--stdout', @fast ], 'recovery-key add' ]);
refused(['rotate'], 'rotate by another path', "$alias/keystore.ks");
my ($rc, $out, $err) = pgx_keystore([ 'destroy', 1, '--force', $file ], "$PASSPHRASE\n");
is($rc, 1, 'destroy is refused');
like($err, qr/is in use by the server in/, 'destroy: why');

# Reading it is nobody's business.
($rc) = pgx_keystore([ 'keys', $file ], "$PASSPHRASE\n");
is($rc, 0, 'its keys can be listed');
($rc) = pgx_keystore([ 'slot', 'list', $file ], '');
is($rc, 0, 'and its slots');

# Another keystore is not in use.
my $other = work_dir() . '/other';
mkdir $other, 0700;
write_file("$other/keystore.ks", slurp_raw($file));
($rc) = pgx_keystore([ 'rotate', "$other/keystore.ks" ], "$PASSPHRASE\n");
is($rc, 0, 'another file can be changed');

# Started with the location on its command line instead of in its configuration.
$primary->stop;
my $conf = slurp_raw($primary->data_dir . '/postgresql.conf');
(my $without = $conf) =~ s/^pgx_tde\.keystore_location.*\n//m;
isnt($without, $conf, 'the location is taken out of the configuration');
write_file($primary->data_dir . '/postgresql.conf', $without);
is(plain_start($primary, '-o', '-c pgx_tde.keystore_location=' . keystore_dir($primary)), 0, 'and is an argument');
refused(['rotate'], 'rotate of what was named by an argument');

# ---- not running -----------------------------------------------------------------------------------------

$primary->stop;
write_file($primary->data_dir . '/postgresql.conf', $conf);
done(['rotate'], "$PASSPHRASE\n", 'rotate after the server has stopped');
done([ 'passwd', @fast ], "$PASSPHRASE\n$second\n", 'passwd');
set_passphrase($primary, $second);
$primary->start;
refused(['rotate'], 'rotate of the running server again');

# It dies with all its processes, and leaves its postmaster.pid.
my $pid = is_running($primary);
my @children = split ' ', slurp_raw("/proc/$pid/task/$pid/children");
kill 'STOP', $pid;
kill 'KILL', @children, $pid;
ok(gone($_), "process $_ is gone") foreach $pid, @children;
my $pidfile = $primary->data_dir . '/postmaster.pid';
ok(-e $pidfile, 'postmaster.pid is left');
done(['rotate'], "$second\n", 'rotate beside a stale postmaster.pid');

# The number in it is another process's now: this one's, which is elsewhere.
my $stale = slurp_raw($pidfile);
(my $reused = $stale) =~ s/^\d+/$$/;
write_file($pidfile, $reused);
done(['rotate'], "$second\n", 'rotate when the process id is used again');

# Or of one that is in the data directory, but no server: somebody's shell.
my ($in, $shell_out) = ('', '');
my $shell = IPC::Run::start(
	[ 'sh', '-c', 'cd "$1" && sed -i "1s/.*/$$/" postmaster.pid && echo $$ && read line', 'sh', $primary->data_dir ],
	'<', \$in, '>', \$shell_out);
$shell->pump until $shell_out =~ /\n/;
like(slurp_raw($pidfile), qr/^\Q$shell_out\E/, 'postmaster.pid has the number of a shell');
done(['rotate'], "$second\n", 'rotate beside a process that is no server');
$in = "\n";
$shell->finish;

write_file($pidfile, $stale);
$primary->{_pid} = undef;
$primary->start;
is(status_of($primary, 'status'), 'open', 'the server starts with what was made meanwhile');
$primary->stop;
done_testing();
