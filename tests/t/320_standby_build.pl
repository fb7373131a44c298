# 320_standby_build.pl
#		pgx_rcvall --standby: one command from nothing to a streaming standby, and nothing left when it fails.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PgxTde;
use Test::More;

my $primary = new_primary('primary', checksums => 1, conf => "autovacuum = off\n");
my $enc = tablespace_dir($primary, 'enc');
$primary->safe_psql('postgres',
	"CREATE TABLESPACE enc LOCATION '$enc' WITH (tablespace_encryption_algorithm = 'AES256')");
$primary->safe_psql('postgres',
	"CREATE TABLE t TABLESPACE enc AS SELECT g AS id, 'MARK_build' || g AS x FROM generate_series(1, 20000) g");
my $from = "host='" . $primary->host . "' port=" . $primary->port . ' dbname=postgres';
my $good = write_file(work_dir() . '/good', "$PASSPHRASE\n");
my $bad = write_file(work_dir() . '/bad', "not the passphrase\n");
my $top = work_dir();
my ($data, $keys, $space) = ("$top/data", "$top/standby_keys", "$top/space");
my $port = PostgreSQL::Test::Cluster::get_free_port();
my @settings = ('--set', "port=$port", '--set', 'pgx_tde.keystore_passphrase_command=');
my @own = ('--keystore-location', $keys, '--tablespace-mapping', "$enc=$space", @settings);

# Arguments that come later win.
sub build
{
	my (@args) = @_;
	return run_program([ 'pgx_rcvall', '--standby', '-D', $data, '--from', $from, @own, @args ]);
}

sub slots { return $primary->safe_psql('postgres', 'SELECT count(*) FROM pg_replication_slots'); }

sub nothing_left
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is_deeply([ grep { -e $_ } $data, $keys, $space ], [], "$name: nothing is left");
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

# ---- what is refused before anything is done -----------------------------------------------------

my @slot = ('--slot', 'slot1', '--create-slot');
my @pass = ('--passphrase-file', $good);
fails('connection refused', 1, qr/could not connect to the server: .*(refused|No such file)/s, @pass, @slot,
	'--from', "host='$top' port=1 dbname=postgres");
fails('password in --from', 1, qr/a password cannot be given with option --from.*hint: Put it into a password file/s,
	@pass, '--from', "$from password=secret");
fails('wrong passphrase', 2, qr/wrong passphrase|passphrase.*(wrong|does not)|no slot/i, '--passphrase-file', $bad, @slot);
fails('no passphrase', 2, qr/the keystore is not open.*hint: Use option --keystore-passphrase/s, @slot);
fails('slot that is not there', 1, qr/replication slot "slot1" does not exist.*hint: Use option --create-slot/s, @pass,
	'--slot', 'slot1');
fails('--create-slot alone', 1, qr/option --slot is necessary for option --create-slot/, @pass, '--create-slot');
fails('a setting that is none', 1, qr/invalid value was specified for the option --set/, @pass, '--set', 'port');
fails('with a backup area', 1, qr/option -B conflicts with option --from/, @pass, '-B', $top);
fails('with --jobs', 1, qr/option --jobs conflicts with option --from/, @pass, '--jobs', 2);

$primary->safe_psql('postgres', "SELECT pg_create_physical_replication_slot('slot1')");
my ($rc, $out, $err) = build(@pass, @slot);
is($rc, 1, 'slot that exists: exit code');
like($err, qr/replication slot "slot1" already exists/, 'slot that exists: message');
is(slots(), 1, 'slot that exists: it stays');
$primary->safe_psql('postgres', "SELECT pg_drop_replication_slot('slot1')");

mkdir "$top/other", 0700;
run_program([ 'pgx_keystore', 'create', '--kdf-cost', 10, "$top/other/keystore.ks" ], stdin => "$PASSPHRASE\n");
fails('keystore of another cluster', 1, qr/the keystore is not that of the primary/, @pass, '--keystore', "$top/other");
($rc, $out, $err) = build(@pass, '--keystore-location', keystore_dir($primary));
is($rc, 1, 'keystore directory of the primary: exit code');
like($err, qr/keystore directory ".*" is that of the primary/, 'keystore directory of the primary: message');
nothing_left('keystore directory of the primary');
($rc, $out, $err) = build(@pass, '--keystore-location', "$top/other");
is($rc, 1, 'directory with another keystore: exit code');
like($err, qr/there is another keystore in "\Q$top\E\/other\/keystore.ks"/, 'directory with another keystore: message');
ok(-s "$top/other/keystore.ks", 'and it stays');

foreach my $dir ($data, $space)
{
	mkdir $dir, 0700;
	write_file("$dir/precious", 'x');
	($rc, $out, $err) = build(@pass, @slot);
	is($rc, 1, 'target not empty: exit code');
	like($err, qr/directory "\Q$dir\E" is not empty.*There is "precious" in it/s, 'target not empty: message');
	is(slurp_raw("$dir/precious"), 'x', 'target not empty: what was there stays');
	unlink "$dir/precious";
	rmdir $dir;
	nothing_left('target not empty');
}
SKIP:
{
	skip 'root may write everywhere', 4 if $> == 0;
	mkdir "$top/closed", 0500;
	fails('unwritable directory', 1, qr/could not create directory "\Q$top\E\/closed\/data"/, @pass, '-D', "$top/closed/data");
	rmdir "$top/closed";
}

# ---- failures half way ------------------------------------------------------------------------------

# A slow base backup, to have the time for it.
sub broken
{
	my ($name, $code, $message, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($o, $e) = ('', '');
	mkdir $data, 0700;	# there before, empty: stays
	my $run = IPC::Run::start([ 'pgx_rcvall', '--standby', '-D', $data, '--from', $from, @own, @pass, @slot ],
		'<', '/dev/null', '>', \$o, '2>', \$e);
	my $seen = 0;
	wait_until(sub { ($seen = -e "$data/base" && -e "$keys/keystore.ks" && slots() == 1) || !$run->pumpable });
	ok($seen, "$name: it was half way");
	$what->($run);
	$run->finish;
	is($run->full_result(0) >> 8, $code, "$name: exit code");
	like($e, $message, "$name: message");
	is_deeply([ slurp_dir($data) ], [ '.', '..' ], "$name: the directory that was there is empty again") if -d $data;
	ok(-d $data, "$name: and still there");
	rmdir $data;
	nothing_left($name);
	return;
}

# A stand-in for pg_basebackup in front of the real one would not be PostgreSQL's; a slow disk is a big table.
$primary->safe_psql('postgres', 'CREATE TABLE big TABLESPACE enc AS SELECT g, repeat(md5(g::text), 30) FROM generate_series(1, 60000) g');
broken('SIGTERM', 1, qr/interrupted by signal 15/, sub { $_[0]->signal('TERM') });
broken('SIGINT', 1, qr/interrupted by signal 2/, sub { $_[0]->signal('INT') });
# It would be done before the server is asked; so it stands still meanwhile, and the server has to wait for it.
broken('the primary ends the base backup', 1, qr/program ".*pg_basebackup" failed with exit code 1/, sub {
	my ($child) = grep { slurp_raw("/proc/$_/cmdline") =~ /pg_basebackup/ } split ' ',
	  slurp_raw("/proc/$_[0]{KIDS}[0]{PID}/task/$_[0]{KIDS}[0]{PID}/children");
	kill 'STOP', $child;
	$primary->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_replication});
	kill 'CONT', $child;
});

# The server itself does not start: everything goes.
fails('a configuration that does not start', 1, qr/the standby did not start as it should/, @pass, @slot, '--set',
	'shared_buffers=nonsense');

# ---- and it works --------------------------------------------------------------------------------------

my $standby = PostgreSQL::Test::Cluster->new('standby');
($rc, $out, $err) = build(@pass, @slot, '--auto-open', '--set', 'cluster_name=standby', '--log', "$top/standby.log");
is($rc, 0, 'built: exit code') or diag($err);
like($out, qr/^Keystore: \Q$keys\E\/keystore.ks\nAutomatic opening: enabled\nReplication slot: slot1\nData directory: \Q$data\E\nTablespace: \Q$enc\E in \Q$space\E\nThe standby is streaming.\n$/,
	'what it did');
is_same_file(keystore_file($primary), "$keys/keystore.ks", 'its keystore is that of the primary');
unlike(slurp_raw("$data/postgresql.auto.conf"), qr/password=/, 'no password is in its configuration');
is($primary->safe_psql('postgres', "SELECT active FROM pg_replication_slots WHERE slot_name = 'slot1'"), 't', 'the slot is in use');

sub ask
{
	my ($sql) = @_;
	my ($code, $answer, $error) = run_program([ 'psql', '-XAtq', '-h', $primary->host, '-p', $port, '-d', 'postgres', '-c', $sql ]);
	chomp $answer;
	return $code == 0 ? $answer : $error;
}

rotate($primary);
$primary->safe_psql('postgres', 'INSERT INTO t VALUES (0, $$MARK_later$$)');
$primary->wait_for_catchup('standby', 'replay', $primary->safe_psql('postgres', 'SELECT pg_current_wal_lsn()'));
my $sum = 'SELECT count(*), sum(hashtextextended(t::text, 0)) FROM t';
is(ask($sum), $primary->safe_psql('postgres', $sum), 'its content is that of the primary, over a rotation');
is_deeply([ files_with({ marker => 'MARK_build' }, $data, $space) ], [], 'and encrypted');
is(system('pg_ctl', '-s', '-w', '-D', $data, '-l', "$top/standby.log", 'restart'), 0, 'it restarts by itself');
is(ask('SELECT pg_is_in_recovery()'), 't', 'as a standby');
system('pg_ctl', '-s', '-w', '-D', $data, 'stop');
$primary->safe_psql('postgres', "SELECT pg_drop_replication_slot('slot1')");
rename $data, "$top/done" or die "$!";
rename $keys, "$top/done_keys" or die "$!";
rename $space, "$top/done_space" or die "$!";

# ---- the keystore from elsewhere ---------------------------------------------------------------------------

foreach my $what ('file', 'host')
{
	my $n = "$top/$what";
	mkdir "$top/bin";
	write_file("$top/bin/ssh", "#!/bin/sh\n[ \"\$1\" = -- ] && [ \"\$2\" = keyhost ] || exit 255\nshift 2\nexec sh -c \"\$*\"\n", 0700);
	local $ENV{PATH} = "$top/bin:$ENV{PATH}";
	($rc, $out, $err) = run_program([ 'pgx_rcvall', '--standby', '-D', "$n.data", '--from', $from, '--keystore-location',
			"$n.keys", '--tablespace-mapping', "$enc=$n.space", @settings, '--keystore-passphrase', '--keystore',
			$what eq 'file' ? keystore_file($primary) : 'keyhost:' . keystore_dir($primary) ], stdin => "$PASSPHRASE\n");
	is($rc, 0, "keystore from a $what: exit code") or diag($err);
	is(ask($sum), $primary->safe_psql('postgres', $sum), "keystore from a $what: content");
	system('pg_ctl', '-s', '-w', '-D', "$n.data", 'stop');
}
{
	local $ENV{PATH} = "$top/bin:$ENV{PATH}";
	fails('host that is not reached', 1, qr/could not fetch the keystore "\/x\/keystore.ks" from host "elsewhere"/, @pass,
		'-D', "$top/none", '--keystore', 'elsewhere:/x', '--keystore-location', "$top/none_keys");
}
($rc, $out, $err) = run_program([ 'pgx_rcvall', '--slot', 'x', '-D', $data ]);
is($rc, 1, '--slot without --standby: exit code');
like($err, qr/option --standby is necessary for option --slot/, '--slot without --standby: message');
($rc, $out, $err) = run_program([ 'pgx_rcvall', '--ssh-option', '-p', '-D', $data ]);
is($rc, 1, '--ssh-option without --standby: exit code');
like($err, qr/option --standby is necessary for option --ssh-option/, '--ssh-option without --standby: message');

done_testing();
