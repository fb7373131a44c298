# 330_recover.pl
#		pgx_rcvall: what it lists, and recovery from backups of pgx_dmpall.

use strict;
use warnings;

use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PgxBackup;
use PgxTde;

my $node = backup_primary('main');
my $area = area_dir($node);

# ---- the list --------------------------------------------------------------------------------

my ($rc, $out, $err) = rcvall($node, '-l');
is("$rc $out", "0 Date                    Status          Dir\n", 'no backup: the list');
like($err, qr/there is no backup in "\Q$area\E"/, 'no backup: message');
($rc, $out, $err) = rcvall($node, '--view-results-of-copying');
is($rc, 1, 'no backup: exit code of --view-results-of-copying');
like($err, qr/backup of the database has not yet been performed/, 'no backup: its message');

fill_tablespaces($node, 'MARK_backup');
dmpall_ok($node, '--label', 'first');
my $first = newest_backup($node);
my ($date, $time) = $first =~ m{/(\d{4}-\d\d-\d\d)_(\d\d-\d\d-\d\d)$};
$time =~ tr/-/:/;
mkdir "$area/2001-02-03_04-05-06.incomplete";
mkdir "$area/2001-02-03_04-05-07";
($rc, $out, $err) = rcvall($node, '-l');
is($rc, 0, 'exit code');
is($out, <<"END", 'the list');
Date                    Status          Dir
2001-02-03 04:05:06     INCOMPLETE      $area/2001-02-03_04-05-06.incomplete
2001-02-03 04:05:07     DAMAGED         $area/2001-02-03_04-05-07
$date $time     COMPLETE        $first
END
like($err, qr/backup data "\Q$area\E\/2001-02-03_04-05-07" is lost: could not open file "backup_info.json"/,
	'why one is damaged');
rmdir "$area/$_" foreach '2001-02-03_04-05-06.incomplete', '2001-02-03_04-05-07';
($rc, $out, $err) = run_program([ 'pgx_rcvall', '-l', '-B', $area, '--json' ]);
is($rc, 0, 'with -B alone, in JSON') or diag($err);
my $json = JSON::PP::decode_json($out);
is_deeply([ map { "$_->{status} $_->{label} $_->{directory}" } @$json ], ["COMPLETE first $first"], 'JSON');
($rc, $out, $err) = rcvall($node, '--view-results-of-copying');
is($rc, 1, 'no copy command: exit code');
like($err, qr/backup using the copy command has not been done/, 'no copy command: message');
my $command = write_file(work_dir() . '/command', "#!/bin/sh\n[ \$1 != finalize ] || echo 'noted by it' >\"\$2\"\n", 0700);
dmpall_ok($node, '-Y', $command);
($rc, $out, $err) = rcvall($node, '--view-results-of-copying');
is("$rc $out", "0 noted by it\n", 'what the copy command noted') or diag($err);
($rc, $out, $err) = rcvall($node, '-l');
like($out, qr/^Date +Status +Dir +Resources backed up by the copy command\n.*COMPLETE .*\n.*COMPLETE .*    pg_data,sec,plain\n$/,
	'what it copied is in the list');

# ---- to the newest state ----------------------------------------------------------------------

dmpall_ok($node, '--label', 'second');
rotate($node);
$node->safe_psql('postgres', "INSERT INTO t_sec SELECT g, 'MARK_backup later' || g FROM generate_series(1, 500) g");
archived($node);
my $content = fingerprint($node, 'postgres');
my $key = status_of($node, 'active_master_key');
$node->stop;
lose($node);
$out = rcvall_ok($node, '-B', $area);
like($out, qr/^Last replayed LSN: [0-9A-F]+\/[0-9A-F]+\nLast replayed transaction: \d{4}-\d\d-\d\d /, 'what was replayed');
ok(!is_running($node), 'the server is stopped');
is_deeply([ grep { /pgx_rcvall|signal|postmaster/ } slurp_dir($node->data_dir) ], [], 'nothing of recovery is left');
$node->start;
is_content(fingerprint($node, 'postgres'), $content, 'content of the newest state, over a rotation');
is(status_of($node, 'active_master_key'), $key, 'and its master key');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_settings WHERE name IN ('restore_command', 'recovery_target_time') AND setting <> ''"),
	0, 'the configuration has nothing of recovery');
is($node->safe_psql('postgres', 'SELECT timeline_id FROM pg_control_checkpoint()'), 2, 'a new timeline');
$node->safe_psql('postgres', 'CREATE TABLE goes_on AS SELECT 1 AS a');
archived($node);
ok(-s "$area/archived_wal/00000002.history", 'its history is archived when the server runs again');

# ---- a copy beside it --------------------------------------------------------------------------

my $copy = PostgreSQL::Test::Cluster->new('copy');
PgxTde::prepare_node($copy);
my @map;
foreach my $name (qw(sec plain))
{
	push @map, '--tablespace-mapping', tablespace_dir($node, $name) . '=' . tablespace_dir($copy, $name);
}
my $wanted = fingerprint($node, 'postgres');
archived($node);
dmpall_ok($node, '--label', 'third');
my @to_copy = ('-B', $area, '--passphrase-file', pass_file($node), @map);
($rc, $out, $err) = rcvall($copy, @to_copy);
is($rc, 1, 'a keystore in use: exit code');
like($err, qr/the keystore in ".*" is in use by the server of data directory.*--keystore-location/s, 'a keystore in use: message');
($rc, $out, $err) = rcvall($copy, @to_copy, '--keystore-location', keystore_dir($copy), '--json', '--progress', '--verbose');
is($rc, 0, 'beside the running server: exit code') or diag($err);
$json = JSON::PP::decode_json($out);
is("$json->{status} $json->{data_directory} $json->{keystore_from_backup}", 'RECOVERED ' . $copy->data_dir . ' 1', 'JSON');
like($json->{last_lsn}, qr/^[0-9A-F]+\/[0-9A-F]+$/, 'JSON: LSN');
is($json->{timeline}, 3, 'JSON: timeline');
like($err, qr/ kB \(100%\) restored/, 'progress');
like($err, qr/keystore ".*" does not exist; the copy in the backup takes its place/, 'its keystore is that of the backup');
$copy->append_conf('postgresql.conf',
	'port = ' . $copy->port . "\nunix_socket_directories = '" . $copy->host . "'\narchive_mode = off\n"
	  . "pgx_tde.backup_destination = ''\n");
$copy->start;
is_content(fingerprint($copy, 'postgres'), $wanted, 'content of the copy');
is($copy->safe_psql('postgres', 'SHOW pgx_tde.keystore_location'), keystore_dir($copy), 'its keystore location');
is($copy->safe_psql('postgres', "SELECT count(*) FROM pg_tablespace WHERE pg_tablespace_location(oid) LIKE '%_copy_data/ts_%'"),
	2, 'its tablespaces');
$copy->stop;
ok(!-e "$area/archived_wal/00000003.history", 'and it has archived nothing');

# ---- packed, by a copy command, from the mirror ------------------------------------------------------

($rc, $out, $err) = dmpall($node, '--compress', 'zstd', '--passphrase-file', pass_file($node));
is($rc, 0, 'a compressed backup') or diag($err);
$node->safe_psql('postgres', "UPDATE t_sec SET x = 'MARK_backup packed' WHERE g % 5 = 0");
archived($node);
$content = fingerprint($node, 'postgres');
lose($node);
($rc, $out, $err) = rcvall($node, '-B', $area);
is($rc, 2, 'compressed, keystore closed: exit code');
like($err, qr/the keystore is not open/, 'compressed, keystore closed: message');
rcvall_ok($node, '-B', $area, '--passphrase-file', pass_file($node));
$node->start;
is_content(fingerprint($node, 'postgres'), $content, 'compressed: content');

my $sample = (grep { -x } map { "$_/../share/pgx-tde/copy_command.archive.sh.sample" } split /:/, $ENV{PATH})[0];
$ENV{PGX_COPY_DIR} = work_dir() . '/copies';
mkdir $ENV{PGX_COPY_DIR}, 0700;
foreach my $case ([ 'all by command', [] ], [ 'tablespaces by command', ['--exclude-copy-cluster'] ])
{
	my ($name, $options) = @$case;
	dmpall_ok($node, '-Y', $sample, @$options);
	$node->safe_psql('postgres', "UPDATE t_sec SET x = 'MARK_backup $name' WHERE g % 6 = 0");
	archived($node);
	$content = fingerprint($node, 'postgres');
	lose($node);
	($rc, $out, $err) = rcvall($node, '-B', $area);
	is($rc, 1, "$name, without -Y: exit code");
	like($err, qr/option -Y is necessary because backup has been performed with the copy command/, "$name, without -Y: message");
	rcvall_ok($node, '-B', $area, '-Y', $sample);
	$node->start;
	is_content(fingerprint($node, 'postgres'), $content, "$name: content");
}

mkdir "$area/online_wal", 0700;
$node->append_conf('postgresql.conf', "pgx_tde.online_wal_directory = '$area/online_wal'");
$node->restart;
dmpall_ok($node);
finish_segment($node);
$node->safe_psql('postgres', "UPDATE t_sec SET x = 'MARK_backup last' WHERE g % 4 = 0");
$content = fingerprint($node, 'postgres');
$node->stop('immediate');
lose($node);
rcvall_ok($node, '-B', $area);
is(scalar(grep { /^recovered_/ } slurp_dir("$area/online_wal")), 1, 'what was mirrored is put aside');
$node->start;
is_content(fingerprint($node, 'postgres'), $content, 'mirrored WAL: to the last commit, which was not archived');

# ---- refusals --------------------------------------------------------------------------------

foreach my $case (
	[ [ '-l', 'more' ], qr/invalid argument more/ ],
	[ ['--no-such'],    qr/unrecognized option/ ],
	[ [ '-l', '--view-results-of-copying' ], qr/option -l conflicts with option --view-results-of-copying/ ],
	[ [ '-B', $area ],  qr/the server is running.*Please stop the server and retry\./s ],
	[ [ '-B', $area, '-e', '2001-02-03' ], qr/"2001-02-03" is not a time/ ],
	[ [ '-B', $area, '-e', '2001-02-30 04:05:06' ], qr/is not a time/ ],
	[ [ '-B', $area, '-e', '2100-01-01 00:00:00' ], qr/the requested recovery point is in the future/ ],
	[ [ '-B', $area, '-e', '2001-01-01 00:00:00' ],
		qr/the requested recovery point is earlier than the date and time that the backup finished/ ],
	[ [ '-B', $area, '--lsn', '0/10' ],
		qr/the requested recovery point is earlier than the date and time that the backup finished/ ],
	[ [ '-B', $area, '--lsn', 'x' ], qr/an invalid value was specified for the option --lsn/ ],
	[ [ '-B', $area, '--xid', '1' ], qr/--xid must be in range 3/ ],
	[ [ '-B', $area, '-n', 'x' x 64 ], qr/restore point name is too long \(maximum 63 bytes\)/ ],
	[ [ '-B', $area, '-n', 'x', '--xid', 700 ], qr/option -n conflicts with option --xid/ ],
	[ [ '-B', $area, '--backup', 'none' ], qr/the specified backup does not exist/ ],
	[ [ '-B', $area, '-Y', '/bin/true' ],
		qr/option -Y must not be specified because backup has not been performed with the copy command/ ],
	[ [ '-l', '-n', 'x' ], qr/option -n conflicts with option -l/ ],
	[ [ '-B', $area, '--tablespace-mapping', 'x=/y' ], qr/an invalid value was specified for the option --tablespace-mapping/ ],
	[ [ '-B', $area, '--tablespace-mapping', '/x=/y' ], qr/no tablespace of the backup lies in "\/x"/ ],
	[ [ '-l', '-B', work_dir() . '/none' ], qr/the specified backup storage directory ".*none" is not correct/ ],
  )
{
	my ($options, $like) = @$case;
	($rc, $out, $err) = rcvall($node, @$options);
	is($rc, 1, "@$options: exit code");
	like($err, $like, "@$options: message");
}

done_testing();
