# 145_memory.pl
#		What would be in a core dump: the memory of every process of a primary and a standby,
#		without the mappings that are kept out of core dumps, has neither a passphrase nor the
#		keystore's key nor a master key.  It is read from /proc, so no debugger is needed.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PgxTde;
use Test::More;

my @passphrases = map { "$_ secret of test 145: nightingale" } qw(first second third wrong fourth);
my ($first, $second, $third, $wrong, $fourth) = @passphrases;

# The helper is built by "make check"; not if only tests on servers are asked for.
my $print_keys = "$ENV{PGX_BUILDDIR}/tests/t/print_keys";
system_or_bail('make', '-s', '-C', $ENV{PGX_BUILDDIR}, 'tests/t/print_keys') if !-x $print_keys;

# Every key that a keystore and a key table have, "KIND ID" => bytes.  Not by run_program(), which would
# print them.
sub keys_of
{
	my ($node, $passphrase) = @_;
	my ($in, $out, $err) = ("$passphrase\n", '', '');
	IPC::Run::run([ $print_keys, keystore_file($node), keytable_file($node) ], '<', \$in, '>', \$out, '2>', \$err)
	  or die "print_keys failed: $err";
	return map { /^(\S+) ([0-9a-f]+)$/ ? ($1 => pack('H*', $2)) : () } split /\n/, $out;
}

# What of a process's memory holds a needle: in mappings that a core dump has, and in those that are
# kept out of it.  Returns two lists, or nothing if memory cannot be read here.
sub memory_with
{
	my ($pid, $needles) = @_;
	my (@maps, %in, %out);

	open my $smaps, '<', "/proc/$pid/smaps" or return;
	while (<$smaps>)
	{
		push @maps, { from => hex $1, to => hex $2, readable => $3 eq 'r', name => $4 }
		  if /^([0-9a-f]+)-([0-9a-f]+) (.)\S* \S+ \S+ \d+\s*(.*)$/;
		$maps[-1]{dumped} = !/ dd( |$)/ if /^VmFlags:/;
	}
	close $smaps;
	open my $mem, '<:raw', "/proc/$pid/mem" or return;
	foreach my $map (grep { $_->{readable} && $_->{name} !~ /^\[v/ } @maps)
	{
		sysseek $mem, $map->{from}, 0 or next;
		my $content = '';
		while (length $content < $map->{to} - $map->{from})
		{
			last if !sysread $mem, $content, $map->{to} - $map->{from} - length $content, length $content;
		}
		foreach my $name (grep { index($content, $needles->{$_}) >= 0 } keys %$needles)
		{
			($map->{dumped} ? \%in : \%out)->{"$name in " . ($map->{name} || 'anonymous memory')} = 1;
		}
	}
	return ([ sort keys %in ], [ sort keys %out ]);
}

# ---- the life ----------------------------------------------------------------------------------------

my $primary = new_primary(
	'primary',
	checksums => 1,
	open => 'none',
	start => 0,
	passphrase => $first,
	conf => "wal_keep_size = '1GB'");
my ($rc, $out, $err) = shim_start($primary, $wrong);
is($rc, 2, 'wrong passphrase');
($rc, $out, $err) = shim_start($primary, $first);
is($rc, 0, 'started with the passphrase');

my $dir = tablespace_dir($primary, 'enc');
$primary->safe_psql('postgres', 'CREATE EXTENSION pgx_tde');
rotate($primary);
$primary->safe_psql('postgres',
	"CREATE TABLESPACE enc LOCATION '$dir' WITH (tablespace_encryption_algorithm = 'AES256')");
$primary->safe_psql('postgres', 'CREATE TABLE t TABLESPACE enc AS SELECT g, md5(g::text) AS x FROM generate_series(1, 20000) g');

my $standby = new_standby($primary, 'standby', passphrase => $first);
$standby->start;
rotate($primary, 2);

# A session that is given a passphrase holds it while it lives; these end at once.
$primary->safe_psql('postgres', "SELECT pgx_set_keystore_passphrase('$first', '$second')");
like(query_fails($primary, 'postgres', "SELECT pgx_set_master_key('$wrong')"),
	qr/passphrase is wrong/, 'wrong one by SQL');
caught_up($primary, $standby);
is_same_file(keystore_file($primary), keystore_file($standby), 'the standby has the change');

# The passphrase changed by the command, while no server uses the keystore.
$standby->stop;
$primary->stop;
foreach my $node ($primary, $standby)
{
	($rc, $out, $err) =
	  pgx_keystore([ 'passwd', '-v', '--kdf-cost', 10, keystore_file($node) ], "$second\n$third\n");
	is($rc, 0, 'passphrase changed by the command, on the ' . $node->name);
}
auto_open($primary, $third);
$primary->start;
($rc, $out, $err) = shim($standby, [ '--keystore-passphrase', '-o', '-c pgx_tde.keystore_passphrase_command=', 'start' ],
	"$third\n");
is($rc, 0, 'standby started with the passphrase');
is(status_of($primary, 'opened_by'), 'auto-open', 'primary opened by auto-open');
is(status_of($standby, 'opened_by'), 'pg_ctl', 'standby opened by pg_ctl');

# Changed on the client's side while the servers run, and then a new KSK.
my $former = { keys_of($primary, $third) }->{ksk0};
($rc, $out, $err) =
  pgx_keystore([ 'passwd', '--kdf-cost', 10, '-d', $primary->connstr('postgres') ], "$third\n$fourth\n");
is($rc, 0, 'passphrase changed on the running server');
($rc, $out, $err) = pgx_keystore([ 'rekey', '-d', $primary->connstr('postgres') ], "$fourth\n\n");
is($rc, 0, 'rekey of the running server');

rotate($primary);
$primary->safe_psql('postgres', 'UPDATE t SET x = md5(x) WHERE g % 3 = 0');
my $session = $primary->background_psql('postgres');
# It has used the keys, and made one.
$session->query_safe('SELECT pgx_set_master_key()');
$session->query_safe('SELECT count(*) FROM t');
caught_up($primary, $standby);

# ---- memory ----------------------------------------------------------------------------------------------

my %keys = keys_of($primary, $fourth);
isnt($keys{ksk0}, $former, 'it has another KSK');
my @master = grep { /^master/ } sort keys %keys;
is("@master", 'master1 master2 master3 master4 master5 master6', 'every master key of this life');

SKIP:
{
	my %secret = ('former ksk' => $former, (map { $_ => $keys{$_} } 'ksk0', @master),
		map { ("passphrase $_" => $passphrases[$_]) } 0 .. $#passphrases);
	my $main = is_running($primary);
	skip 'the memory of other processes cannot be read here', 4 if !memory_with($main, \%secret);

	# All of both servers: postmaster, backend, startup process, checkpointer and so on.
	my ($processes, @dumped, %kept_out) = (0);
	foreach my $postmaster ($main, is_running($standby))
	{
		foreach my $pid ($postmaster, split ' ', slurp_raw("/proc/$postmaster/task/$postmaster/children"))
		{
			my ($in, $kept) = memory_with($pid, \%secret) or next;
			(my $title = slurp_raw("/proc/$pid/cmdline") // '') =~ s/\0.*//s;
			push @dumped, map { "$title: $_" } @$in;
			$kept_out{$pid} = "@$kept";
			$processes++;
		}
	}
	cmp_ok($processes, '>=', 10, "memory of $processes server processes");
	is_deeply(\@dumped, [], 'neither KSK nor master key nor passphrase would be in a core dump');
	like($kept_out{$main}, qr/^ksk0 in \S+/, 'control: the KSK is found where it is kept out of core dumps');
	unlike(join(' ', values %kept_out), qr/master|passphrase|former/, 'and nothing else is');
}

$session->quit;
$standby->stop;
$primary->stop;
done_testing();
