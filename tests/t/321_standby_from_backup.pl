# 321_standby_from_backup.pl
#		pgx_rcvall --standby -B: a streaming standby whose files come from a backup, and nothing left when it fails.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use File::Path qw(remove_tree);
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

use PgxBackup;
use PgxTde;

my $primary = backup_primary('primary', checksums => 1, conf => "autovacuum = off\n");
my $area = area_dir($primary);
fill_tablespaces($primary, 'MARK_build');
my ($sec, $plain) = map { tablespace_dir($primary, $_) } qw(sec plain);
dmpall_ok($primary, '--label', 'plain');
dmpall_ok($primary, '--label', 'packed', '--compress=zstd', '--passphrase-file', pass_file($primary));
my $packed = newest_backup($primary);
my $top = work_dir();
my ($data, $keys) = ("$top/data", "$top/standby_keys");
my %space = map { $_ => "$top/space_$_" } qw(sec plain);
my $conninfo = "host='" . $primary->host . "' port=" . $primary->port;
my $port = PostgreSQL::Test::Cluster::get_free_port();
my @pass = ('--passphrase-file', pass_file($primary));
my @slot = ('--slot', 'slot1', '--create-slot');
my @own = ('-D', $data, '-B', $area, '--primary-conninfo', $conninfo, '--keystore-location', $keys,
	'--tablespace-mapping', "$sec=$space{sec}", '--tablespace-mapping', "$plain=$space{plain}", '--set', "port=$port",
	'--set', 'pgx_tde.keystore_passphrase_command=', '--set', 'cluster_name=standby');

sub build { return run_program([ 'pgx_rcvall', '--standby', @own, @_ ], timeout => 300); }
sub slots { return $primary->safe_psql('postgres', 'SELECT count(*) FROM pg_replication_slots'); }

# The tablespaces' directories must be there, as for recovery.
sub spaces { mkdir $_, 0700 foreach values %space; return; }

sub nothing_left
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is_deeply([ grep { -e $_ } $data, $keys ], [], "$name: nothing is left");
	is_deeply([ map { grep { !/^\.\.?$/ } slurp_dir($_) } grep { -d } values %space ], [], "$name: nor in the tablespaces");
	is(slots(), 0, "$name: no slot is left");
	return;
}

sub fails
{
	my ($name, $code, $message, @args) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($rc, $out, $err) = build(@args);
	is($rc, $code, "$name: exit code");
	like($err, $message, "$name: message");
	nothing_left($name);
	return;
}

sub ask
{
	my ($sql) = @_;
	my ($code, $answer, $error) = run_program([ 'psql', '-XAtq', '-h', $primary->host, '-p', $port, '-d', 'postgres', '-c', $sql ]);
	chomp $answer;
	return $code == 0 ? $answer : $error;
}

sub streams_like_the_primary
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$primary->safe_psql('postgres', "INSERT INTO t_sec SELECT g, 'MARK_build later' FROM generate_series(1, 50) g");
	$primary->wait_for_catchup('standby', 'replay', $primary->safe_psql('postgres', 'SELECT pg_current_wal_lsn()'));
	my $sum = 'SELECT count(*), sum(hashtextextended(t::text, 0)) FROM t_sec t';
	is(ask($sum), $primary->safe_psql('postgres', $sum), "$name: its content is that of the primary");
	is(ask('SELECT pg_is_in_recovery()'), 't', "$name: it is a standby");
	is_deeply([ files_with({ marker => 'MARK_build' }, $data, $space{sec}) ], [], "$name: and encrypted");
	ok(!-e "$data/pgx_rcvall.incomplete", "$name: no marker is left");
	return;
}

sub tear_down
{
	system('pg_ctl', '-s', '-w', '-m', 'fast', '-D', $data, 'stop');
	remove_tree($data, $keys);
	remove_tree($_, { keep_root => 1 }) foreach values %space;
	$primary->safe_psql('postgres', 'SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots');
	return;
}

# ---- what is refused before anything is done ---------------------------------------------------------

my ($rc, $out, $err) = run_program([ 'pgx_rcvall', '--standby', '-D', $data, '-B', $area ]);
is($rc, 1, 'no --primary-conninfo: exit code');
like($err, qr/option --primary-conninfo is necessary for option -B/, 'no --primary-conninfo: message');
fails('a tablespace directory is missing', 1, qr/directory "\Q$space{sec}\E" for the tablespace .* does not exist/, @pass);
spaces();
fails('with --from', 1, qr/option -B conflicts with option --from/, @pass, '--from', $conninfo);
fails('a password', 1, qr/a password cannot be given with option --primary-conninfo/, @pass, '--primary-conninfo',
	"$conninfo password=x");
fails('no such backup', 1, qr/the specified backup does not exist/, @pass, '--backup', 'none');
fails('no passphrase', 2, qr/the keystore is not open.*hint: Use option --keystore-passphrase/s, @slot);
fails('wrong passphrase', 2, qr/passphrase/, '--passphrase-file', write_file("$top/bad", "not the passphrase\n"), @slot);
fails('a target', 1, qr/option --lsn conflicts with option --standby/, @pass, '--lsn', '0/1');
fails('primary is not there', 1, qr/could not connect to the server/, @pass, '--primary-conninfo', "host='$top' port=1");
write_file("$space{sec}/precious", 'x');
($rc, $out, $err) = build(@pass, @slot);
is($rc, 1, 'tablespace not empty: exit code');
like($err, qr/directory "\Q$space{sec}\E" is not empty/, 'tablespace not empty: message');
ok(-e "$space{sec}/precious", 'tablespace not empty: what was there stays');
unlink "$space{sec}/precious";
nothing_left('tablespace not empty');

my $other = new_primary('other');
fails('another server', 1, qr/the backup ".*" is not of the primary.*system identifier/s, @pass, '--primary-conninfo',
	"host='" . $other->host . "' port=" . $other->port);
$other->stop;

# ---- failures half way -------------------------------------------------------------------------------

my ($file) = grep { -s > 8000 } glob "$area/*/tablespaces/*/PG_*/*/*";
my $bytes = slurp_raw($file);
write_file($file, substr($bytes, 0, 100) . chr(255 ^ ord substr $bytes, 100, 1) . substr($bytes, 101));
fails('a bit is flipped in the backup', 1, qr/checksum mismatch for file/, @pass, @slot, '--backup', 'plain');
write_file($file, $bytes);
my $pack = slurp_raw("$packed/data.pgxpack");
write_file("$packed/data.pgxpack", substr $pack, 0, -100);
fails('a packed backup is cut off', 1, qr/data.pgxpack" .*(damaged|altered|cut)/, @pass, @slot, '--backup', 'packed');
write_file("$packed/data.pgxpack", $pack);
fails('it does not start', 1, qr/the standby did not start as it should/, @pass, @slot, '--set', 'shared_buffers=nonsense');

foreach my $signal (qw(TERM INT KILL))
{
	my ($o, $e) = ('', '');
	my $run = IPC::Run::start([ 'pgx_rcvall', '--standby', @own, @pass, @slot, '--backup', 'plain' ], '<', '/dev/null',
		'>', \$o, '2>', \$e);
	my $seen = 0;
	for (1 .. 3000)
	{
		$seen = -e "$data/pgx_rcvall.incomplete" && -d "$data/base";
		last if $seen || !$run->pumpable;
		usleep(2_000);
	}
	ok($seen, "SIG$signal: it was half way");
	$run->signal($signal);
	$run->finish;
	if ($signal ne 'KILL')
	{
		like($e, qr/interrupted by signal/, "SIG$signal: message");
		nothing_left("SIG$signal");
		next;
	}
	# Nobody can clean up after that, but the same command can, if the slot is named as one that is there.
	ok(-e "$data/pgx_rcvall.incomplete", 'SIGKILL: what is left is marked');
	isnt(system('pg_ctl', '-s', '-w', '-t', 2, '-D', $data, '-l', "$top/no.log", 'start'), 0, 'and no server starts from it');
	($rc, $out, $err) = build(@pass, '--slot', 'slot1');
	is($rc, 0, 'SIGKILL: the same command works') or diag($err);
	streams_like_the_primary('SIGKILL');
	tear_down();
}

# ---- and it works: from both kinds of backup, with WAL from the archive, over a rotation ------------------

rotate($primary);
$primary->safe_psql('postgres', "INSERT INTO t_sec SELECT g, 'MARK_build more' FROM generate_series(1, 500) g");
archived($primary) for 1 .. 3;
$primary->safe_psql('postgres', 'CHECKPOINT');

foreach my $what ([ 'plain' ], [ 'packed', '--jobs', 2 ])
{
	my ($label, @args) = @$what;
	($rc, $out, $err) = build(@pass, @slot, '--backup', $label, '--auto-open', '--log', "$top/standby.log", @args);
	is($rc, 0, "$label: exit code") or diag($err);
	like($out, qr/^Keystore: \Q$keys\E\/keystore.ks\nAutomatic opening: enabled\nReplication slot: slot1\nBackup: \Q$area\E\/\S+\nData directory: \Q$data\E\n(Tablespace: \S+ in \S+\n){2}The standby is streaming.\n$/,
		"$label: what it did");
	like(slurp_raw("$top/standby.log"), qr/restored log file/, "$label: WAL came from the archive");
	is_same_file(keystore_file($primary), "$keys/keystore.ks", "$label: its keystore is that of the primary");
	streams_like_the_primary($label);
	rotate($primary);
	streams_like_the_primary("$label, after a rotation");
	is(system('pg_ctl', '-s', '-w', '-D', $data, '-l', "$top/standby.log", 'restart'), 0, "$label: it restarts by itself");
	is(ask('SELECT pg_is_in_recovery()'), 't', "$label: as a standby");
	tear_down();
	unlink "$top/standby.log";
}

done_testing();
