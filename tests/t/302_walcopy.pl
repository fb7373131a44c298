# 302_walcopy.pl
#		pgx_walcopy: what it archives is on disk, whole, as it was, and never over something else.

use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PgxBackup;
use PgxTde;

my $dir = work_dir() . '/archive';
mkdir $dir, 0700;

sub walcopy
{
	return run_program([ 'pgx_walcopy', @_ ]);
}

sub copied
{
	my ($from, $to, $name, @options) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($rc, $out, $err) = walcopy(@options, $from, $to);
	is("$rc$out$err", '0', "$name: copied");
	is_same_file($from, $to, "$name: content");
	return;
}

sub refused
{
	my ($from, $to, $like, $name, @options) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $before = slurp_raw($to);
	my ($rc, $out, $err) = walcopy(@options, $from, $to);
	is($rc, 1, "$name: exit code");
	like($err, $like, "$name: message");
	my $after = slurp_raw($to);
	ok((defined $before ? defined $after && $before eq $after : !defined $after), "$name: the destination is as it was");
	return;
}

# ---- real segments ---------------------------------------------------------------------------

my $node = backup_primary('main');
my $archive = area_dir($node) . '/archived_wal';
fill_tablespaces($node, 'MARK_archive');
my $segment = finish_segment($node);
$node->safe_psql('postgres', 'CREATE TABLE more AS SELECT generate_series(1, 1000) g');
my $last = finish_segment($node);
$node->poll_query_until('postgres', "SELECT last_archived_wal >= '$last' FROM pg_stat_archiver")
  or die 'WAL is not archived';
is($node->safe_psql('postgres', 'SELECT failed_count FROM pg_stat_archiver'), 0, 'no archiving failed');
my $wal = $node->data_dir . '/pg_wal';
my ($same, @different) = same_wal($wal, $archive, $last);
is("@different", '', 'archived segments are those of the server');
cmp_ok($same, '>', 1, "$same of them were compared");
is_deeply([ files_with({ mark => 'MARK_archive' }, $archive) ], [], 'no mark in them');
is(scalar(grep { /tmp/ } slurp_dir($archive)), 0, 'no temporary file is left');
is((stat "$archive/$segment")[2] & 07777, 0600, 'mode');

my $source = "$archive/$segment";
my $bytes = slurp_raw($source);
copied($source, "$dir/$segment", 'a segment', '--verify');
copied($source, "$dir/$segment", 'the same again');
copied($source, "$dir/$segment", 'the same again, verified', '--verify');
write_file(work_dir() . '/other', 'x' . substr($bytes, 1));
refused(work_dir() . '/other', "$dir/$segment", qr/is there already and has other content/, 'other content');
write_file(work_dir() . '/shorter', substr($bytes, 0, -1));
refused(work_dir() . '/shorter', "$dir/$segment", qr/is there already and has other content/, 'other length');
write_file(work_dir() . '/history', "1\t0/3000000\tno reason\n");
copied(work_dir() . '/history', "$dir/00000002.history", 'a history file', '--verify');

# A directory that is relative, and one that is not there: nothing is made outside of it.
{
	require Cwd;
	my $cwd = Cwd::getcwd();
	chdir $dir or die;
	copied($source, '000000010000000000000033', 'a relative name');
	chdir $cwd or die;
}
refused($source, work_dir() . "/nowhere/$segment", qr/could not create file/, 'no directory');
ok(!-e work_dir() . '/nowhere', 'no directory is made');
refused(work_dir() . '/missing', "$dir/000000010000000000000044", qr/could not open file/, 'no source');
refused($dir, "$dir/000000010000000000000044", qr/is not a regular file/, 'a directory');

# ---- leftovers -------------------------------------------------------------------------------

my $name = '000000010000000000000055';
write_file("$dir/$name.pgx_tmp", 'half of a longer thing' x 2_000_000);
copied($source, "$dir/$name", 'over what an interrupted run left');
ok(!-e "$dir/$name.pgx_tmp", 'which is gone');

# ---- damaged segments, with --verify ---------------------------------------------------------

my $damaged = work_dir() . "/$segment";
foreach my $case (
	[ 'another name',       $bytes, '000000010000000000000066', qr/the page for LSN 0\/66000000 is not there/ ],
	[ 'an older timeline in the name', $bytes, '00000000' . substr($segment, 8), qr/damaged/ ],
	[ 'cut off',            substr($bytes, 0, -8192), $segment, qr/has a size of \d+ bytes/ ],
	[ 'half as long',       substr($bytes, 0, length($bytes) / 2), $segment, qr/says that it has|damaged/ ],
	[ 'empty',              '', $segment, qr/has a size of 0 bytes/ ],
	[ 'zeros',              "\0" x length $bytes, $segment, qr/damaged/ ],
	[ 'a page exchanged',   substr($bytes, 0, 8192) . substr($bytes, 16384, 8192) . substr($bytes, 16384), $segment,
		qr/damaged/ ],
	[ 'a page of zeros in the middle', substr($bytes, 0, 8192) . "\0" x 8192 . substr($bytes, 16384), $segment,
		qr/damaged/ ],
	[ 'a magic flipped', substr($bytes, 0, 8192) . chr(ord(substr($bytes, 8192, 1)) ^ 1) . substr($bytes, 8193), $segment,
		qr/damaged/ ])
{
	my ($what, $content, $to, $like) = @$case;
	write_file($damaged, $content);
	unlink "$dir/$to";
	refused($damaged, "$dir/$to", $like, $what, '--verify');
}
write_file($damaged, substr($bytes, 0, -8192));
copied($damaged, "$dir/$segment", 'control: without --verify it is the server that answers for it');

# ---- faults -----------------------------------------------------------------------------------

SKIP:
{
	skip 'strace is needed, and that it may trace processes of this user', 1
	  if system("strace -o /dev/null -e inject=getppid:signal=KILL:when=2 true >/dev/null 2>&1") != 0;
	my $program = (grep { -x } map { "$_/pgx_walcopy" } split /:/, $ENV{PATH})[0];
	my $killed = 0;
	foreach my $point (
		'ftruncate:signal=KILL:when=1', 'pwrite64:signal=KILL:when=1', 'pwrite64:signal=KILL:when=8',
		'fsync:signal=KILL:when=1', 'renameat2:signal=KILL:when=1', 'fsync:signal=KILL:when=2',
		'pwrite64:error=ENOSPC:when=5', 'fsync:error=EIO:when=1', 'renameat2:error=EIO:when=1',
		'renameat2:error=EINVAL:when=1')
	{
		my ($call) = split /:/, $point;
		my $to = "$dir/000000010000000000000077";
		unlink $to, "$to.pgx_tmp";
		my ($rc, $out, $err) = run_program(
			[ 'strace', '-qq', '-o', work_dir() . '/trace', '-e', "trace=$call", '-e', "inject=$point", $program, $source,
				$to ]);
		my $trace = slurp_raw(work_dir() . '/trace');
		if ($point =~ /EINVAL/)
		{
			is($rc, 0, 'a file system without renameat2() will do, too');
			is_same_file($source, $to, 'its content');
			next;
		}
		$killed++ if $trace =~ /killed by SIGKILL/;
		cmp_ok($rc, '!=', 0, "$point: fails");
		ok(!-e $to || slurp_raw($to) eq $bytes, "$point: nothing, or all of it, is there");
		ok(!-e "$to.pgx_tmp", "$point: no temporary file is left") if $point =~ /error/;
		copied($source, $to, "$point: the next call");
	}
	is($killed, 6, 'killed at 6 points');
}

# ---- two at a time ----------------------------------------------------------------------------

my $to = "$dir/000000010000000000000088";
my @runs = map { IPC::Run::start([ 'pgx_walcopy', $source, $to ], '<', '/dev/null') } 1 .. 6;
my @codes = map { $_->finish; $? } @runs;
is("@codes", '0 0 0 0 0 0', 'six at a time: all succeed');
is_same_file($source, $to, 'content');
is(scalar(grep { /tmp/ } slurp_dir($dir)), 0, 'no temporary file is left');

# ---- usage ------------------------------------------------------------------------------------

foreach my $case ([ [], qr/too few/ ], [ [ 'a' ], qr/too few/ ], [ [ 'a', 'b', 'c' ], qr/too many/ ], [ ['--x'], qr/unrecognized option/ ])
{
	my ($args, $like) = @$case;
	my ($rc, $out, $err) = walcopy(@$args);
	is($rc, 1, "@$args: exit code");
	like($err, $like, "@$args: message");
}

done_testing();
