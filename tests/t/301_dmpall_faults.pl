# 301_dmpall_faults.pl
#		pgx_dmpall dies, is interrupted, or fails, at one point after the other: no backup is listed that
#		is not whole, none that was whole is lost, and the next run puts the rest away.
#
# strace kills it before its N-th call of a kind, or lets that call fail.

use strict;
use warnings;

use Fcntl qw(:flock);
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

use PgxBackup;
use PgxTde;

if (!can_inject())
{
	plan skip_all => 'strace (package strace) is needed, and that it may trace processes of this user';
}

my $node = backup_primary('main');
my $area = area_dir($node);
fill_tablespaces($node, 'MARK_backup');
dmpall_ok($node);
my $program = (grep { -x } map { "$_/pgx_dmpall" } split /:/, $ENV{PATH})[0];

# pgx_dmpall under strace; returns its exit code, standard error and the trace.
sub traced { return injected($node, shift, 'pgx_dmpall', @_); }

# Wait until nobody has the area's lock: what pgx_dmpall started does not outlive it for long.
sub lock_is_free
{
	open my $fh, '+<', "$area/pgx_backup.lock" or return 0;
	foreach (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return 1 if flock $fh, LOCK_EX | LOCK_NB;
		usleep(100_000);
	}
	return 0;
}

# Backups whose name says that they are complete; each must be.
sub complete
{
	my @names = grep { !/incomplete/ } backups_of($node);
	my @bad;
	foreach my $name (@names)
	{
		my $dir = "$area/$name";
		my $by_command = -e "$dir/copy_info";
		push @bad, $name
		  if !-e "$dir/backup_info.json" || -e "$dir/INCOMPLETE" || !-s "$dir/keystore/keystore.ks" ||
		  ($by_command ? !-s "$dir/backup_label" :
			system("pg_verifybackup -n -q '$dir/data' >/dev/null 2>&1") != 0);
	}
	return (scalar(@names), "@bad");
}

# ---- killed ----------------------------------------------------------------------------------

my ($before) = complete();
is($before, 1, 'control: there is one backup');
kill_at_each($node,
	[
		'mkdir:1', 'fsync:1', 'fsync:2', 'mkdir:3', 'wait4:1', 'unlink:1', 'wait4:2', 'fsync:30', 'fsync:600', 'rename:1',
		'rename:2', 'rename:3', 'rmdir:1', 'unlink:40'
	],
	run => [ 'pgx_dmpall', '--keep', 1 ],
	missed => sub { is($_[1], 0, "$_[0] is not reached, and the backup is made") },
	killed => sub {
		my ($name) = @_;
		my ($count, $bad) = complete();
		is($bad, '', "$name: what is listed is whole");
		cmp_ok($count, '>=', 1, "$name: the last backup is there");
		ok(lock_is_free(), "$name: nobody goes on");
	});
cmp_ok(scalar(grep { /incomplete/ } backups_of($node)), '>', 0, 'control: something was left');
dmpall_ok($node);
is(scalar(grep { /incomplete/ } backups_of($node)), 0, 'the next run puts it away');

# ---- failing ---------------------------------------------------------------------------------

my @were = backups_of($node);
foreach my $case (
	[ 'mkdir:error=ENOSPC:when=1', qr/could not create directory ".*": No space left on device/ ],
	[ 'fsync:error=EIO:when=40',   qr/could not fsync ".*": Input\/output error/ ],
	[ 'rename:error=EIO:when=1',   qr/could not rename file ".*backup_info.json.tmp"/ ],
	[ 'rename:error=EIO:when=2',   qr/could not rename directory/ ])
{
	my ($inject, $like) = @$case;
	my ($rc, $err) = traced($inject);
	is($rc, 1, "$inject: exit code");
	like($err, $like, "$inject: message");
	is_deeply([ backups_of($node) ], \@were, "$inject: the backups are those of before");
}

# An older backup that cannot be removed costs the new one nothing.
{
	my ($rc, $err) = traced('rename:error=EIO:when=3');
	is($rc, 1, 'removal fails: exit code');
	like($err, qr/could not rename directory.*the backup is complete, but older ones could not be removed/s,
		'removal fails: message');
	is(scalar(grep { !/incomplete/ } backups_of($node)), 3, 'removal fails: the new backup is there, and the old ones');
	is((complete())[1], '', 'removal fails: each is whole');
	dmpall_ok($node);
}

# The disk is full while the cluster is being copied: pg_basebackup's writes fail.
{
	my ($rc, $err) = traced('write:error=ENOSPC:when=300+', '-v');
	is($rc, 0, 'control: pgx_dmpall itself does not write that often');
	@were = backups_of($node);
	local %ENV = $node->_get_env();
	delete @ENV{qw(PGHOST PGPORT PGDATABASE PGUSER)};
	($rc, undef, $err) = run_program(
		[
			'strace', '-f', '-qq', '-o', '/dev/null', '-e', 'trace=write', '-e', 'inject=write:error=ENOSPC:when=300+',
			$program, '-D', $node->data_dir
		]);
	is($rc, 1, 'disk full: exit code');
	# Its own message is a write that fails, too.
	like($err, qr/program ".*pg_basebackup" failed with exit code 1/, 'disk full: message');
	is_deeply([ backups_of($node) ], \@were, 'disk full: the backups are those of before');
}

chmod 0500, $area;
my ($rc, $out, $err) = dmpall($node);
chmod 0700, $area;
is($rc, 1, 'the area cannot be written: exit code');
like($err, qr/could not create directory ".*": Permission denied/, 'the area cannot be written: message');

# ---- two at once, interrupted, without its server ---------------------------------------------------

# A copy command that waits in the middle until it is told to go on.
my $go = work_dir() . '/go';
my $here = work_dir() . '/here';
my $waiting = write_file(work_dir() . '/waiting', <<"EOF", 0700);
#!/bin/sh
[ "\$1" = backup ] || exit 0
touch '$here'
until [ -e '$go' ]; do sleep 0.1; done
EOF

sub start_and_wait
{
	my ($out) = @_;
	unlink $go, $here;
	my $run = start_dmpall($node, $out, '-Y', $waiting);
	foreach (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		last if -e $here;
		$run->pump_nb;
		usleep(100_000);
	}
	die "the copy command is not called: $$out" if !-e $here;
	return $run;
}

my $text = '';
my $run = start_and_wait(\$text);
($rc, $out, $err) = dmpall($node);
is($rc, 1, 'two at once: exit code');
like($err, qr/"pgx_dmpall" is being executed by another user.*Retry after the other process terminates\./s,
	'two at once: message');
write_file($go, '');
$run->finish;
is($?, 0, 'and the first one ends well') or diag($text);
@were = backups_of($node);

foreach my $signal (qw(INT TERM))
{
	$text = '';
	$run = start_and_wait(\$text);
	$run->signal($signal);
	$run->finish;
	is($? >> 8, 1, "SIG$signal: exit code");
	like($text, qr/interrupted by signal/, "SIG$signal: message");
	is_deeply([ backups_of($node) ], \@were, "SIG$signal: the backups are those of before");
	write_file($go, '');
}

$text = '';
$run = start_and_wait(\$text);
$node->stop('immediate');
write_file($go, '');
$run->finish;
is($? >> 8, 1, 'the server is gone half way: exit code');
like($text, qr/the server refused a query of the backup/, 'the server is gone half way: message');
is_deeply([ backups_of($node) ], \@were, 'the server is gone half way: the backups are those of before');

# Whatever pg_basebackup had copied by then, the backup cannot come to its end.
$node->start;
$text = '';
$run = start_dmpall($node, \$text);
foreach (1 .. 100 * $PostgreSQL::Test::Utils::timeout_default)
{
	last if glob("$area/*.incomplete/data/global");
	$run->pump_nb;
	usleep(10_000);
}
$node->stop('immediate');
$run->finish;
is($? >> 8, 1, 'the server is gone while pg_basebackup copies: exit code') or diag($text);
is_deeply([ backups_of($node) ], \@were, 'the server is gone while pg_basebackup copies: the backups are those of before');
is((complete())[1], '', 'and each is whole');

done_testing();
