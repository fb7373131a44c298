# PgxSshd.pm
#		A real sshd on the loopback interface for tests that copy over ssh.
#
# sshd runs as the user who runs the test, with its own configuration, host key and authorized keys.

package PgxSshd;

use strict;
use warnings;

use Exporter 'import';
use IO::Socket::INET;
use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(find_sshd start_sshd ssh_options);

my $pid;

# Its path; undef if it is not installed.
sub find_sshd
{
	my ($sshd) = grep { -x } '/usr/sbin/sshd', '/usr/local/sbin/sshd', '/usr/bin/sshd';
	return $sshd;
}

sub write_config
{
	my ($path, $text) = @_;
	open my $fh, '>', $path or die "could not open \"$path\": $!";
	print $fh $text;
	close $fh or die "could not write \"$path\": $!";
	chmod 0600, $path or die "could not chmod \"$path\": $!";
	return;
}

# Start it, with its files in a directory; returns { dir, port, host, log }.  It ends with the test.
sub start_sshd
{
	my ($dir) = @_;
	my $sshd = find_sshd() // die 'sshd is not installed';
	my $listener = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1', LocalPort => 0) or die "$!";
	my $port = $listener->sockport;
	close $listener;

	# sshd started by root wants its separation directory; any other user's does not.
	mkdir '/run/sshd', 0755 if $> == 0;
	foreach my $key ('host_key', 'client_key')
	{
		system_or_bail('ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f', "$dir/$key");
	}
	write_config("$dir/authorized_keys", slurp_file("$dir/client_key.pub"));
	write_config("$dir/sshd_config", <<"EOF");
Port $port
ListenAddress 127.0.0.1
HostKey $dir/host_key
AuthorizedKeysFile $dir/authorized_keys
PidFile $dir/sshd.pid
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
LogLevel VERBOSE
SetEnv LD_LIBRARY_PATH=$ENV{LD_LIBRARY_PATH}
EOF

	$pid = fork() // die "could not fork: $!";
	if ($pid == 0)
	{
		open STDIN, '<', '/dev/null';
		exec $sshd, '-D', '-f', "$dir/sshd_config", '-E', "$dir/sshd.log" or POSIX::_exit(127);
	}
	my $up = 0;
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		last if $up = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port);
		select undef, undef, undef, 0.1;
	}
	ok($up, 'sshd is up') or BAIL_OUT("sshd did not start:\n" . (-e "$dir/sshd.log" ? slurp_file("$dir/sshd.log") : ''));
	close $up;
	return { dir => $dir, port => $port, host => getpwuid($>) . '@127.0.0.1', log => "$dir/sshd.log" };
}

# What ssh needs to get there, and to ask nobody.
sub ssh_options
{
	my ($server) = @_;
	return ('-F', '/dev/null', '-p', $server->{port}, '-i', "$server->{dir}/client_key", '-o', 'IdentitiesOnly=yes', '-o',
		"UserKnownHostsFile=$server->{dir}/known_hosts", '-o', 'StrictHostKeyChecking=accept-new', '-o', 'BatchMode=yes', '-o',
		'LogLevel=ERROR');
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

1;
