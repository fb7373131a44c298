# PgxKillAt.pm
#		kill -9 of one process of a server at a place that can be counted: before its N-th system call of a
#		kind, by strace.  A test takes N = 1, 2, 3, ... until the work gets to its end.

package PgxKillAt;

use strict;
use warnings;

use Exporter 'import';
use Test::More;
use Time::HiRes qw(usleep);

use PgxCrash;
use PgxTde;

our @EXPORT = qw(@CHANGING_CALLS can_kill_at kill_at killed_by come_back make_encrypted_table good_rows);

# The calls with which files of the keystore, the key table, WAL and the log are changed.
our @CHANGING_CALLS = qw(write pwrite64 fsync fdatasync rename renameat);

# Whether strace is there and may trace processes of this user.
sub can_kill_at
{
	return system("strace -o /dev/null -e inject=getppid:signal=KILL:when=2 true >/dev/null 2>&1") == 0;
}

# From now on, a process is killed before the N-th of a system call.  Returns the one who waits for that.
sub kill_at
{
	my ($pid, $call, $n, $trace) = @_;
	my $tracer = fork() // die "could not fork: $!";
	if ($tracer == 0)
	{
		exec 'strace', '-qq', '-p', $pid, '-y', '-o', $trace, '-e', 'trace=' . join(',', @CHANGING_CALLS), '-e',
		  "inject=$call:signal=KILL:when=$n"
		  or die "could not execute strace: $!";
	}
	# It may have been killed before anybody could see that it was traced.
	wait_until(sub { (slurp_raw("/proc/$pid/status") // return 1) =~ /^(TracerPid:\s*[1-9]|State:\s*[ZX])/m })
	  or die "strace does not get at process $pid";
	return { pid => $tracer, trace => $trace, call => $call, n => $n };
}

# The process has ended.  Was it killed?  Says before which call.
sub killed_by
{
	my ($tracer) = @_;
	waitpid($tracer->{pid}, 0);
	my $text = slurp_raw($tracer->{trace});
	return 0 if $text !~ /killed by SIGKILL/;
	my ($last) = reverse grep { /^\w+\(/ } split /\n/, $text;
	note("$tracer->{call} $tracer->{n}: " . substr($last // '(nothing)', 0, 150));
	return 1;
}

# Come back: the postmaster restarts the rest, or everything dies and is started again.
sub come_back
{
	my ($node, $all) = @_;
	if ($all)
	{
		kill_server($node);
		$node->start;
		return;
	}
	comes_back($node) or die 'the server does not come back';
	return;
}

sub make_encrypted_table
{
	my ($node, $name) = @_;
	$node->safe_psql('postgres',
		"CREATE TABLESPACE ts_$name LOCATION '' WITH (tablespace_encryption_algorithm = 'AES256')");
	$node->safe_psql('postgres',
		"CREATE TABLE $name TABLESPACE ts_$name AS SELECT n, md5(n::text) AS content FROM generate_series(1, 500) n");
	return;
}

# How many rows of such a table are as they were made.
sub good_rows
{
	my ($node, $name) = @_;
	return $node->safe_psql('postgres', "SELECT count(*) FROM $name WHERE content = md5(n::text)");
}

1;
