# 303_copy_command.pl
#		The copy-command protocol of pgx_dmpall, with the sample that is installed: what is called when and with
#		what, and that a server comes up from what the command copied.

use strict;
use warnings;

use File::Path qw(make_path remove_tree);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PgxBackup;
use PgxTde;

my $node = backup_primary('main');
my $area = area_dir($node);
fill_tablespaces($node, 'MARK_copy');
my $content = fingerprint($node, 'postgres');

# ---- the calls --------------------------------------------------------------------------------

my $calls = work_dir() . '/calls';
my $command = write_file(work_dir() . '/command', <<"EOF", 0700);
#!/bin/sh
echo "\$@" >>'$calls'
case \$1 in
	prepare) cat "\$3" >>'$calls' ;;
	backup) psql -XAtq -d postgres -c "SELECT 'SESSION ' || count(*) FROM pg_stat_activity WHERE query ~ 'pg_backup_start' AND pid <> pg_backend_pid()" >>'$calls' ;;
	finalize) echo 'noted by the command' >"\$2" ;;
esac
[ "\$1" != "\$FAIL_IN" ]
EOF

sub calls
{
	my $text = slurp_raw($calls) // '';
	unlink $calls;
	$text =~ s/\Q$area\E/AREA/g;
	$text =~ s/\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d/TIME/g;
	return $text;
}

my $list = write_file(work_dir() . '/list', "sec\n");
dmpall_ok($node, '-Y', $command);
is(calls(), <<'EOF', 'called three times; there is no former backup');
prepare - AREA/TIME.incomplete/copy_targets
pg_data
sec
plain
backup
SESSION 1
finalize AREA/TIME.incomplete/copy_info
EOF
my $dir = newest_backup($node);
my $info = backup_info($dir);
is($info->{method}, 'copy_command', 'method');
is_deeply($info->{copy_command}, { info_file => 'copy_info', resources => [ 'pg_data', 'sec', 'plain' ] }, 'resources');
is(slurp_raw("$dir/copy_info"), "noted by the command\n", 'its file is kept');
ok(!-e "$dir/data", 'nothing else was copied');
like(slurp_raw("$dir/backup_label"), qr/^START WAL LOCATION: \Q$info->{wal}{start_lsn}\E /, 'backup label');
ok(-s "$dir/wal/" . $node->safe_psql('postgres', "SELECT pg_walfile_name('$info->{wal}{start_lsn}')"), 'WAL');
ok(-s "$dir/keystore/keystore.ks", 'keystore');

dmpall_ok($node, '-Y', $command, '-P', $list, '--exclude-copy-cluster');
is(calls(), <<'EOF', 'one tablespace only; the former file is given');
prepare AREA/TIME/copy_info AREA/TIME.incomplete/copy_targets
sec
backup
SESSION 1
finalize AREA/TIME.incomplete/copy_info
EOF
$dir = newest_backup($node);
$info = backup_info($dir);
my ($sec)   = grep { $_->{name} eq 'sec' } @{ $info->{tablespaces} };
my ($plain) = grep { $_->{name} eq 'plain' } @{ $info->{tablespaces} };
ok(-e "$dir/data/PG_VERSION",               'the rest is in the backup: data directory');
ok(-e "$dir/tablespaces/$plain->{oid}",     'the rest is in the backup: tablespace');
ok(!-e "$dir/tablespaces/$sec->{oid}",      'what the command copies is not');
ok(!-e "$dir/data/postmaster.pid",          'nor is postmaster.pid');
is(scalar(slurp_dir("$dir/data/pg_wal")) - 2, 0, 'nor is WAL of the server');

# ---- failures ----------------------------------------------------------------------------------

my @were = backups_of($node);
foreach my $operation (qw(prepare backup finalize))
{
	local $ENV{FAIL_IN} = $operation;
	my ($rc, $out, $err) = dmpall($node, '-Y', $command);
	is($rc, 1, "$operation fails: exit code");
	like($err, qr/program ".*command" failed with exit code 1/, "$operation fails: message");
	is_deeply([ backups_of($node) ], \@were, "$operation fails: no backup");
}
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE query ~ 'pg_backup' AND pid <> pg_backend_pid()}),
	0, 'no session in backup mode is left');
foreach my $case (
	[ [ '-Y', work_dir() . '/missing' ], qr/could not run program/ ],
	[ [ '-Y', $command, '-P', work_dir() . '/missing' ], qr/could not open file/ ],
	[ [ '-Y', $command, '-P', write_file(work_dir() . '/wrong', "sec\nnone\n") ], qr/tablespace "none" does not exist/ ],
	[ [ '-Y', $command, '-P', write_file(work_dir() . '/empty', ""), '--exclude-copy-cluster' ], qr/there is nothing for the copy command to copy/ ],
	[ [ '-Y', $command, '--from-standby' ], qr/option --from-standby conflicts with option -Y/ ])
{
	my ($options, $like) = @$case;
	my ($rc, $out, $err) = dmpall($node, @$options);
	is($rc, 1, "$options->[-1]: exit code");
	like($err, $like, "$options->[-1]: message");
}

# ---- the sample --------------------------------------------------------------------------------

my $sample = (grep { -x } map { "$_/../share/pgx-tde/copy_command.archive.sh.sample" } split /:/, $ENV{PATH})[0];
ok(defined $sample, 'the sample is installed');
my $copies = work_dir() . '/copies';
mkdir $copies, 0700;
$ENV{PGX_COPY_DIR} = $copies;

# Go back to a state by the files of a backup: what pgx_rcvall does, in the order of the protocol.
sub recover
{
	my ($from, $name) = @_;
	my $data = $node->data_dir;
	my $backup = backup_info($from);

	$node->stop('immediate') if is_running($node);
	my @saved = map { slurp_raw("$data/$_") } qw(postgresql.conf pg_hba.conf);
	remove_tree($data, { keep_root => 1 });
	remove_tree($_->{location}, { keep_root => 1 }) foreach @{ $backup->{tablespaces} };
	my $targets = write_file(work_dir() . '/targets', join('', map { "$_\n" } @{ $backup->{copy_command}{resources} }));
	my ($rc, $out, $err) = run_program([ $sample, 'restore', "$from/$backup->{copy_command}{info_file}", $targets ]);
	is($rc, 0, "$name: restored") or diag($err);
	system_or_bail('cp', '-a', "$from/data/.", $data) if -d "$from/data";
	foreach my $ts (@{ $backup->{tablespaces} })
	{
		next if !-d "$from/tablespaces/$ts->{oid}";
		system_or_bail('cp', '-a', "$from/tablespaces/$ts->{oid}/.", $ts->{location});
	}
	foreach my $ts (@{ $backup->{tablespaces} })
	{
		unlink "$data/pg_tblspc/$ts->{oid}";
		symlink $ts->{location}, "$data/pg_tblspc/$ts->{oid}" or die "$!";
	}
	chmod 0700, $data;
	make_path("$data/pg_wal/archive_status", "$data/pg_replslot", { mode => 0700 });
	system_or_bail('cp', "$from/backup_label", $data);
	system_or_bail('cp', "$from/tablespace_map", $data) if -e "$from/tablespace_map";
	unlink "$data/standby.signal";
	write_file("$data/recovery.signal", '');
	$node->append_conf('postgresql.conf', "restore_command = 'cp $from/wal/%f %p || cp $area/archived_wal/%f %p'");
	$node->start;
	$node->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die 'recovery does not end';
	return;
}

foreach my $case (
	[ 'everything', [] ],
	[ 'all tablespaces, but not the data directory', ['--exclude-copy-cluster'] ],
	[ 'one tablespace', [ '-P', $list, '--exclude-copy-cluster' ] ])
{
	my ($name, $options) = @$case;
	$node->safe_psql('postgres', "INSERT INTO t_sec SELECT g, '$name' FROM generate_series(1, 300) g");
	$node->safe_psql('postgres', "INSERT INTO t_plain SELECT g, '$name' FROM generate_series(1, 300) g");
	dmpall_ok($node, '-Y', $sample, @$options);
	$node->safe_psql('postgres', "DELETE FROM t_sec WHERE g = 7");
	my $wanted = fingerprint($node, 'postgres');
	$node->stop;
	my $from = newest_backup($node);
	recover($from, $name);
	is_content(fingerprint($node, 'postgres'), $wanted, "$name: content up to the end");
}
ok(-d "$copies/set1" && -d "$copies/set2", 'two sets of copies are used in turn');
is_deeply([ files_with({ mark => 'MARK_copy' }, $area, $copies) ], [], 'no mark in the area and in the copies');

done_testing();
