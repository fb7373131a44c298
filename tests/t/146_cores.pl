# 146_cores.pl
#		What a core dump of each command would hold, after it has derived a key: no passphrase; before it renames a
#		file or executes a program, and at its end: no recovery key, KSK or master key either.
#		tests/t/core_at.c writes it down from inside; the commands forbid real ones.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PgxBackup;
use PgxTde;
use Test::More;

my $first = 'the first of test 146: whippoorwill';
my $second = 'the second of test 146: kingfisher';
my $wrong = 'the wrong one of test 146: cuckoo';
my $label = 'label of test 146: nuthatch';
my @fast = ('--kdf-cost', 10);

my $object = "$ENV{PGX_BUILDDIR}/tests/t/.libs/core_at.so";
system_or_bail('make', '-s', '-C', $ENV{PGX_BUILDDIR}, 'tests/t/core_at.la') if !-e $object;
my $print_keys = "$ENV{PGX_BUILDDIR}/tests/t/print_keys";
system_or_bail('make', '-s', '-C', $ENV{PGX_BUILDDIR}, 'tests/t/print_keys') if !-x $print_keys;

my $cores = work_dir() . '/cores';
mkdir $cores, 0700;
my %secret = (first => $first, second => $second, wrong => $wrong);

# Every KSK and master key that a keystore has ever had becomes a secret.
sub learn
{
	my ($file, $passphrase, $name) = @_;
	my ($in, $out, $err) = ("$passphrase\n", '', '');
	IPC::Run::run([ $print_keys, $file ], '<', \$in, '>', \$out, '2>', \$err) or die "print_keys failed: $err";
	my $known = 0;
	while ($out =~ /^((?:ksk|master)\d+) ([0-9a-f]{64})$/mg)
	{
		$secret{"$name $1"} = pack('H*', $2);
		$known++;
	}
	cmp_ok($known, '>=', 2, "keys of $name are known");
	return;
}

# What is run, with its dumps taken; %dumps: how many of each program at each kind of moment.
my %dumps;
sub watched
{
	my ($argv, $lines, $rc, $name, %env) = @_;
	my ($got, $out, $err) = run_program($argv, stdin => $lines, env => { LD_PRELOAD => $object, CORE_AT => $cores, %env });
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($got, $rc, $name);
	return $out;
}

sub keystore_command
{
	my ($args, $lines, $rc) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return watched([ 'pgx_keystore', @$args ], $lines, $rc // 0, 'pgx_keystore ' . join(' ', map { s{^.*/}{}r } @$args));
}

# After each part, so that not all has to be kept.  While a key is derived, it may be on the stack for as long as
# the function runs; a passphrase may not.  The search is for the bytes; nothing prints keys.
sub search
{
	my ($part) = @_;
	my %text = map { ($_ => $secret{$_}) } grep { /^(?:first|second|wrong)$/ } keys %secret;
	my @files = map { "$cores/$_" } grep { /\.\d+\.\d+\./ } slurp_dir($cores);
	my @hits = (
		files_with(\%text, @files), files_with(\%secret, grep { /(?:rename|exec|end)$/ } @files));
	is_deeply(\@hits, [], "$part: no secret in what a core dump would hold");
	foreach my $file (@files)
	{
		my ($program, $where) = $file =~ m{([^/]*)\.\d+\.\d+\.(\w+)$};
		$dumps{"$program $where"}++;
		unlink $file;
	}
	return;
}

# ---- pgx_keystore on a file -------------------------------------------------------------------------------

my $dir = work_dir() . '/file';
my $ks = "$dir/keystore.ks";
mkdir $_, 0700 foreach $dir, "$dir.copy", "$dir.backup";
keystore_command([ 'create', @fast, $ks ], "$first\n");
learn($ks, $first, 'created');
keystore_command([ 'info', '--open', $ks ], "$first\n");
keystore_command([ 'info', '--open', $ks ], "$wrong\n", 2);
keystore_command([ 'slot', 'label', '--slot', 1, '--label', $label, $ks ], "$first\n");
keystore_command([ 'rotate', $ks ], "$first\n");
keystore_command([ 'keys', $ks ], "$first\n");
# Control: what is no secret, and in memory only while the keystore is, would be found.
isnt(scalar files_with({ label => $label }, $cores), 0, 'control: the label of a slot is found');
isnt(scalar files_with({ path => $ks }, $cores), 0, 'control: so is the path');
keystore_command([ 'passwd', @fast, $ks ], "$first\n$second\n");
keystore_command([ 'passwd', @fast, $ks ], "$second\n$first\n");
keystore_command([ 'slot', 'add', '--label', 'another', @fast, $ks ], "$first\n$second\n");
keystore_command([ 'slot', 'change', '--slot', 2, @fast, $ks ], "$first\n$second\n");
keystore_command([ 'slot', 'list', $ks ], '');
my $recovery = keystore_command([ 'recovery-key', 'add', '--stdout', @fast, $ks ], "$first\n");
chomp($secret{recovery} = $recovery);
keystore_command([ 'slot', 'remove', '--slot', 2, $ks ], "$secret{recovery}\n");
learn($ks, $first, 'rotated');
keystore_command([ 'get-key', '--purpose', 'test', '--key-id', 2, $ks ], "$first\n");
keystore_command([ '--enable-auto-open', $ks ], "$first\n");
keystore_command([ 'backup', $ks, '--to', "$dir.backup" ], "$first\n");
keystore_command([ 'verify', '--open', $ks ], "$first\n");
keystore_command([ 'copy', '--from', $ks, '--to', "$dir.copy" ], '');
keystore_command([ 'compare', $ks, "$dir.copy/keystore.ks" ], '');
keystore_command([ 'rekey', '--force', $ks ], "$first\n\n");
learn($ks, $first, 'rekeyed');
keystore_command([ 'destroy', 1, '--force', $ks ], "$first\n");
search('pgx_keystore');

# ---- initdb, pg_ctl, pgx_keystore on a server -----------------------------------------------------------------

my $node = backup_primary('primary', passphrase => $first);
my $file = keystore_file($node);
my @d = ('-d', $node->connstr('postgres'));
learn($file, $first, 'the server');
keystore_command([ 'passwd', @fast, @d ], "$first\n$second\n");
keystore_command([ 'rekey', @d ], "$second\n\n");
keystore_command([ 'exec', '-D', $node->data_dir, '--', 'true' ], "$second\n");
set_passphrase($node, $second);
learn($file, $second, 'the server, rekeyed');
search('pgx_keystore -d and exec');

$node->stop;
{
	local %ENV = ($node->_get_env(PGAPPNAME => undef), LD_PRELOAD => $object, CORE_AT => $cores);
	watched(
		[
			"$ENV{PGX_SHIM_DIR}/pg_ctl", '-w', '-D', $node->data_dir, '-l', $node->logfile, '-o',
			'-c pgx_tde.keystore_passphrase_command=', '--keystore-passphrase', 'start'
		],
		"$second\n", 0, 'pg_ctl --keystore-passphrase start');
}
$node->_update_pid(-1);
is(status_of($node, 'opened_by'), 'pg_ctl', 'opened by pg_ctl');
search('pg_ctl');

my $new = work_dir() . '/new';
watched(
	[
		"$ENV{PGX_SHIM_DIR}/initdb", '-N', '--no-locale', '--encrypt', "--keystore-location=$new.keys",
		'--keystore-passphrase', "$new.data"
	],
	"$first\n", 0, 'initdb --encrypt');
learn("$new.keys/keystore.ks", $first, 'initdb');
search('initdb');

# ---- backup and recovery -------------------------------------------------------------------------------------------

fill_tablespaces($node, 'MARK146');
{
	local %ENV = $node->_get_env();
	delete @ENV{qw(PGHOST PGPORT PGDATABASE PGUSER PGDATA)};
	watched([ 'pgx_dmpall', '-D', $node->data_dir, '--compress', 'lz4', '--keystore-passphrase' ], "$second\n", 0, 'pgx_dmpall --compress');
	archived($node);
	search('pgx_dmpall');
	watched([ 'pgx_rcvall', '--check', '-B', area_dir($node), '--keystore-passphrase' ], "$second\n", 0, 'pgx_rcvall --check');
	lose($node);
	watched([ 'pgx_rcvall', '-D', $node->data_dir, '-B', area_dir($node), '--keystore-passphrase' ], "$second\n", 0, 'pgx_rcvall');
	search('pgx_rcvall');
}

# ---- the whole cluster -------------------------------------------------------------------------------------------

my $plain = PostgreSQL::Test::Cluster->new('plain');
$plain->init;
$plain->append_conf('postgresql.conf', "shared_preload_libraries = 'pgx_tde'\npgx_tde.keystore_location = '$new.keys'");
my @encrypt = ('pgx_encrypt', '-N', '-D', $plain->data_dir);
watched([ @encrypt ], "$first\n", 0, 'pgx_encrypt');
watched([ @encrypt, '--check' ], "$first\n", 0, 'pgx_encrypt --check');
learn("$new.keys/keystore.ks", $first, 'pgx_encrypt');
search('pgx_encrypt');

note "$_: $dumps{$_}" foreach sort keys %dumps;
my %programs;
foreach my $key (keys %dumps)
{
	my ($program, $where) = split / /, $key;
	$programs{$program}{$where} = 1;
}
is_deeply([ sort keys %programs ], [ sort qw(pgx_keystore pgx_dmpall pgx_rcvall pgx_encrypt pg_ctl initdb) ], 'all commands were looked into');
ok($programs{$_}{derived}, "$_ has been looked into right after it derived a key") foreach sort keys %programs;
done_testing();
