# 360_peers.pl
#		The backup tools that others have, as they come from Debian and with their checks on: a backup of an encrypted
#		server by pgBackRest and by Barman restores and runs, over a rotation of the master key, and holds no planted
#		plaintext.

use strict;
use warnings;

use File::Path qw(make_path);
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PgxTde;

my $MARK = { mark => 'MARK_peer' };
my ($rc, $out, $err);

# A server with an encrypted and a plain tablespace; MARK_peer is in the encrypted one, plain_peer in the other.
sub peer_primary
{
	my ($name, $archive_command) = @_;
	my $node = new_primary(
		$name,
		checksums => 1,
		conf => "archive_mode = on\narchive_command = '$archive_command'\nautovacuum = off\nmax_wal_senders = 6\n");
	foreach my $ts ([ 'sec', q{WITH (tablespace_encryption_algorithm = 'AES256')} ], [ 'open', '' ])
	{
		my ($space, $options) = @$ts;
		my $dir = tablespace_dir($node, $space);
		$node->safe_psql('postgres', "CREATE TABLESPACE $space LOCATION '$dir' $options");
	}
	$node->safe_psql('postgres', q{
		CREATE TABLE s (id int PRIMARY KEY, x text) TABLESPACE sec;
		INSERT INTO s SELECT g, 'MARK_peer' || g FROM generate_series(1, 20000) g;
		CREATE TABLE o TABLESPACE open AS SELECT g, 'plain_peer' || g AS x FROM generate_series(1, 500) g;
		CHECKPOINT});
	return $node;
}

# What the backup does not have, and WAL brings.
sub go_on
{
	my ($node, $step) = @_;
	rotate($node);
	$node->safe_psql('postgres', "INSERT INTO s SELECT g + 100000 * $step, 'MARK_peer later' FROM generate_series(1, 700) g;
		UPDATE s SET x = x || ' changed' WHERE id % 50 = $step");
	return;
}

# All segments until now are with the archiver's command.
sub archived
{
	my ($node) = @_;
	my $last = finish_segment($node);
	$node->poll_query_until('postgres', "SELECT last_archived_wal >= '$last' FROM pg_stat_archiver")
	  or die 'WAL is not archived';
	return;
}

# A place for what is restored: data directory and tablespaces do not exist.  The keystore is an old copy.
sub place
{
	my ($node, $name) = @_;
	my $copy = PostgreSQL::Test::Cluster->new($name);
	PgxTde::prepare_node($copy);
	copy_keystore($node, $copy);
	mkdir $copy->basedir;
	return $copy;
}

# Start what was restored, see that its recovery ends, and compare.
sub comes_up
{
	my ($copy, $wanted, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	mkdir $copy->archive_dir;
	chmod 0700, $copy->data_dir;
	$copy->append_conf('postgresql.conf',
		'port = ' . $copy->port . "\nunix_socket_directories = '" . $copy->host . "'\narchive_mode = off\n");
	configure_node($copy);
	$copy->start;
	$copy->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die 'recovery does not end';
	is_content(fingerprint($copy, 'postgres'), $wanted, "$name: content");
	$copy->stop;
	($rc) = run_program([ 'pg_checksums', '--check', '-D', $copy->data_dir ]);
	is($rc, 0, "$name: pg_checksums");
	return;
}

# ---- pgBackRest ------------------------------------------------------------------------------------

SKIP:
{
	skip 'pgBackRest (package pgbackrest) is not installed', 1 if system('pgbackrest version >/dev/null 2>&1') != 0;

	my $top = work_dir() . '/pgbackrest';
	my $config = work_dir() . '/pgbackrest.conf';
	mkdir $_, 0700 foreach $top, map { "$top/$_" } qw(repo log lock spool);
	my $node = peer_primary('br', "pgbackrest --config=$config --stanza=main archive-push %p");

	# Defaults, but for the places: no encryption by the repository, checksums and page headers are looked at.
	# Without compression, so that what is readable would be found.
	write_file($config, <<"EOF");
[global]
repo1-path=$top/repo
repo1-retention-full=2
log-path=$top/log
lock-path=$top/lock
spool-path=$top/spool
log-level-file=off
log-level-console=warn
compress-type=none
start-fast=y

[main]
pg1-path=@{[ $node->data_dir ]}
pg1-port=@{[ $node->port ]}
pg1-socket-path=@{[ $node->host ]}
EOF
	my $pgbackrest = sub {
		local %ENV = %ENV;
		delete @ENV{qw(PGHOST PGPORT PGDATABASE PGAPPNAME)};
		return run_program([ 'pgbackrest', "--config=$config", '--stanza=main', @_ ]);
	};
	foreach my $command (['stanza-create'], ['check'], [ '--type=full', '--checksum-page', 'backup' ])
	{
		($rc, $out, $err) = $pgbackrest->(@$command);
		is($rc, 0, "pgBackRest: @$command") or diag("$out$err");
		unlike("$out$err", qr/WARN|ERROR/, "pgBackRest: @$command has nothing to complain of");
	}
	my $at_backup = place($node, 'br_restored');
	go_on($node, 1);
	($rc, $out, $err) = $pgbackrest->('--type=incr', 'backup');
	is($rc, 0, 'pgBackRest: incremental backup') or diag("$out$err");
	unlike("$out$err", qr/WARN|ERROR/, 'pgBackRest: no invalid page in it');
	go_on($node, 2);
	my $wanted = fingerprint($node, 'postgres');
	archived($node);

	($rc, $out, $err) = $pgbackrest->('verify');
	is($rc, 0, 'pgBackRest: verify') or diag("$out$err");
	($rc, $out) = $pgbackrest->('--output=json', 'info');
	my @backups = @{ decode_json($out)->[0]{backup} };
	is("@{[ map { $_->{type} } @backups ]}", 'full incr', 'pgBackRest: both backups are there');
	is(scalar(grep { $_->{error} } @backups), 0, 'pgBackRest: neither has a page that failed its checks');
	is_deeply([ files_with($MARK, "$top/repo") ], [], 'pgBackRest: no mark in the repository');
	isnt(scalar files_with({ plain => 'plain_peer' }, "$top/repo/backup"), 0,
		'control: what is in the plain tablespace is found there');

	my $base = $at_backup->basedir;
	($rc, $out, $err) =
	  $pgbackrest->('--pg1-path=' . $at_backup->data_dir, "--tablespace-map-all=$base/ts", 'restore');
	is($rc, 0, 'pgBackRest: restored') or diag("$out$err");
	comes_up($at_backup, $wanted, 'pgBackRest');
	is_deeply([ files_with($MARK, $base) ], [], 'pgBackRest: no mark where it was restored');

	# The checks are really made: a page that is damaged on disk is reported.
	my $file = $node->data_dir . '/' . $node->safe_psql('postgres', q{SELECT pg_relation_filepath('s')});
	$node->stop;
	open my $fh, '+<:raw', $file or die "could not open \"$file\": $!";
	seek $fh, 3 * 8192 + 5000, 0;
	print $fh 'damage';
	close $fh or die "$!";
	$node->start;
	($rc, $out, $err) = $pgbackrest->('--type=full', 'backup');
	like("$out$err", qr/WARN: invalid page checksum found in file .* at page 3/, 'control: a damaged page is found');
	$node->stop;
}

# ---- Barman -----------------------------------------------------------------------------------------

SKIP:
{
	skip 'Barman (package barman) is not installed', 1 if system('barman --version >/dev/null 2>&1') != 0;

	my $top = work_dir() . '/barman';
	my $config = work_dir() . '/barman.conf';
	my $user = getpwuid($<);
	make_path("$top/lock", "$top/main/incoming", { mode => 0700 });
	my $node = peer_primary('bm', "test ! -f $top/main/incoming/%f && cp %p $top/main/incoming/%f");
	my ($host, $port) = ($node->host, $node->port);
	my $bindir = (grep { -x "$_/pg_basebackup" } split /:/, $ENV{PATH})[0];
	write_file($config, <<"EOF");
[barman]
barman_user = $user
barman_home = $top
barman_lock_directory = $top/lock
log_file = $top/log
log_level = INFO

[main]
description = main
conninfo = host=$host port=$port user=$user dbname=postgres
streaming_conninfo = host=$host port=$port user=$user
backup_method = postgres
archiver = on
path_prefix = $bindir
immediate_checkpoint = true
EOF
	my $barman = sub {
		local %ENV = (%ENV, HOME => $top);
		delete @ENV{qw(PGHOST PGPORT PGDATABASE PGAPPNAME)};
		return run_program([ 'barman', '-c', $config, @_ ]);
	};
	archived($node);
	($rc, $out, $err) = $barman->('archive-wal', 'main');
	is($rc, 0, 'Barman: archive-wal') or diag("$out$err");
	($rc, $out, $err) = $barman->('check', 'main');
	is($rc, 0, 'Barman: check') or diag("$out$err");
	($rc, $out, $err) = $barman->('backup', 'main');
	is($rc, 0, 'Barman: backup') or diag("$out$err");
	my $copy = place($node, 'bm_restored');
	go_on($node, 1);
	my $wanted = fingerprint($node, 'postgres');
	archived($node);
	($rc, $out, $err) = $barman->('archive-wal', 'main');
	is($rc, 0, 'Barman: archive-wal again') or diag("$out$err");
	($rc, $out, $err) = $barman->('check-backup', 'main', 'latest');
	is($rc, 0, 'Barman: check-backup') or diag("$out$err");
	is_deeply([ files_with($MARK, $top) ], [], 'Barman: no mark in what it has');
	isnt(scalar files_with({ plain => 'plain_peer' }, "$top/main/base"), 0,
		'control: what is in the plain tablespace is found there');

	my $base = $copy->basedir;
	($rc, $out, $err) = $barman->(
		'recover', '--tablespace', "sec:$base/ts_sec", '--tablespace', "open:$base/ts_open", 'main', 'latest',
		$copy->data_dir);
	is($rc, 0, 'Barman: recovered') or diag("$out$err");
	comes_up($copy, $wanted, 'Barman');
	is_deeply([ files_with($MARK, $base) ], [], 'Barman: no mark where it was restored');
	$node->stop;
}

done_testing();
