# 335_recover_not_whole.pl
#		pgx_rcvall and backups that were never finished: pgx_dmpall was killed in the middle, and what it left is neither
#		listed as complete nor recovered from.  And on a disk that is full, recovery says so and works when there is room.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PgxBackup;
use PgxDisk;
use PgxTde;

my $node = backup_primary('main', conf => "autovacuum = off\n");
my $area = area_dir($node);
fill_tablespaces($node, 'MARK_backup');
$node->safe_psql('postgres',
	q{CREATE TABLE big TABLESPACE sec AS SELECT g, md5(g::text) AS x FROM generate_series(1, 60000) g; CHECKPOINT});
my @open = ('--keystore-passphrase', '--passphrase-file', pass_file($node));
my %form = (plain => [], packed => [ '--compress=zstd', '--passphrase-file', pass_file($node) ]);

# ---- no backup but those that are not whole -------------------------------------------------------------

sub list
{
	my ($rc, $out) = rcvall($node, '-l', '-B', $area);
	return $out;
}

sub incomplete { return grep { /incomplete/ } backups_of($node); }

# Dead at points from the first directory to before the last rename; the next run puts away what the last one left.
my %points = (plain => [qw(mkdir:3 fsync:40 rename:1 rename:2)], packed => [qw(+write:2 rename:1 rename:2 rename:3)]);

sub left_by_the_killed
{
	my ($form, $chosen) = @_;
	foreach my $point (@{ $points{$form} })
	{
		my ($call, $n) = split /:/, $point;
		my $name = "$form, killed before $point";
		my (undef, undef, $trace) = injected($node, "$call:signal=KILL:when=$n", 'pgx_dmpall', '--label', 'killed', '--keep', 9, @{ $form{$form} });
		like($trace, qr/killed by SIGKILL/, "$name: control");
		my @left = incomplete();
		is(scalar(@left), 1, "$name: what is left has the name of an incomplete one") or next;
		like(list(), qr/^\S+ \S+ +INCOMPLETE +\Q$area\E\/\Q$left[0]\E$/m, "$name: and is listed so");
		is_deeply([ sort { $a cmp $b } list() =~ /COMPLETE +\Q$area\E\/(\S+)/g ], [ sort grep { defined } $chosen, $left[0] ], "$name: with nothing else");
		foreach my $which (undef, 'killed', $left[0], $left[0] =~ s/\.incomplete//r)
		{
			my @backup = defined $which ? ('--backup', $which) : ();
			my ($rc, $out, $err) = run_program([ 'pgx_rcvall', '-D', work_dir() . '/none', '-B', $area, '--dry-run', @backup, @open ]);
			my $what = "$name, pgx_rcvall @backup";
			if (defined $which || !defined $chosen)
			{
				is($rc, 1, "$what: exit code");
				like($err, defined $chosen ? qr/the specified backup does not exist/ : qr/backup of the database has not yet been performed/,
					"$what: message");
			}
			else
			{
				unlike($out, qr/\Q$left[0]\E/, "$what: another one is taken, if any");
			}
		}
	}
	return;
}

SKIP:
{
	skip 'strace (package strace) is needed, and that it may trace processes of this user', 1 if !can_inject();
	left_by_the_killed($_) foreach qw(plain packed);
}
dmpall_ok($node, '--label', 'plain', '--keep', 9);
is(scalar(incomplete()), 0, 'the next run puts away what the last one left');

# ---- and one that is whole, and older ---------------------------------------------------------------------

SKIP:
{
	skip 'strace (package strace) is needed, and that it may trace processes of this user', 1 if !can_inject();
	left_by_the_killed($_, (grep { !/incomplete/ } backups_of($node))[0]) foreach qw(plain packed);
}
dmpall_ok($node, '--label', 'packed', '--keep', 9, @{ $form{packed} });
$node->safe_psql('postgres', "INSERT INTO t_sec SELECT g, 'MARK_backup later' FROM generate_series(1, 300) g");
archived($node);
my $content = fingerprint($node, 'postgres');

# ---- full disks -------------------------------------------------------------------------------------------

SKIP:
{
	skip 'a user namespace is needed, and unshare (package util-linux) that can keep its rights', 1 if !can_limit_disk();
	my $disk = small_disk();
	$node->stop;

	foreach my $form (qw(plain packed))
	{
		# A file that takes the room away, and goes.  It is a file system of another kind than the area's, too: files of the
		# backup and WAL of the archive have to be read and written, the kernel does not copy them.
		lose($node);
		my ($rc, $out, $err) = on_small_disk('size=500m', 'sh', '-c', <<"EOF", 'sh', 'pgx_rcvall', '-D', "$disk/data", '-B', $area, '--backup', $form, @open);
dd if=/dev/zero of='$disk/filler' bs=1M count=488 2>/dev/null
"\$@" && exit 90
ls '$disk/data' >&2
[ ! -e '$disk/data/recovery.signal' ] || exit 91
echo SECOND >&2
rm '$disk/filler'
"\$@" || exit 92
[ ! -e '$disk/data/pgx_rcvall.incomplete' ] || exit 93
pg_controldata '$disk/data'
EOF
		is($rc, 0, "$form, full disk: exit codes") or diag($err);
		my ($first, $second) = split /^SECOND$/m, $err;
		like($first, qr/error: could not (copy|write|create) file ".*No space left on device/, "$form, full disk: message");
		like($first, qr/^pgx_rcvall\.incomplete$/m, "$form, full disk: what is left is marked");
		like($out, qr/^Recovery of database completed successfully\.$/m, "$form: with room the same command works");
		like($out, qr/cluster state: +shut down$/m, "$form: the server was stopped");
	}
	lose($node);
	rcvall_ok($node, '-B', $area, @open);
	is_recovered($node, $content, 'where there is room');
}

done_testing();
