# 170_wait.pl
#		pgx_tde.on_closed_keystore = wait: a server that must read encrypted WAL waits for
#		"pgx_keystore open -D DATADIR", can be stopped meanwhile, and goes on with nothing lost.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IO::Socket::UNIX;
use PgxTde;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Socket qw(SOCK_SEQPACKET);
use Test::More;

my $WAITS = qr/LOG:  waiting for the keystore to be opened/;

# pg_ctl -W, as a service manager starts a server; returns the size of the log before.
sub start_waiting
{
	my ($node, $name) = @_;
	my $before = log_size($node);
	local %ENV = $node->_get_env(PGAPPNAME => undef);
	my ($rc) = run_program(
		[ 'pg_ctl', '-W', '-D', $node->data_dir, '-l', $node->logfile, '-o', '--cluster-name=' . $node->name, 'start' ]);
	is($rc, 0, "$name: pg_ctl -W start");
	wait_for_line($node, $before, $WAITS, "$name: the server waits");
	return $before;
}

sub wait_for_line
{
	my ($node, $before, $line, $name) = @_;
	wait_until(sub { log_since($node, $before) =~ $line });
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return like(log_since($node, $before), $line, $name);
}

sub open_waiting
{
	my ($node, $passphrase, @options) = @_;
	return pgx_keystore([ 'open', '-D', $node->data_dir, @options ], "$passphrase\n");
}

sub pg_ctl
{
	my ($node, @args) = @_;
	my @result = run_program([ 'pg_ctl', '-D', $node->data_dir, @args ]);
	$node->_update_pid(-1);
	return @result;
}

sub accepts
{
	my ($node) = @_;
	wait_until(sub { (run_program([ 'pg_isready', '-q', '-h', $node->host, '-p', $node->port ]))[0] == 0 });
	$node->_update_pid(1);
	return;
}

my $socket = 'pgx_tde/open.sock';
my $primary = new_primary('primary', open => 'none', conf => "pgx_tde.on_closed_keystore = wait\n");
my $dir = tablespace_dir($primary, 'enc');
$primary->safe_psql('postgres',
	"CREATE TABLESPACE enc LOCATION '$dir' WITH (tablespace_encryption_algorithm = 'AES256')");
$primary->safe_psql('postgres',
	q{CREATE TABLE t TABLESPACE enc AS SELECT g, 'MARK_' || g AS x FROM generate_series(1, 5000) g});
my $standby = new_standby($primary, 'standby', open => 'none');

my ($rc, $out, $err) = open_waiting($primary, $PASSPHRASE);
is($rc, 1, 'nobody waits: refused');
like($err, qr/error: no server in ".*" is waiting for its keystore/, 'with a message');
like($err, qr/hint: A server waits if pgx_tde\.on_closed_keystore is "wait"/, 'and what to do');
($rc, $out, $err) = pgx_keystore(['open']);
is($rc, 1, 'no data directory');
like($err, qr/error: no data directory is specified/, 'is said');

# ---- crash, then wait --------------------------------------------------------------------------------------

my $content = fingerprint($primary, 'postgres');
$primary->stop('immediate');
my $before = start_waiting($primary, 'after a crash');
like(log_since($primary, $before), qr/HINT:  Run "pgx_keystore open -D \Q@{[$primary->data_dir]}\E" as the server's user/,
	'the log names the command');
($rc, $out) = pg_ctl($primary, 'status');
is($rc, 0, 'pg_ctl status: it runs');
like($out, qr/server is running/, 'and says so');
isnt((run_program([ 'pg_isready', '-q', '-h', $primary->host, '-p', $primary->port ]))[0], 0, 'it accepts nobody yet');
is((stat $primary->data_dir . "/$socket")[2] & 0777, 0600, "the socket is the server's user's alone");
is((stat _)[7], 0, 'and holds nothing');

($rc, $out, $err) = open_waiting($primary, 'not the passphrase');
is($rc, 2, 'a wrong passphrase');
like($err, qr/passphrase is wrong/, 'is said');
ok(is_running($primary), 'and the server still waits');
unlike(log_since($primary, $before), qr/redo starts/, 'with nothing recovered');

# Who has no key: bytes at random, and a client that says nothing.
my $mute = IO::Socket::UNIX->new(Type => SOCK_SEQPACKET, Peer => $primary->data_dir . "/$socket")
  or die "could not connect: $!";
my $noise = IO::Socket::UNIX->new(Type => SOCK_SEQPACKET, Peer => $primary->data_dir . "/$socket")
  or die "could not connect: $!";
close $mute;
$noise->send('x' x 56);
my $answer;
$noise->recv($answer, 4096);
is($answer, keystore_file($primary), 'the server says where its keystore is');
$noise->recv($answer, 4096);
like($answer, qr/^Nthe server did not understand the request\n/, 'and does not take noise for a key');
my $forged = IO::Socket::UNIX->new(Type => SOCK_SEQPACKET, Peer => $primary->data_dir . "/$socket")
  or die "could not connect: $!";
$forged->send('PGXKSK01' . substr(slurp_raw(keytable_file($primary)), 0, 16) . 'k' x 32);
$forged->recv($answer, 4096);
$forged->recv($answer, 4096);
like($answer, qr/^Nthe key that was sent does not open keystore /, 'nor a key that is none');
ok(is_running($primary), 'the server still waits');

write_file(pass_file($primary), "$PASSPHRASE\n");
($rc, $out, $err) = pgx_keystore([ 'open', '-D', $primary->data_dir, '--passphrase-file', pass_file($primary) ]);
is($rc, 0, 'the right passphrase');
like($out, qr/the server in ".*" has opened its keystore/, 'is confirmed');
accepts($primary);
is_content(fingerprint($primary, 'postgres'), $content, 'nothing is lost');
is(status_of($primary, 'status, opened_by'), 'open|pgx_keystore', 'the view says who opened it');
ok(!-e $primary->data_dir . "/$socket", 'the socket is gone');
like(log_since($primary, 0), qr/ LOG:  event=open outcome=$_/m, "audit line: $_")
  foreach 'failure keystore=\S+ method=pgx_keystore reason="the key that was sent is another keystore\'s"',
  'success keystore=\S+ .*generation=\d+ key=\d+ method=pgx_keystore$';

# ---- stopped while it waits ----------------------------------------------------------------------------------

foreach my $mode (qw(smart fast immediate))
{
	$primary->safe_psql('postgres', 'INSERT INTO t SELECT g FROM generate_series(1, 100) g');
	$content = fingerprint($primary, 'postgres');
	$primary->stop('immediate');
	$before = start_waiting($primary, "to be stopped ($mode)");
	($rc) = pg_ctl($primary, '-w', '-t', 20, '-m', $mode, 'stop');
	is($rc, 0, "pg_ctl stop -m $mode ends the wait");
	like(log_since($primary, $before), qr/received shutdown request while waiting/, 'the log says so');
	ok(!-e $primary->data_dir . "/$_", "no $_ is left") foreach 'postmaster.pid', $socket;
	start_waiting($primary, "again ($mode)");
	is((open_waiting($primary, $PASSPHRASE))[0], 0, 'opened');
	accepts($primary);
	is_content(fingerprint($primary, 'postgres'), $content, 'and nothing is lost');
}

# Killed while it waits, its socket stays; then the next one takes it over.
$primary->stop('immediate');
start_waiting($primary, 'to be killed');
my $pid = is_running($primary);
kill 'KILL', $pid;
wait_until(sub { !kill 0, $pid });
ok(-S $primary->data_dir . "/$socket", 'the socket of a killed server');
is((open_waiting($primary, $PASSPHRASE))[0], 1, 'belongs to nobody');
start_waiting($primary, 'after that');
is((open_waiting($primary, $PASSPHRASE))[0], 0, 'the next server has one of its own');
accepts($primary);

# Another way to open it at the start leaves nothing to wait for.
$primary->stop;
$before = log_size($primary);
is((shim_start($primary, $PASSPHRASE))[0], 0, 'pg_ctl --keystore-passphrase');
unlike(log_since($primary, $before), $WAITS, 'does not wait');

# ---- a keystore that does not fit: put right while the server waits -----------------------------------------

my $newest = slurp_raw(keystore_file($primary));
$primary->stop('immediate');
start_waiting($primary, 'with a keystore of others');
unlink keystore_file($primary);
create_keystore($primary, $PASSPHRASE);
($rc, $out, $err) = open_waiting($primary, $PASSPHRASE);
is($rc, 2, 'a keystore of others is refused');
like($err, qr/the server could not open its keystore: keystore ".*" does not belong to this data directory/, 'by the server');
like($err, qr/hint: Copy the keystore of this replication group with "pgx_keystore copy"/, 'with what to do');
ok(is_running($primary), 'it still waits');
write_file(keystore_file($primary), $newest);
is((open_waiting($primary, $PASSPHRASE))[0], 0, 'and goes on when the right one is back');
accepts($primary);
is_content(fingerprint($primary, 'postgres'), $content, 'with nothing lost');

# ---- standby -----------------------------------------------------------------------------------------------------

start_waiting($standby, 'standby');
is((open_waiting($standby, $PASSPHRASE))[0], 0, 'standby: opened');
accepts($standby);
rotate($primary);
$primary->safe_psql('postgres', 'INSERT INTO t SELECT g FROM generate_series(1, 100) g');
caught_up($primary, $standby);
same_content($primary, $standby, ['postgres'], 'standby: it follows');
$standby->stop;
start_waiting($standby, 'standby, once more');
is((pg_ctl($standby, '-w', '-t', 20, 'stop'))[0], 0, 'standby: stopped while waiting');

# One that was built before there was a key waits at the first key, with sessions already there.
my $young = new_primary('young', open => 'none', master_key => 0, conf => "pgx_tde.on_closed_keystore = wait\n");
$young->safe_psql('postgres', 'CREATE EXTENSION IF NOT EXISTS pgx_tde; CREATE TABLE t AS SELECT g FROM generate_series(1, 1000) g');
my %followers;
foreach my $how (qw(command sql))
{
	$followers{$how} = new_standby($young, "by_$how", open => 'none', copy => 0);
	plain_start($followers{$how});
}
$young->safe_psql('postgres', "SELECT pgx_set_master_key('$PASSPHRASE')");
$young->safe_psql('postgres', 'INSERT INTO t SELECT g FROM generate_series(1, 1000) g');
foreach my $how (qw(command sql))
{
	my $node = $followers{$how};
	wait_for_line($node, 0, $WAITS, "$how: it waits at the first key");
	is($node->safe_psql('postgres', 'SELECT count(*) FROM t'), 1000, "$how: and serves what it has");
	rmdir keystore_dir($node);
	copy_keystore($young, $node);
	if ($how eq 'sql')
	{
		$node->safe_psql('postgres', "SELECT pgx_open_keystore('$PASSPHRASE')");
	}
	else
	{
		is((open_waiting($node, $PASSPHRASE))[0], 0, "$how: opened");
	}
	caught_up($young, $node);
	same_content($young, $node, ['postgres'], "$how: it goes on where it stopped");
}

$_->stop foreach values %followers, $young, $primary;
done_testing();
