# Mirrored (multiplexed) WAL: what is in pg_wal is in the mirror, byte for byte; pausing, resuming
# and failing never go unnoticed; the mirror of another pg_wal is not touched.

use strict;
use warnings;

use File::Copy qw(copy);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

use PgxCrash;
use PgxTde;

sub mirror_dir
{
	my ($name) = @_;
	my $dir = work_dir() . "/online_wal_$name";
	mkdir $dir, 0700;
	return $dir;
}

sub mirror_state
{
	my ($node, $column) = @_;
	return $node->safe_psql('postgres', 'SELECT ' . ($column // 'state') . ' FROM pgx_wal_mirror_status');
}

sub wait_mirrored
{
	my ($node) = @_;
	return $node->poll_query_until('postgres', "SELECT state = 'mirroring' FROM pgx_wal_mirror_status");
}

sub wal_files { return sort grep { /^[0-9A-F]{24}(\.partial)?$|\.history$/ } slurp_dir($_[0]); }

# Compare what a server that does not write has in both places.  How many files are the same; what is not
# is shown.  In the mirror there may be nothing else.
sub same_files
{
	my ($node, $dir) = @_;
	my $wal = $node->data_dir . '/pg_wal';
	my (@same, @other);
	foreach my $name (wal_files($wal))
	{
		my ($here, $there) = (slurp_raw("$wal/$name"), slurp_raw("$dir/$name"));
		push @{ defined $there && $here eq $there ? \@same : \@other }, $name;
	}
	my %known = map { $_ => 1 } @same, @other;
	push @other, map { "$_ (only in the mirror)" } grep { !$known{$_} } wal_files($dir);
	diag("not the same: @other") if @other;
	return @other ? -1 : scalar @same;
}

# ---- a primary ------------------------------------------------------------------------

my $dir = mirror_dir('primary');
my $node = new_primary('primary', start => 0, conf => "fsync = on\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pgx_tde');
is(mirror_state($node), 'off', 'without the setting nothing is mirrored');
foreach my $function (qw(pgx_pause_wal_multiplexing pgx_resume_wal_multiplexing pgx_is_wal_multiplexing_paused))
{
	like(query_fails($node, 'postgres', "SELECT $function()"),
		qr/ERROR:  WAL multiplexing is not configured/, "$function: not configured");
}
$node->stop;

# Segments of 1 MiB, so that they are recycled soon.
is(system_log('pg_resetwal', '--wal-segsize=1', '-D', $node->data_dir), 0, 'pg_resetwal makes segments small');
$node->append_conf('postgresql.conf', "min_wal_size = 4MB\nmax_wal_size = 8MB\npgx_tde.online_wal_directory = '$dir'");
$node->start;
$node->safe_psql('postgres', "SELECT pgx_set_master_key('$PASSPHRASE')");
ok(wait_mirrored($node), 'the mirror is complete');
is($node->safe_psql('postgres', 'SELECT pgx_is_wal_multiplexing_paused()'), 'f', 'it is not paused');
is((stat "$dir/pgx_mirror.id")[2] & 0777, 0600, 'what is in the mirror is 0600');

$node->safe_psql('postgres', 'CREATE TABLE t AS SELECT g, md5(g::text) AS x FROM generate_series(1, 1000) g');
my $mark = 'the planted mark of the mirror';
$node->safe_psql('postgres', "INSERT INTO t SELECT 0, '$mark' FROM generate_series(1, 10)");
my $segment = $node->safe_psql('postgres', 'SELECT pg_walfile_name(pg_current_wal_insert_lsn())');
is(mirror_state($node, 'segment'), $segment, 'the view names the segment');
my ($bytes, $syncs) = split /\|/, mirror_state($node, 'written_bytes, syncs');
$node->safe_psql('postgres', 'INSERT INTO t VALUES (-1)');
my ($bytes2, $syncs2) = split /\|/, mirror_state($node, 'written_bytes, syncs');
ok($bytes2 > $bytes && $syncs2 > $syncs, 'a commit writes and syncs the mirror');
$node->stop;
cmp_ok(same_files($node, $dir), '>', 0, 'mirror and pg_wal are the same');
ok(!grep({ index(slurp_raw("$dir/$_"), $mark) >= 0 } wal_files($dir)), 'no plaintext in the mirror');

# Segments are recycled, removed, made.
$node->start;
wait_mirrored($node);
my @before = wal_files($dir);
foreach my $i (1 .. 4)
{
	$node->safe_psql('postgres',
		'INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1, 20000) g; SELECT pg_switch_wal(); CHECKPOINT');
}
$node->stop;
my %after = map { $_ => 1 } wal_files($dir);
is(scalar(grep { $after{$_} } @before[ 0, 1 ]), 0, 'segments that the server has recycled are gone from the mirror too');
cmp_ok(same_files($node, $dir), '>', 3, 'mirror and pg_wal are the same after recycling');

# Each way of syncing.
foreach my $method (qw(fsync open_datasync open_sync fdatasync))
{
	$node->append_conf('postgresql.conf', "wal_sync_method = $method");
	$node->start;
	$node->safe_psql('postgres', 'INSERT INTO t SELECT g FROM generate_series(1, 20000) g; SELECT pg_switch_wal(); INSERT INTO t VALUES (5)');
	is(mirror_state($node, 'failures'), 0, "$method: no failure");
	$node->stop;
	cmp_ok(same_files($node, $dir), '>', 3, "$method: mirror and pg_wal are the same");
}

# A crash.
$node->start;
wait_mirrored($node);
$node->safe_psql('postgres', 'INSERT INTO t SELECT g FROM generate_series(1, 30000) g');
kill_server($node);
$node->start;
ok(wait_mirrored($node), 'complete after a crash');
$node->stop;
cmp_ok(same_files($node, $dir), '>', 3, 'mirror and pg_wal are the same after crash recovery');

# ---- pausing and resuming -------------------------------------------------------------------

$node->start;
wait_mirrored($node);
$node->safe_psql('postgres', 'CREATE ROLE somebody LOGIN');
foreach my $function (qw(pgx_pause_wal_multiplexing pgx_resume_wal_multiplexing pgx_is_wal_multiplexing_paused))
{
	like(query_fails($node, 'postgres', "SET ROLE somebody; SELECT $function()"),
		qr/ERROR:  must be superuser to control WAL multiplexing/, "$function is for superusers");
}
like(query_fails($node, 'postgres', 'SELECT pgx_resume_wal_multiplexing()'),
	qr/ERROR:  WAL multiplexing is not paused/, 'nothing to resume');
my $offset = log_size($node);
$node->safe_psql('postgres', 'SELECT pgx_pause_wal_multiplexing()');
like(log_since($node, $offset), qr/LOG:  multiplexing of transaction log files has been stopped/, 'pausing is logged');
is($node->safe_psql('postgres', 'SELECT pgx_is_wal_multiplexing_paused()'), 't', 'it is paused');
is(mirror_state($node), 'paused', 'the view says so');
like(query_fails($node, 'postgres', 'SELECT pgx_pause_wal_multiplexing()'),
	qr/ERROR:  WAL multiplexing is already paused/, 'pausing twice');
my $old = join '', map { slurp_raw("$dir/$_") } wal_files($dir);
$node->safe_psql('postgres',
	'INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1, 30000) g; CHECKPOINT; INSERT INTO t VALUES (6)');
ok($old eq join('', map { slurp_raw("$dir/$_") } wal_files($dir)), 'nothing is mirrored meanwhile');
$offset = log_size($node);
$node->safe_psql('postgres', 'SELECT pgx_resume_wal_multiplexing()');
like(log_since($node, $offset), qr/LOG:  multiplexing of transaction log files has been resumed/, 'resuming is logged');
is(mirror_state($node), 'mirroring', 'when it returns, the mirror is complete');
$node->safe_psql('postgres', 'INSERT INTO t VALUES (7)');
$node->stop;

# Files that were recycled meanwhile to become later segments have no mirror before they are written.
my $last = (sort grep { -s "$dir/$_" } wal_files($dir))[-1];
my $wal = $node->data_dir . '/pg_wal';
my @missed = grep { ($_ cmp $last) <= 0 && (slurp_raw("$wal/$_") // '') ne (slurp_raw("$dir/$_") // '') } wal_files($wal);
is("@missed", '', 'what was written while it was paused is in the mirror');

# ---- failures --------------------------------------------------------------------------------

$node->start;
wait_mirrored($node);
$offset = log_size($node);
system_or_bail('sh', '-c', "rm $dir/0*");
my ($rc, $out, $err) = $node->psql('postgres', 'INSERT INTO t VALUES (8)');
is($rc, 0, 'the server works on when files of the mirror were removed');
like($err, qr/WARNING:  a failure has occurred while multiplexing transaction log files/, 'whose commit it was is told');
like(log_since($node, $offset),
	qr/WARNING:  a failure has occurred while multiplexing transaction log files\n.*DETAIL:  Operation "\w+" failed on file "\Q$dir\E\/[0-9A-F]{24}": No such file or directory\.\n.*HINT:  .*Put the directory right and call pgx_resume_wal_multiplexing/,
	'the log says what and why');
is(mirror_state($node), 'failed', 'the view says so');
like(mirror_state($node, 'last_failure'), qr/^\w+ of "[0-9A-F]{24}": No such file or directory$/, 'and why');
is($node->safe_psql('postgres', 'SELECT pgx_is_wal_multiplexing_paused()'), 't', 'it counts as paused');
$offset = log_size($node);
$node->safe_psql('postgres', 'INSERT INTO t VALUES (9)');
unlike(log_since($node, $offset), qr/multiplexing/, 'it is said once');
rename "$dir/pgx_mirror.id", "$dir/other" or die;
like(query_fails($node, 'postgres', 'SELECT pgx_resume_wal_multiplexing()'),
	qr/ERROR:  could not resume multiplexing of WAL in directory.*\nDETAIL:  It does not hold the file "pgx_mirror.id"/,
	'an empty directory, or another disk, is not resumed into');
is(mirror_state($node), 'failed', 'and it stays failed');
rename "$dir/other", "$dir/pgx_mirror.id" or die;
$node->safe_psql('postgres', 'SELECT pgx_resume_wal_multiplexing()');
is(mirror_state($node), 'mirroring', 'resumed after a failure');
$node->stop;
$last = (sort grep { -s "$dir/$_" } wal_files($dir))[-1];
@missed = grep { ($_ cmp $last) <= 0 && (slurp_raw("$wal/$_") // '') ne (slurp_raw("$dir/$_") // '') } wal_files($wal);
is("@missed", '', 'everything is there again');

# The other policy: no commit without the mirror.
$node->append_conf('postgresql.conf', "pgx_tde.on_wal_multiplexing_failure = restart\nrestart_after_crash = on");
$node->start;
wait_mirrored($node);
$offset = log_size($node);
system_or_bail('sh', '-c', "rm $dir/0*");
($rc, $out, $err) = $node->psql('postgres', 'INSERT INTO t VALUES (10)');
isnt($rc, 0, 'restart: the commit is not acknowledged');
$node->poll_query_until('postgres', "SELECT state = 'mirroring' FROM pgx_wal_mirror_status");
like(log_since($node, $offset), qr/PANIC:  a failure has occurred while multiplexing transaction log files/, 'all processes restart');
is(mirror_state($node), 'mirroring', 'and mirror again');
$offset = log_size($node);
rename $dir, "$dir.away" or die;
$node->psql('postgres', 'SELECT pg_switch_wal(); INSERT INTO t VALUES (11)');
wait_ended($node);
like(log_since($node, $offset),
	qr/FATAL:  invalid value for parameter "pgx_tde.online_wal_directory"/, 'without the directory the server ends');
rename "$dir.away", $dir or die;

# ---- starts that are refused ---------------------------------------------------------------------

sub refused
{
	my ($value, $pattern, $name) = @_;
	$node->append_conf('postgresql.conf', "pgx_tde.online_wal_directory = '$value'");
	return like(start_fails($node), $pattern, $name);
}

my $hint = qr/HINT:  .*To start without multiplexing of WAL, set pgx_tde.online_wal_directory to an empty string\./;
refused('relative', qr/DETAIL:  It is not an absolute path\./, 'a relative path');
refused("$dir/none", qr/FATAL:  invalid value for parameter "pgx_tde.online_wal_directory": ".*none"\n.*DETAIL:  It cannot be reached: No such file or directory\.\n.*$hint/,
	'a missing directory');
refused("$dir/pgx_mirror.id", qr/DETAIL:  It is not a directory\./, 'a file');
my $inside = $node->data_dir . '/online';
mkdir $inside, 0700;
refused($inside, qr/DETAIL:  It and the data directory overlap\./, 'inside the data directory');
rmdir $inside;
refused(keystore_dir($node), qr/DETAIL:  It and the directory of the keystore overlap\./, 'the keystore\'s directory');
chmod 0750, $dir;
refused($dir, qr/DETAIL:  Other users have access to it; its permissions must be u=rwx \(0700\)\./, 'readable by others');
chmod 0700, $dir;

# A pg_wal that is not the one that was mirrored: the mirror may be all that is left of that.
my $other = new_primary('other', conf => "pgx_tde.online_wal_directory = ''\n");
$other->stop;
$other->append_conf('postgresql.conf', "pgx_tde.online_wal_directory = '$dir'");
my @files = map { "$_ " . -s "$dir/$_" } wal_files($dir);
like(start_fails($other),
	qr/FATAL:  directory "\Q$dir\E" holds multiplexed WAL of another pg_wal\n.*DETAIL:  .*only copy.*\n.*$hint/,
	'the mirror of another pg_wal is refused');
is(join(',', map { "$_ " . -s "$dir/$_" } wal_files($dir)), join(',', @files), 'and not touched');
$node->append_conf('postgresql.conf', "pgx_tde.online_wal_directory = '$dir'");
$node->start;
ok(wait_mirrored($node), 'its own server takes it');
copy("$dir/pgx_mirror.id", $other->data_dir . '/pg_wal/pgx_mirror.id') or die;
like(start_fails($other), qr/FATAL:  directory "\Q$dir\E" is used by another server/, 'two servers, even with the same id');
$node->append_conf('postgresql.conf', "pgx_tde.online_wal_directory = ''");
$node->restart;
is(mirror_state($node), 'off', 'an empty string starts without');
$node->stop;

# ---- a standby, and a new timeline -------------------------------------------------------------------

$dir = mirror_dir('second');
my $primary = new_primary('second');
my $standby = new_standby($primary, 'standby', conf => "pgx_tde.online_wal_directory = '$dir'\nfsync = on\n");
$standby->start;
$primary->safe_psql('postgres', 'CREATE TABLE t AS SELECT g FROM generate_series(1, 300000) g; SELECT pg_switch_wal(); INSERT INTO t VALUES (1)');
caught_up($primary, $standby);
ok(wait_mirrored($standby), 'a standby mirrors what it receives');
$segment = mirror_state($standby, 'segment');
is($segment, $primary->safe_psql('postgres', 'SELECT pg_walfile_name(pg_current_wal_flush_lsn())'), 'the same segment');
$primary->stop;
$standby->stop;
cmp_ok(same_files($standby, $dir), '>', 0, 'mirror and pg_wal of the standby are the same');
$standby->start;
$standby->promote;
$standby->safe_psql('postgres', 'INSERT INTO t VALUES (2); SELECT pg_switch_wal(); INSERT INTO t VALUES (3)');
ok(wait_mirrored($standby), 'after a promotion');
$standby->stop;
cmp_ok(same_files($standby, $dir), '>', 2, 'mirror and pg_wal are the same after a promotion');
ok(-e "$dir/00000002.history", 'with the history of the new timeline');

done_testing();
