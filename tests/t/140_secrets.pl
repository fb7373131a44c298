# 140_secrets.pl
#		A full life of a keystore, by the commands and by the SQL forms without a
#		passphrase, with every statement logged; then passphrases, the keystore's key, every
#		master key and every data key are looked for in everything that it left behind.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use MIME::Base64;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PgxTde;
use Test::More;
use Time::HiRes qw(usleep);

# "make check" builds it, but only these tests may have been asked for.
my $print_keys = "$ENV{PGX_BUILDDIR}/tests/t/print_keys";
system_or_bail('make', '-s', '-C', $ENV{PGX_BUILDDIR}, 'tests/t/print_keys') if !-x $print_keys;

my ($first, $second) = ('the first phrase 7QzVb', 'what replaced it 9KxWd');

# ---- processes -------------------------------------------------------------------------------

# Environment and arguments of every process of ours that was ever seen.
my %seen;
my $processes = 0;

sub look_at_processes
{
	foreach my $dir (glob '/proc/[0-9]*')
	{
		my @stat = stat $dir;
		next if !@stat || $stat[4] != $>;
		foreach my $what (qw(environ cmdline))
		{
			my $content = slurp_raw("$dir/$what");
			next if !defined $content || $content eq '';
			$seen{$content} = 1;
			$processes++ if $what eq 'cmdline';
		}
	}
	return;
}

# Run a program, with a look at the processes again and again until it has ended.
sub watched
{
	my ($argv, $lines) = @_;
	my ($in, $out, $err) = ($lines, '', '');
	my $run = IPC::Run::start($argv, '<', \$in, '>', \$out, '2>', \$err, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));

	while ($run->pumpable)
	{
		look_at_processes();
		$run->pump_nb;
		usleep(2000);
	}
	$run->finish;
	print $out, $err;
	is($? >> 8, 0, join(' ', map { s{^.*/}{}r } @$argv[0 .. 1]));
	return;
}

sub start_by_shim
{
	my ($node, $passphrase) = @_;
	local %ENV = $node->_get_env(PGAPPNAME => undef);
	watched(
		[
			"$ENV{PGX_SHIM_DIR}/pg_ctl", '--keystore-passphrase', '-w', '-D', $node->data_dir, '-l', $node->logfile,
			'-o', '--cluster-name=' . $node->name, 'start'
		],
		"$passphrase\n");
	$node->_update_pid(-1);
	return;
}

sub opened_by_shim
{
	my ($node, $passphrase) = @_;
	start_by_shim($node, $passphrase);
	is(status_of($node, 'status, opened_by'), 'open|pg_ctl', $node->name . ' is open');
	return;
}

# The keys as "KIND NUMBER" => bytes.  Not by run_program(), which would print them.
sub keys_of
{
	my ($node, $passphrase) = @_;
	my ($in, $out, $err, %keys) = ("$passphrase\n", '', '');
	IPC::Run::run([ $print_keys, keystore_file($node), keytable_file($node) ], '<', \$in, '>', \$out, '2>', \$err)
	  or die "could not print the keys: $err";
	$keys{"$1 $2"} = pack('H*', $3) while $out =~ /^([a-z]+)(\d+) ([0-9a-f]{32,})$/mg;
	return %keys;
}

# ---- the life ----------------------------------------------------------------------------------

my $primary = new_primary(
	'primary',
	archive => 1,
	checksums => 1,
	start => 0,
	open => 'none',
	master_key => 0,
	conf => "wal_keep_size = '1GB'\nautovacuum = off\nlog_statement = all\nlog_min_duration_statement = 0\n"
	  . "log_replication_commands = on\nlog_connections = on\nlog_min_messages = debug1\n");
my $rows = 0;

sub more
{
	$rows++;
	$primary->safe_psql('postgres', "CREATE TABLE t$rows TABLESPACE enc AS
		SELECT g, 'MARK_$rows' || g AS x FROM generate_series(1, 3000) g");
	return;
}

watched([ 'pgx_keystore', 'create', '--kdf-cost', 10, keystore_file($primary) ], "$first\n");
start_by_shim($primary, $first);
$primary->safe_psql('postgres', 'CREATE EXTENSION pgx_tde');
is(status_of($primary, 'status, opened_by'), 'open|pg_ctl', 'primary is open');
$primary->safe_psql('postgres', 'SELECT pgx_set_master_key()');
my $dir = tablespace_dir($primary, 'enc');
$primary->safe_psql('postgres',
	"CREATE TABLESPACE enc LOCATION '$dir' WITH (tablespace_encryption_algorithm = 'AES256')");
more();
rotate($primary);

my $standby = new_standby($primary, 'standby', open => 'none');
opened_by_shim($standby, $first);
rotate($primary);
more();
caught_up($primary, $standby);
look_at_processes();

# A new passphrase, without a server that could log it.
$_->stop foreach $standby, $primary;
my $before = slurp_raw(keystore_file($primary));
watched([ 'pgx_keystore', 'passwd', '--kdf-cost', 10, keystore_file($primary) ], "$first\n$second\n");
isnt(slurp_raw(keystore_file($primary)), $before, 'the passphrase has been changed');
watched([ 'pgx_keystore', 'copy', '--servers', PgxTde::servers_file(), '--from', 'primary', '--to', 'standby' ], '');
my ($rc) = shim_start($primary, $first);
is($rc, 2, 'the first passphrase no longer opens');
opened_by_shim($primary, $second);
opened_by_shim($standby, $second);
rotate($primary);
more();
caught_up($primary, $standby);

# Auto-open.
$_->stop foreach $standby, $primary;
foreach my $node ($primary, $standby)
{
	watched([ 'pgx_keystore', '--enable-auto-open', keystore_file($node) ], "$second\n");
	$node->start;
	is(status_of($node, 'opened_by'), 'auto-open', $node->name . ' is opened by auto-open');
}
rotate($primary);
more();
caught_up($primary, $standby);
same_content($primary, $standby, ['postgres'], 'the standby has followed');
is_same_file(keystore_file($primary), keystore_file($standby), 'with its keystore too');

foreach my $format (qw(plain tar))
{
	my $to = $primary->backup_dir . "/$format";
	command_ok(
		[
			'pg_basebackup', '-h', $primary->host, '-p', $primary->port, '-D', $to, '-F', $format,
			$format eq 'plain' ? ('-T', "$dir=${to}_enc") : ()
		],
		"base backup, $format");
}
my $last = finish_segment($primary);
more();
$primary->poll_query_until('postgres', "SELECT last_archived_wal >= '$last' FROM pg_stat_archiver")
  or die 'the last segment was not archived';
look_at_processes();

# ---- what is looked for ---------------------------------------------------------------------------

my %secrets = ('first passphrase' => $first, 'second passphrase' => $second, keys_of($primary, $second));
is_deeply([ sort grep { /master/ } keys %secrets ], [ map { "master $_" } 1 .. 6 ], 'six master keys are known');
ok(exists $secrets{'ksk 0'}, 'so is the key of the keystore');
cmp_ok(scalar(grep { /^data/ } keys %secrets), '>=', 2, 'and data keys, of the tablespace and of WAL');
my %needles = map { forms_of($_, $secrets{$_}) } keys %secrets;

# Every secret, in each form, as it could stand in the middle of something else.
my $planted = work_dir() . '/planted';
mkdir $planted;
foreach my $secret (sort keys %secrets)
{
	my $bytes = $secrets{$secret};
	my $hex = unpack('H*', $bytes);
	my @texts = ("some $bytes text", "0x${hex}00", '0x' . uc($hex) . '00',
		map { encode_base64(('#' x $_) . $bytes . '###', '') } 0 .. 2);
	my @missed = grep {
		write_file("$planted/file", $texts[$_]);
		!files_with({ forms_of($secret, $bytes) }, $planted)
	} 0 .. $#texts;
	is("@missed", '', "control: the search finds it planted in each form: $secret");
}
unlink "$planted/file";

# ---- and where ----------------------------------------------------------------------------------------

# A server's directory has its data, tablespaces, backups and archive below it.
my @places = (
	(map { $_->basedir, $_->logfile, keystore_dir($_) } $primary, $standby),
	(getpwuid $>)[7] . '/.pgx');
my $control = $primary->archive_dir . '/planted';
write_file($control, "key $secrets{'master 3'}");
is_deeply([ files_with(\%needles, @places) ], ["$control: master 3 raw"],
	'nothing in data directories, tablespaces, base backups, archive, logs and keystores but what was planted');
unlink $control;

my $files = files_below(@places);
cmp_ok($files, '>', 3000, "$files files were searched");
foreach my $node ($primary, $standby)
{
	isnt(scalar files_with({ log => 'LOG:' }, $node->logfile), 0, 'control: there is a log of ' . $node->name);
}
like(slurp_file($primary->logfile), qr/LOG:  statement: SELECT pgx_set_master_key\(\)/, 'statements are in it');
isnt(scalar files_with({ wal => "\x10\xd1" }, $primary->archive_dir), 0, 'control: there is WAL in the archive');

my $proc = work_dir() . '/processes';
write_file($proc, join("\n", sort keys %seen));
is_deeply([ files_with(\%needles, $proc) ], [], 'nothing in the environment and the arguments of any process');
my %control = (
	shim => "pg_ctl\0--keystore-passphrase",
	passwd => "pgx_keystore\0passwd",
	server => "postgres\0-D",
	startup => 'postgres: standby: startup',
	environment => 'PGX_SHIM_DIR=');
is_deeply([ files_with(\%control, $proc) ], [ map { "$proc: $_" } sort keys %control ],
	"control: shim, command and servers are among the $processes seen");

# ---- core dumps ------------------------------------------------------------------------------------------

SKIP:
{
	skip 'gcore is not installed', 8 if system('command -v gcore >/dev/null 2>&1') != 0;
	my $session = $primary->background_psql('postgres');
	# It has used the keys: it has made one, and read and written with them.
	my $backend = $session->query_safe('SELECT pg_backend_pid()');
	$session->query_safe('SELECT pgx_set_master_key()');
	$session->query_safe(
		"CREATE TABLE core TABLESPACE enc AS SELECT 'MARK_core' || g AS x FROM generate_series(1, 3000) g");
	$session->query_safe('CHECKPOINT; SELECT count(*) FROM t1; SELECT * FROM pgx_keystore_status');
	my %now = keys_of($primary, $second);
	ok(exists $now{'master 7'}, 'there is a new key');

	# Data keys are in the contexts of the cipher, in the memory of each process, as documented.
	my %absent = ('first passphrase' => $first, 'second passphrase' => $second);
	$absent{$_} = $now{$_} foreach grep { !/^data/ } keys %now;
	%needles = map { forms_of($_, $absent{$_}) } keys %absent;
	my %pids = (
		backend => $backend,
		postmaster => is_running($primary),
		startup => $standby->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'}));
	foreach my $name (sort keys %pids)
	{
		my $core = work_dir() . "/core_$name";
		my ($status, $out, $err) = run_program([ 'gcore', '-o', $core, $pids{$name} ]);
		skip 'gcore may not look into processes here', 2 if "$out$err" =~ /Operation not permitted/;
		isnt(scalar files_with({ mark => 'shared_preload_libraries' }, "$core.$pids{$name}"), 0,
			"control: there is a core of the $name");
		is_deeply([ files_with(\%needles, "$core.$pids{$name}") ], [], "no secret in the core of the $name");
		unlink "$core.$pids{$name}";
	}
	isnt(slurp_raw(keystore_file($primary)), undef, 'the server is still there');
	$session->quit;
}

$_->stop foreach $standby, $primary;
done_testing();
