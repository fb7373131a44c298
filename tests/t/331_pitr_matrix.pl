# 331_pitr_matrix.pl
#		Recovery to a point in time: by each way to name one, before and after the master key and the passphrase
#		change, with each keystore that an administrator may have at hand.  Checked by content.

use strict;
use warnings;

use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

use PgxBackup;
use PgxTde;

my $OLD = 'passphrase of the first day';
my $NEW = 'passphrase of today';

# Nothing opens the keystore but what we type.
my $node = backup_primary('main', open => 'none', passphrase => $OLD);
my $area = area_dir($node);
fill_tablespaces($node, 'MARK_backup');
dmpall_ok($node);
my $of_the_day = slurp_raw(keystore_file($node));

# ---- the points ------------------------------------------------------------------------------

my @points;

# Change something, note where we are in all ways, and change more, so that going too far shows.
sub make_point
{
	my ($name, $passphrase) = @_;
	my $point = { name => $name, passphrase => $passphrase };
	my $sql = "INSERT INTO t_sec SELECT g, '$name' FROM generate_series(1, 50) g;"
	  . "UPDATE t_plain SET x = '$name' WHERE g % 7 = 0;";

	$point->{xid} = $node->safe_psql('postgres', "BEGIN; $sql SELECT pg_current_xact_id(); COMMIT;");
	$point->{content} = fingerprint($node, 'postgres');
	$point->{key} = status_of($node, 'active_master_key');
	$point->{lsn} = $node->safe_psql('postgres', 'SELECT pg_current_wal_insert_lsn()');
	$point->{time} = $node->safe_psql('postgres', q{SELECT to_char(clock_timestamp(), 'YYYY-MM-DD HH24:MI:SS.US')});
	$node->safe_psql('postgres', "SELECT pg_create_restore_point('$name')");
	usleep(10_000);
	$node->safe_psql('postgres', 'DELETE FROM t_sec WHERE g % 3 = 0');
	push @points, $point;
	return;
}

make_point('before', $OLD);
rotate($node);
make_point('rotated', $OLD);
$node->safe_psql('postgres', "SELECT pgx_set_keystore_passphrase('$OLD', '$NEW')");
make_point('passphrase', $NEW);
archived($node);
my $today = slurp_raw(keystore_file($node));
isnt($points[0]{key}, $points[1]{key}, 'control: the master key was changed');
isnt($today, $of_the_day, 'control: so was the keystore');

# ---- one recovery ----------------------------------------------------------------------------

# The keystores at hand: file or none, passphrase to type, and what it is after recovery to a point.
my @keystores = (
	{ name => "today's",       file => $today,      type => $NEW, after => sub { $NEW } },
	{ name => "the backup's",  file => $of_the_day, type => $OLD, after => sub { $_[0]{passphrase} } },
	{ name => 'lost',          file => undef,       type => $OLD, after => sub { $_[0]{passphrase} } });

# Start the recovered server, without archiving its history, since there is more to come.
sub start_recovered
{
	my ($passphrase) = @_;
	return shim($node, [ '-o', '-c archive_mode=off', '--keystore-passphrase', 'start' ], "$passphrase\n");
}

sub prepare
{
	my ($keystore) = @_;
	lose($node, 1);
	write_file(keystore_file($node), $keystore->{file}) if defined $keystore->{file};
	return;
}

sub try_point
{
	my ($point, $keystore, $kind, @options) = @_;
	my $name = "$kind, $point->{name}, keystore $keystore->{name}";

	prepare($keystore);
	my ($rc, $out, $err) = rcvall($node, \"$keystore->{type}\n", '-B', $area, '--keystore-passphrase', @options);
	ok($rc == 0 && $out =~ /^Recovery of database completed successfully\.$/m, "$name: recovered")
	  or return diag("$rc, $out, $err");
	my ($started) = start_recovered($keystore->{after}->($point));
	is($started, 0, "$name: starts, and the passphrase is the right one") or return;
	is_content(fingerprint($node, 'postgres'), $point->{content}, "$name: content");
	is(status_of($node, 'active_master_key'), $keystore->{file} && $keystore->{file} eq $today ?
		$points[-1]{key} : $point->{key}, "$name: master key");
	return;
}

$node->stop;
foreach my $keystore (@keystores)
{
	foreach my $point (@points)
	{
		try_point($point, $keystore, 'time', '-e',    $point->{time});
		try_point($point, $keystore, 'name', '-n',    $point->{name});
		try_point($point, $keystore, 'LSN',  '--lsn', $point->{lsn});
		try_point($point, $keystore, 'xid',  '--xid', $point->{xid});
	}
}

# ---- the wrong keystore or passphrase -----------------------------------------------------------

prepare($keystores[0]);
my ($rc, $out, $err) = rcvall($node, \"$OLD\n", '-B', $area, '--keystore-passphrase');
is($rc, 2, 'wrong passphrase: exit code');
like($err, qr/passphrase is wrong/, 'wrong passphrase: message');
is_deeply([ grep { !/^\./ } slurp_dir($node->data_dir) ], [], 'wrong passphrase: nothing is touched');
($rc, $out, $err) = rcvall($node, '-B', $area);
is($rc, 2, 'nothing opens the keystore: exit code');
like($err, qr/the keystore is not open.*--keystore-passphrase/s, 'nothing opens the keystore: message');
is_deeply([ grep { !/^\./ } slurp_dir($node->data_dir) ], [], 'nothing opens the keystore: nothing is touched');

# ---- points that are not there ------------------------------------------------------------------

foreach my $case (
	[ [ '-n', 'nowhere' ], qr/restore point "nowhere" does not exist/ ],
	[ [ '-n', 'befor' ],   qr/restore point "befor" does not exist/ ],
	[ [ '--xid', 4_000_000_000 ], qr/transaction 4000000000 does not exist/ ],
	[ [ '--lsn', 'FF/0' ], qr/the requested recovery point cannot be reached: there is WAL up to/ ],
	[ [ '--target-timeline', 7 ], qr/the history file "00000007.history" of timeline 7 is missing/ ],
  )
{
	my ($options, $like) = @$case;
	($rc, $out, $err) = rcvall($node, \"$NEW\n", '-B', $area, '--keystore-passphrase', @$options);
	is($rc, 1, "@$options: exit code");
	like($err, $like, "@$options: message");
	is_deeply([ grep { !/^\./ } slurp_dir($node->data_dir) ], [], "@$options: nothing is touched");
}

# A time after the last transaction is one that only the server can tell; the same command for another works after it.
my $late = $points[-1]{time};
($rc, $out, $err) = rcvall($node, \"$NEW\n", '-B', $area, '--keystore-passphrase', '-e', do {
	my @t = localtime;
	sprintf '%04d-%02d-%02d %02d:%02d:%02d', $t[5] + 1900, $t[4] + 1, @t[ 3, 2, 1, 0 ];
});
is($rc, 1, 'a time after the last transaction: exit code');
like($err, qr/an error occurred during recovery.*recovery ended before configured recovery target was reached/s,
	'a time after the last transaction: message');
ok(-e $node->data_dir . '/pgx_rcvall.incomplete', 'what it left is marked');
($rc, $out, $err) = rcvall($node, \"$NEW\n", '-B', $area, '--keystore-passphrase', '-e', $late);
is($rc, 0, 'and the next run replaces it') or diag($err);

done_testing();
