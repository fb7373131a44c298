# 191_timelines.pl
#		Three servers in a row, and two failovers: the second one to the server that lost
#		the first.  Whoever has gone another way comes back by pg_rewind, from a running server, from a
#		stopped one, from a standby; who has not follows to the new timeline by itself.  In the
#		end the archive leads to points on any of these timelines, across two changes of the master key.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PgxPages;
use PgxTde;
use Test::More;

my $north = new_primary(
	'north', archive => 1, checksums => 1,
	conf => "wal_log_hints = on\nwal_keep_size = '256MB'\nautovacuum = off\nwal_receiver_status_interval = 1\n");
my $place = tablespace_dir($north, 'enc');
$north->safe_psql('postgres',
	"CREATE TABLESPACE enc LOCATION '$place' WITH (tablespace_encryption_algorithm = 'AES128')");
$north->safe_psql('postgres', q{
	CREATE TABLE t (id int PRIMARY KEY USING INDEX TABLESPACE enc, x text) TABLESPACE enc;
	CREATE TABLE p (id int, x text);
	INSERT INTO t SELECT g, 'MARK_row' || g FROM generate_series(1, 20000) g;
	CREATE INDEX ON t (x) TABLESPACE enc});
my $archive = $north->archive_dir;
my $next = 100_000;

# New rows and changed ones, here and in a plain tablespace, and new files.
sub work
{
	my ($node, $what) = @_;
	$next += 1000;
	$node->safe_psql('postgres', qq{
		INSERT INTO t SELECT $next + g, 'MARK_${what}_' || g FROM generate_series(1, 500) g;
		INSERT INTO p SELECT $next + g, '$what' FROM generate_series(1, 500) g;
		UPDATE t SET x = 'MARK_${what}_again_' || id WHERE id % 40 = 7 AND id < 20000;
		CREATE TABLE made_$what TABLESPACE enc AS SELECT * FROM t WHERE id % 10 = 1;
		CREATE INDEX ON made_$what (x) TABLESPACE enc});
	return;
}

sub point
{
	my ($node, $name) = @_;
	my $content = fingerprint($node, 'postgres');
	$node->safe_psql('postgres', "SELECT pg_create_restore_point('$name')");
	return { name => $name, content => $content, key => status_of($node, 'active_master_key') };
}

sub timeline
{
	return $_[0]->safe_psql('postgres', q{SELECT CASE WHEN pg_is_in_recovery() THEN received_tli ELSE
		('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END
		FROM (SELECT 1) s LEFT JOIN pg_stat_wal_receiver ON true});
}

sub follows
{
	my ($from, $node, $name, $timeline) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	caught_up($from, $node);
	same_content($from, $node, ['postgres'], "$name: content");
	is($node->safe_psql('postgres', q{SET enable_seqscan = off; SELECT count(*) FROM t WHERE x >= 'MARK_'}),
		$from->safe_psql('postgres', 'SELECT count(*) FROM t'), "$name: index");
	$node->poll_query_until('postgres', "SELECT received_tli = $timeline FROM pg_stat_wal_receiver")
	  or die "$name: is on timeline " . timeline($node);
	is(status_of($node, 'active_master_key'), status_of($from, 'active_master_key'), "$name: timeline $timeline, and the key");
	return;
}

# Every server's settings are its own, but pg_rewind copies the other's.
sub rewind
{
	my ($node, $name, $own_options, @source) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my %own = map { $_ => slurp_raw($node->data_dir . "/$_") } qw(postgresql.conf postgresql.auto.conf);
	my ($rc, $out, $err) = run_program(
		[ 'pgx_keystore', 'exec', '-D', $node->data_dir, @$own_options, '--', 'pg_rewind', '-D', $node->data_dir, @source ],
		stdin => "$PASSPHRASE\n");
	is($rc, 0, "$name: pg_rewind") or diag($err);
	like($err, qr/servers diverged at WAL location/, "$name: there was something to undo");
	write_file($node->data_dir . "/$_", $own{$_}) foreach keys %own;
	return;
}

# Make a server the standby of another one.
sub attach
{
	my ($node, $to) = @_;
	$node->append_conf('postgresql.auto.conf',
		"primary_conninfo = 'host=" . $to->host . ' port=' . $to->port . ' application_name=' . $node->name . "'");
	write_file($node->data_dir . '/standby.signal', '');
	return;
}

# ---- three in a row; and base backups for later, with the keystore of today --------------------------------------

my $middle = new_standby($north, 'middle');
$middle->start;
my $south = new_standby($middle, 'south');
$south->start;
my %recovered = map { $_ => new_standby($north, $_, options => []) } qw(first between both last);

my %points;
work($north, 'one');
$points{first} = point($north, 'first');
rotate($north);
work($north, 'two');
$points{between} = point($north, 'between');
rotate($north);
work($north, 'three');
$points{both} = point($north, 'both');
follows($north, $middle, 'a standby', 1);
follows($middle, $south, 'a standby of the standby', 1);
my @keys = map { $points{$_}{key} } qw(first between both);
ok($keys[0] != $keys[1] && $keys[1] != $keys[2], "control: the master keys are @keys");

# ---- the first failover, while the old primary goes on alone --------------------------------------------------------

$middle->promote;
work($north, 'lost');
work($middle, 'four');
rotate($middle);
is(timeline($middle), 2, 'promoted: timeline 2');
follows($middle, $south, 'its standby', 2);
$middle->safe_psql('postgres', 'CHECKPOINT');
$north->stop;
delete $ENV{PGAPPNAME};
rewind($north, 'from a running server', [], '--source-server', $middle->connstr('postgres'));
attach($north, $middle);
$north->start;
work($middle, 'five');
follows($middle, $north, 'the former primary', 2);
is($north->safe_psql('postgres', q{SELECT to_regclass('made_lost') IS NULL}), 't', 'what it did alone is undone');

# ---- the second one, back ---------------------------------------------------------------------------------------------

$north->promote;
work($middle, 'gone');
work($north, 'six');
is(timeline($north), 3, 'promoted again: timeline 3');
$middle->stop;
$north->safe_psql('postgres', 'CHECKPOINT');
$north->stop;
rewind($middle, 'from a stopped server', [], '--source-pgdata', $north->data_dir);
$north->start;
attach($middle, $north);
$middle->start;
rotate($north);
work($north, 'seven');
$points{last} = point($north, 'last');
follows($north, $middle, 'the server that lost the second time', 3);

# The last one has followed the loser, and does not get to the new timeline by itself: it is rewound too, from a standby.
$south->stop;
$middle->safe_psql('postgres', 'CHECKPOINT');	# pg_rewind asks the control file for the timeline
rewind($south, 'from a standby', [], '--source-server', $middle->connstr('postgres'));
attach($south, $middle);
$south->start;
follows($middle, $south, 'its standby', 3);
is($middle->safe_psql('postgres', q{SELECT to_regclass('made_gone') IS NULL}), 't', 'what it did alone is undone');

# ---- the same bytes everywhere ------------------------------------------------------------------------------------------

my $last = finish_segment($north);
work($north, 'eight');
caught_up($north, $middle);
caught_up($middle, $south);
foreach my $node ($middle, $south)
{
	my ($same, @different) = same_wal($north->data_dir . '/pg_wal', $node->data_dir . '/pg_wal', $last);
	is("@different", '', 'WAL of ' . $node->name . ' is the same');
	cmp_ok($same, '>=', 1, "in $same segments");
}
is_deeply([ files_with({ mark => 'MARK_' }, $archive, $place,
		map { ($_->data_dir . '/pg_wal', $_->basedir . '/ts_enc') } $north, $middle, $south) ],
	[], 'no mark in any WAL, archive or tablespace');
ok(files_with({ mark => 'MARK_' }, $0), 'control: the mark is found where it is');
$north->poll_query_until('postgres', "SELECT last_archived_wal >= '$last' FROM pg_stat_archiver") or die 'not archived';
foreach my $pair ([ $north, $middle ], [ $middle, $south ])
{
	my ($from, $node) = @$pair;
	$node->stop('immediate');
	$node->start;
	caught_up($from, $node);
	same_content($north, $node, ['postgres'], 'content of ' . $node->name . ' after a crash');
}
foreach my $node ($south, $middle, $north)
{
	$node->stop;
	command_ok([ 'pg_checksums', '--check', '-D', $node->data_dir ], 'checksums of ' . $node->name);
	my ($pages, @clear) = plain_files(grep { m{/\d+/\d+(?:_(?:fsm|vm|init))?(?:\.\d+)?$} } files_below($node->basedir . '/ts_enc'));
	cmp_ok($pages, '>', 300, "$pages pages in the tablespace of " . $node->name);
	is("@clear", '', 'none is plain');
}

# ---- recovery from the archive to points on all of these timelines ------------------------------------------------------

foreach my $name (qw(first between both last))
{
	my $node = $recovered{$name};
	$node->append_conf('postgresql.conf',
		"restore_command = 'cp $archive/%f %p'\narchive_mode = off\nrecovery_target_name = '$name'\n"
		  . "recovery_target_action = 'promote'\nrecovery_target_timeline = 'latest'");
	write_file($node->data_dir . '/recovery.signal', '');
	$node->start;
	$node->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die 'recovery did not end';
	is_content(fingerprint($node, 'postgres'), $points{$name}{content}, "recovery to point \"$name\": content");
	is(status_of($node, 'active_master_key'), $points{$name}{key}, 'and the master key of that moment');
	$node->safe_psql('postgres', 'CREATE TABLE own TABLESPACE enc AS SELECT * FROM t; CHECKPOINT');
	$node->stop('immediate');
	$node->start;
	is($node->safe_psql('postgres', 'SELECT count(*) = (SELECT count(*) FROM own) FROM t'), 't', 'it goes on from there, over a crash');
	$node->stop;
}

done_testing();
