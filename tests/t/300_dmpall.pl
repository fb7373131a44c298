# 300_dmpall.pl
#		pgx_dmpall on an encrypted server: what it puts into the backup area, that it can be
#		restored from that alone, how many it keeps, and what it refuses.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PgxBackup;
use PgxTde;

my $MARK = { mark => 'MARK_backup' };

# ---- the setting -----------------------------------------------------------------------------

my $node = backup_primary('main', conf => "max_wal_senders = 5\n");
my $area = area_dir($node);
fill_tablespaces($node, 'MARK_backup');

like(query_fails($node, 'postgres', "ALTER SYSTEM SET pgx_tde.backup_destination = 'relative'"),
	qr/not an absolute path/, 'a relative destination is refused');
foreach my $case (
	[ $node->data_dir . '/base',            'the data directory' ],
	[ $node->basedir,                       'the data directory' ],
	[ tablespace_dir($node, 'sec'),         'a tablespace' ],
	[ keystore_dir($node),                  'the directory of the keystore' ])
{
	my ($dir, $what) = @$case;
	like(query_fails($node, 'postgres', "ALTER SYSTEM SET pgx_tde.backup_destination = '$dir'"),
		qr/It and $what overlap\./, "a destination that overlaps with $what is refused");
}

# ---- a first backup --------------------------------------------------------------------------

my $before = fingerprint($node, 'postgres');
dmpall_ok($node, '--label', 'first one');
my @backups = backups_of($node);
is(scalar(@backups), 1, 'one backup');
like($backups[0], qr/^\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d$/, 'its name');
my $dir = newest_backup($node);
my $info = backup_info($dir);
is($info->{status}, 'COMPLETE', 'status');
is($info->{label}, 'first one', 'label');
is($info->{method}, 'pg_basebackup', 'method');
is($info->{keystore}{uuid}, status_of($node, 'uuid'), 'UUID of the keystore');
is($info->{keystore}{generation}, status_of($node, 'generation'), 'generation of the keystore');
is_deeply($info->{keystore}{master_keys}, [ 0 + status_of($node, 'active_master_key') ], 'master keys');
ok($info->{wal}{archive_complete}, 'archived WAL is there');
is_deeply([ map { "$_->{name} $_->{algorithm}" } @{ $info->{tablespaces} } ], [ 'sec AES256', 'plain none' ],
	'tablespaces');
is_same_file("$dir/keystore/keystore.ks", keystore_file($node), 'copy of the keystore');
foreach my $ts (@{ $info->{tablespaces} })
{
	is(readlink("$dir/data/pg_tblspc/$ts->{oid}"), "../../tablespaces/$ts->{oid}", "link of $ts->{name} is relative");
}
is((stat $dir)[2] & 07777, 0700, 'mode of the backup');
ok(!-e "$dir/INCOMPLETE", 'no marker is left');

# Planted plaintext would be found, and is not.
is(scalar(files_with({ x => 'nothing1' }, "$dir/tablespaces")), 1, 'control: plain data is found in the backup');
is_deeply([ files_with($MARK, $area) ], [], 'no mark in the area');

# ---- restored from what is in the area -------------------------------------------------------

rotate($node);
$node->safe_psql('postgres', "INSERT INTO t_sec SELECT g, 'MARK_backup later' || g FROM generate_series(1, 500) g");
finish_segment($node);
my $after = fingerprint($node, 'postgres');
$node->poll_query_until('postgres',
	q{SELECT last_archived_wal >= pg_walfile_name(pg_current_wal_lsn() - 1) OR
		last_archived_wal >= (SELECT max(name) FROM pg_ls_archive_statusdir() WHERE name !~ 'ready' AND name !~ 'backup')
		AND NOT EXISTS (SELECT FROM pg_ls_archive_statusdir() WHERE name ~ 'ready') FROM pg_stat_archiver})
  or die 'WAL is not archived';

my $copy = restored($node, $dir, 'end', restore => 0);
$copy->start;
is_content(fingerprint($copy, 'postgres'), $before, 'the backup alone: content as it was');
$copy->stop;
$copy = restored($node, $dir, 'latest');
$copy->start;
$copy->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die 'recovery does not end';
is_content(fingerprint($copy, 'postgres'), $after, 'with archived WAL: content of now, over a rotation');
is(status_of($copy, 'active_master_key'), status_of($node, 'active_master_key'), 'and the newest master key');
$copy->stop;

# ---- which keys, and how many are kept -------------------------------------------------------

my ($rc, $out, $err) = dmpall($node, '--json', '--checkpoint', 'spread', '--no-verify');
is($rc, 0, 'a second backup') or diag($err);
my $json = JSON::PP::decode_json($out);
is($json->{directory}, newest_backup($node), 'JSON tells where it is');
is_deeply($json->{keystore}{master_keys}, [ 0 + status_of($node, 'active_master_key') ],
	'it needs the new master key');
is(scalar(backups_of($node)), 2, 'two backups');
my $first_segment = substr((sort grep { /^[0-9A-F]{24}$/ } slurp_dir("$area/archived_wal"))[0], 8);

# A stranger's file and directory stay, whatever their names.
mkdir "$area/2001-02-03_04-05-06.incomplete";
write_file("$area/2001-02-03_04-05-06.incomplete/file", 'not ours');
write_file("$area/archived_wal/00000002.history", "1\t0/1000000\tno reason\n");
write_file("$area/archived_wal/notes", 'not ours');
dmpall_ok($node, '--no-keystore-copy');
my @now = backups_of($node);
is_deeply([ grep { /incomplete/ } @now ], ['2001-02-03_04-05-06.incomplete'], 'what is not ours stays');
is(scalar(grep { !/incomplete/ } @now), 2, 'two generations are kept');
ok(!-e $dir, 'the first backup is gone');
ok(-e "$area/archived_wal/00000002.history", 'timeline history stays');
ok(-e "$area/archived_wal/notes", 'what is not WAL stays');
my $kept = backup_info(area_dir($node) . '/' . (grep { !/incomplete/ } @now)[0]);
my $oldest = (sort grep { /^[0-9A-F]{24}$/ } slurp_dir("$area/archived_wal"))[0];
is($oldest,
	$node->safe_psql('postgres', "SELECT pg_walfile_name('$kept->{wal}{start_lsn}')"),
	'archived WAL begins with the oldest backup');
cmp_ok(substr($oldest, 8), 'gt', $first_segment, 'control: there was older WAL');
is(backup_info(newest_backup($node))->{keystore}{copy}, undef, '--no-keystore-copy keeps none');
ok(!-e newest_backup($node) . '/keystore', 'nor a folder for it');

# ---- configuration ---------------------------------------------------------------------------

$node->append_conf('postgresql.conf', '# a new line');
($rc, $out, $err) = dmpall($node, '--config-only');
is("$rc $out", "0 backup of configuration files completed successfully\n", '--config-only') or diag($err);
$info = backup_info(newest_backup($node));
my ($conf) = grep { $_->{parameter} eq 'config_file' } @{ $info->{configuration_files} };
like(slurp_raw(newest_backup($node) . "/$conf->{file}"), qr/# a new line/, 'the newest backup has the new file');
like($conf->{file}, qr{^conf-\d+/postgresql\.conf$}, 'in a folder of its own');
dmpall($node, '--config-only');
is(scalar(grep { /^conf-/ } slurp_dir(newest_backup($node))), 1, 'and the next call replaces it');

# ---- refusals --------------------------------------------------------------------------------

foreach my $case (
	[ ['--checkpoint=slow'], qr/invalid checkpoint argument "slow", must be "fast" or "spread"/ ],
	[ ['--keep=0'],          qr/--keep must be in range 1/ ],
	[ [ '-P', '/x' ], qr/option -Y is necessary for option -P/ ],
	[ ['--exclude-copy-cluster'], qr/option -Y is necessary for option --exclude-copy-cluster/ ],
	[ [ '-Y', 'relative' ], qr/an invalid value was specified for the option -Y/ ],
	[ [ '-Y', '/bin/true', '--config-only' ], qr/option --config-only conflicts with option -Y/ ],
	[ ['more'],           qr/invalid argument more/ ],
	[ ['--no-such'],      qr/unrecognized option/ ],
	[ [ '-d', 'password=secret' ], qr/option "password" must not be in the connection string/ ],
	[ [ '-d', 'host=/nowhere' ], qr/could not connect to the server of data directory/ ],
  )
{
	my ($options, $like) = @$case;
	($rc, $out, $err) = dmpall($node, @$options);
	is($rc, 1, "@$options: exit code");
	like($err, $like, "@$options: message");
}
($rc, $out, $err) = run_program([ 'pgx_dmpall', '-D', work_dir() ]);
is($rc, 1, 'no data directory: exit code');
like($err, qr/the specified database storage directory is not correct/, 'no data directory: message');
{
	local %ENV = %ENV;
	delete $ENV{PGDATA};
	($rc, $out, $err) = run_program(['pgx_dmpall']);
	like($err, qr/the database storage directory and the \$PGDATA environment variable have not been specified/,
		'nothing specified');
}
chmod 0750, $area;
($rc, $out, $err) = dmpall($node);
is($rc, 1, 'area open to others: exit code');
like($err, qr/the specified backup storage directory ".*" is not correct.*chmod 700/s, 'area open to others: message');
chmod 0700, $area;

# ---- a standby -------------------------------------------------------------------------------

my $standby = new_standby($node, 'standby');
$standby->start;
caught_up($node, $standby);
($rc, $out, $err) = dmpall($standby);
is("$rc $out$err", "1 ERROR:recovery is in progress (10095)\n", 'on a standby: just this line, and exit code 1');
mkdir work_dir() . '/backup_standby', 0700;
$standby->append_conf('postgresql.conf', "pgx_tde.backup_destination = '" . area_dir($standby) . "'");
$standby->restart;
dmpall_ok($standby, '--from-standby');
$info = backup_info(newest_backup($standby));
ok($info->{from_standby}, 'a backup from the standby says so');
$copy = restored($standby, newest_backup($standby), 'fromstandby', restore => 0);
unlink $copy->data_dir . '/standby.signal';
$copy->start;
is_content(fingerprint($copy, 'postgres'), $after, 'its content');
$copy->stop;
$standby->stop;

# ---- without what it needs --------------------------------------------------------------------

$node->append_conf('postgresql.conf', "archive_mode = off");
$node->restart;
($rc, $out, $err) = dmpall($node);
is($rc, 1, 'no archive: exit code');
like($err, qr/the server does not archive WAL/, 'no archive: message');
dmpall_ok($node, '--no-archive');
ok(!backup_info(newest_backup($node))->{wal}{archive_complete}, 'and the backup says so');
$node->append_conf('postgresql.conf', "pgx_tde.backup_destination = ''");
$node->restart;
($rc, $out, $err) = dmpall($node);
like($err,
	qr/Please set the backup storage directory to the 'pgx_tde.backup_destination' parameter and restart the server\./,
	'no destination');
$node->append_conf('postgresql.conf', "pgx_tde.backup_destination = '" . $node->data_dir . "/x/..'");
$node->stop;
like(start_fails($node), qr/invalid value for parameter "pgx_tde.backup_destination"/,
	'the server does not start with a destination in its data directory')
  if mkdir $node->data_dir . '/x';

done_testing();
