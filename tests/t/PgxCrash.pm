# PgxCrash.pm
#		What the crash tests share: killing servers without warning, and clients whose
#		acknowledged work can be accounted for afterwards.
#
# The ledger: a client inserts rows of known content, one transaction each, and
# writes the number of a row to a file outside the database when, and only when, the server
# has acknowledged its commit.  Only the server is killed, never the machine or the client, so the file
# is complete.

package PgxCrash;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Utils;
use POSIX ();
use PgxTde;
use Test::More;
use Time::HiRes qw(usleep time);

our @EXPORT = qw(
  kill_server kill_process wait_ended rounds random_sleep
  make_ledger start_ledger start_pgbench pgbench_acknowledged start_psql is_busy finish stop_client acknowledged
  check_ledger check_balances
);

# How often a test kills; fewer for a quick look, more for a night.
sub rounds
{
	my $rounds = $ENV{PGX_CRASH_ROUNDS} // 20;
	die "PGX_CRASH_ROUNDS must be a number of at least 4" if $rounds !~ /^\d+$/ || $rounds < 4;
	return $rounds;
}

# Moments differ from run to run; the seed lets one be repeated, as far as timing goes.
my $seed = $ENV{PGX_CRASH_SEED} // (time() * 1000) % 1_000_000;
srand($seed);
note("PGX_CRASH_SEED=$seed");

sub random_sleep
{
	my ($least, $most) = @_;
	usleep(1_000_000 * ($least + rand($most - $least)));
	return;
}

# ---- killing --------------------------------------------------------------------

# Parent and state of a process; nothing if there is none.
sub process_stat
{
	my ($pid) = @_;
	my $stat = slurp_raw("/proc/$pid/stat") // return;
	my ($state, $parent) = $stat =~ /^\d+ \(.*\) (\S) (\d+) /s;
	return ($parent, $state);
}

sub is_alive
{
	my ($parent, $state) = process_stat($_[0]);
	return defined $state && $state !~ /[ZX]/;
}

sub children_of
{
	my ($pid) = @_;
	my @children;
	foreach my $child (map { m{(\d+)$} } glob('/proc/[0-9]*'))
	{
		my ($parent) = process_stat($child);
		push @children, $child if defined $parent && $parent == $pid;
	}
	return @children;
}

sub wait_gone
{
	my (@pids) = @_;
	wait_until(sub { !grep { is_alive($_) } @pids }) or die "killed processes are still there: @pids";
	return;
}

# A dead postmaster that init has not collected yet would be taken for a running one.  Where init takes its time, or
# never does it, the files that name it have to go.
sub forget_postmaster
{
	my ($node, $pid) = @_;
	foreach my $try (1 .. 10)
	{
		return if !kill(0, $pid);
		usleep(20_000);
	}
	unlink $node->data_dir . '/postmaster.pid', $node->host . '/.s.PGSQL.' . $node->port . '.lock';
	return;
}

# kill -9 of the postmaster and everything below it, at once; returns how many processes that were.
sub kill_server
{
	my ($node) = @_;
	my $postmaster = is_running($node) or die 'server "' . $node->name . '" does not run';

	# While it is stopped it starts no other, and none has the time to notice its death.
	kill 'STOP', $postmaster;
	until (!is_alive($postmaster) || (process_stat($postmaster))[1] eq 'T')
	{
		usleep(1_000);
	}
	my @all = (children_of($postmaster), $postmaster);
	kill 'KILL', @all;
	$node->{_pid} = undef;
	wait_gone(@all);
	forget_postmaster($node, $postmaster);
	return scalar @all;
}

# kill -9 of one process of a server; returns its id.  Of the clients' ones, one at work: there may be none just now.
sub kill_process
{
	my ($node, $type) = @_;
	my $pid;
	wait_until(sub {
		($pid) = split /\n/, $node->safe_psql('postgres',
			"SELECT pid FROM pg_stat_activity WHERE backend_type = '$type' AND pid <> pg_backend_pid() "
			  . "AND (backend_type <> 'client backend' OR state = 'active') ORDER BY random()");
		$pid;
	}) or die "no $type to kill";
	kill 'KILL', $pid;
	wait_gone($pid);
	return $pid;
}

# Wait until a server has ended by itself.
sub wait_ended
{
	my ($node) = @_;
	my $postmaster = $node->{_pid};
	$node->{_pid} = undef;
	wait_gone($postmaster);
	forget_postmaster($node, $postmaster);
	return;
}

# ---- clients --------------------------------------------------------------------

# Start a shell command in the environment of a node's clients.  A client: { pid, out, err, ... }.
sub start_client
{
	my ($node, $name, $command, %more) = @_;
	my $base = work_dir() . "/$name";
	my %client = (name => $name, out => "$base.out", err => "$base.err", %more);

	local %ENV = $node->_get_env(PGAPPNAME => $name);
	$client{pid} = fork() // die "could not fork: $!";
	if ($client{pid} == 0)
	{
		open STDIN, '<', '/dev/null' or POSIX::_exit(126);
		open STDOUT, '>', $client{out} or POSIX::_exit(126);
		open STDERR, '>', $client{err} or POSIX::_exit(126);
		exec '/bin/sh', '-c', $command or POSIX::_exit(127);
	}
	return \%client;
}

# Does a client still work?
sub is_busy
{
	my ($client) = @_;
	return waitpid($client->{pid}, POSIX::WNOHANG()) == 0;
}

# Wait for the end of a client; returns its exit code.
sub finish
{
	my ($client) = @_;
	waitpid($client->{pid}, 0) == $client->{pid} or die "lost client \"$client->{name}\"";
	return $? >> 8;
}

# End a client before its time, and wait until the server is done with what it sent last.
sub stop_client
{
	my ($node, $client) = @_;
	kill 'TERM', children_of($client->{pid}), $client->{pid};
	my $code = finish($client);
	$node->poll_query_until('postgres',
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = '$client->{name}'")
	  or die "the session of \"$client->{name}\" does not end";
	return $code;
}

# A script for psql whose every line of output tells of something acknowledged.
sub start_psql
{
	my ($node, $db, $name, $producer) = @_;
	return start_client($node, $name, "$producer | exec psql -XqAt -v ON_ERROR_STOP=1 -d $db");
}

# What a client has got acknowledged so far: its lines.
sub acknowledged
{
	my ($client) = @_;
	my $text = slurp_raw($client->{out}) // '';
	$text =~ s/[^\n]*\z//;
	return split /\n/, $text;
}

# pgbench's own transactions on tables that are there.
sub start_pgbench
{
	my ($node, $db, $name, $seconds) = @_;
	return start_client($node, $name, "exec pgbench -n -M prepared -c 4 -T $seconds $db");
}

# How many transactions pgbench has got acknowledged, from its report.
sub pgbench_acknowledged
{
	my ($client) = @_;
	my ($count) = slurp_raw($client->{out}) =~ /^number of transactions actually processed: (\d+)/m;
	die 'pgbench has no report: ' . slurp_raw($client->{err}) if !defined $count;
	return $count;
}

# ---- accounts -------------------------------------------------------------------

sub make_ledger
{
	my ($node, $db) = @_;
	$node->safe_psql($db, q{
		CREATE TABLE ledger (client int, n int, content text, PRIMARY KEY (client, n));
		CREATE FUNCTION ledger_content(client int, n int) RETURNS text
		LANGUAGE sql IMMUTABLE AS $$ SELECT repeat(md5(client || '/' || n), 1 + n % 40) $$;});
	return;
}

# A client of the ledger: rows (client, 1000000 * round + 1, 2, 3, ...), until the server is gone.
sub start_ledger
{
	my ($node, $db, $client, $round) = @_;
	my $first = $round * 1_000_000 + 1;
	my $statement = "INSERT INTO ledger VALUES ($client, &, ledger_content($client, &)) RETURNING client, n;";

	return start_psql($node, $db, "ledger_${client}_$round",
		"seq $first " . ($first + 900_000) . " | sed 's/.*/$statement/'");
}

# Compare the table with what was acknowledged to all ledger clients so far.  Returns counts: acknowledged,
# lost, in the table but never acknowledged, with another content than they were given.
sub check_ledger
{
	my ($node, $db, @clients) = @_;
	my $file = work_dir() . '/acknowledged';

	write_file($file, join('', map { "$_\n" } map { acknowledged($_) } @clients));
	my $result = $node->safe_psql($db, qq{
		CREATE TEMP TABLE acknowledged (client int, n int);
		\\copy acknowledged FROM '$file' (DELIMITER '|')
		SELECT (SELECT count(*) FROM acknowledged),
			(SELECT count(*) FROM acknowledged NATURAL LEFT JOIN ledger WHERE content IS NULL),
			(SELECT count(*) FROM ledger NATURAL LEFT JOIN acknowledged a WHERE a.n IS NULL),
			(SELECT count(*) FROM ledger WHERE content IS DISTINCT FROM ledger_content(client, n));});
	return split /\|/, $result;
}

# pgbench's four tables must agree.  Returns the number of transactions in the history, or -1 and says why.
sub check_balances
{
	my ($node, $db) = @_;
	my ($history, @sums) = split /\|/, $node->safe_psql($db, q{
		SELECT (SELECT count(*) FROM pgbench_history),
			(SELECT coalesce(sum(delta), 0) FROM pgbench_history), (SELECT sum(abalance) FROM pgbench_accounts),
			(SELECT sum(tbalance) FROM pgbench_tellers), (SELECT sum(bbalance) FROM pgbench_branches)});

	return $history if !grep { $_ != $sums[0] } @sums;
	diag("balances of history, accounts, tellers, branches: @sums");
	return -1;
}

1;
