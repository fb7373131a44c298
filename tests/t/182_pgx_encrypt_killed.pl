# 182_pgx_encrypt_killed.pl
#		pgx_encrypt is killed, at chosen calls and at any time, encrypting and decrypting, also
#		while it goes on after it was killed.  The same command always gets to the end, no server starts
#		before, and afterwards every byte is where it was.
#
# PGX_CRASH_ROUNDS is how many kills there are at any time, and how many at chosen calls for each direction.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use File::Basename;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PgxCommand qw(run_cmd);
use PgxCrash;
use PgxPages;
use PgxTde;
use Test::More;
use Time::HiRes qw(time);

my $rounds = rounds();
my $object = "$ENV{PGX_BUILDDIR}/tests/t/.libs/kill_at.so";
system_or_bail('make', '-s', '-C', $ENV{PGX_BUILDDIR}, 'tests/t/kill_at.la') if !-e $object;

# ---- a small cluster, and a copy of it ------------------------------------------------------------

my $node = PostgreSQL::Test::Cluster->new('primary');
PgxTde::prepare_node($node);
mkdir keystore_dir($node), 0700;
$node->init(allows_streaming => 1, extra => [ '-k', '--no-locale', '-E', 'UTF8', '--wal-segsize=1' ]);
$node->append_conf('postgresql.conf',
	"shared_preload_libraries = 'pgx_tde'\nautovacuum = off\nallow_in_place_tablespaces = on\nwal_keep_size = '4MB'\nmax_wal_size = '4MB'\nmin_wal_size = '2MB'");
configure_node($node);
create_keystore($node, $PASSPHRASE);
$node->start;
my $data = $node->data_dir;
my $place = tablespace_dir($node, 'place');
$node->safe_psql('postgres', $_) foreach "CREATE TABLESPACE place LOCATION '$place'", q{CREATE TABLESPACE inplace LOCATION ''};
$node->safe_psql('postgres', q{
	CREATE TABLE t (id int PRIMARY KEY, x text);
	INSERT INTO t SELECT g, 'MARK_row' || g FROM generate_series(1, 20000) g;
	CREATE TABLE elsewhere TABLESPACE place AS SELECT g, 'MARK_elsewhere' || g AS x FROM generate_series(1, 3000) g;
	CREATE INDEX ON elsewhere (x) TABLESPACE inplace;
	CREATE UNLOGGED TABLE u AS SELECT g, 'MARK_unlogged' || g AS x FROM generate_series(1, 1000) g});
my $known = fingerprint($node, 'postgres');
$node->stop;
my $saved = work_dir() . '/saved';
mkdir $saved;
system_or_bail('cp', '-a', $data, "$saved/data");
system_or_bail('cp', '-a', $place, "$saved/place");

sub restore
{
	my ($from) = @_;
	system_or_bail('rm', '-rf', $data, $place);
	system_or_bail('cp', '-a', "$from/data", $data);
	system_or_bail('cp', '-a', "$from/place", $place);
	return;
}

# Every byte of relation files and of WAL up to its end, as path => content.
sub content
{
	return { map { $_ => slurp_raw($_) } relation_files($data) };
}
my $plain = content();
cmp_ok(scalar(keys %$plain), '>', 300, 'there are many files: ' . keys %$plain);

# The command; with a number for KILL_AT it is killed at that call.  Returns exit code (-9: killed), output, error.
my $log = work_dir() . '/calls';
sub convert
{
	my ($args, $at) = @_;
	return run_cmd(
		[ 'pgx_encrypt', '-D', $data, '-N', @$args ],
		stdin => "$PASSPHRASE\n",
		env => defined $at ? { LD_PRELOAD => $object, KILL_AT => $at, KILL_AT_LOG => $log } : {});
}

# ---- which calls there are ------------------------------------------------------------------------

# Name and path of each call of a run that nothing happens to, by which the disk is changed.
sub calls_of
{
	my (@args) = @_;
	my ($rc) = convert([ '--no-sync', @args ], 0);
	die 'pgx_encrypt failed' if $rc != 0;
	return map { [ /^\d+ (\S+) (.*)$/ ] } split /\n/, slurp_raw($log);
}

# The numbers of calls where something new begins or ends: all that concern the journal and the keys, the first and the
# last of each kind, and some in between.
sub chosen
{
	my ($count, @calls) = @_;
	my (%first, %last, %at);
	foreach my $i (0 .. $#calls)
	{
		my ($name, $path) = @{ $calls[$i] };
		my $kind = $name . ($path =~ m{pg_wal/} ? ' wal' : '');
		$at{ $i + 1 } = 1 if $path =~ m{pgx_tde};
		$first{$kind} //= $i + 1;
		$last{$kind} = $i + 1;
	}
	my @fixed = sort { $a <=> $b } keys %{ { %at, map { $_ => 1 } values %first, values %last } };
	# Should they be too many for a quick look, some of them at random.
	@fixed = sort { $a <=> $b } @fixed[ grep { rand() < $count / @fixed } 0 .. $#fixed ] if @fixed > $count;
	push @fixed, 1 + int rand @calls while @fixed < $count;
	return @fixed;
}

# ---- after a kill -----------------------------------------------------------------------------------

my %seen;

# No server starts on what is half converted.  (Without the journal the data directory is one or the other.)
sub no_server
{
	my ($name) = @_;
	if (!-e "$data/pgx_tde/conversion")
	{
		$seen{'without a journal'}++;
		return 1;
	}
	$seen{'with a journal'}++;
	return 1 if $seen{'starts refused'} && rand() > 0.2;
	$seen{'starts refused'}++;
	my $text = start_fails($node);
	return 1 if $text =~ /FATAL:  data directory "[^"]+" has not been encrypted or decrypted to the end/;
	diag("$name: $text");
	return 0;
}

# Go on until it is done, killed at more calls or not; true if it got there.
sub gets_there
{
	my ($name, $args, $done) = @_;
	for my $try (1 .. 3)
	{
		last if $seen{'killed again'} && rand() > 0.4;
		my ($rc) = convert($args, 1 + int rand 300);
		last if $rc == 0;
		$seen{'killed again'}++ if $rc == -9;
		return 0 if $rc != -9 || !no_server($name);
	}
	my ($rc, $out, $err) = convert($args);
	return 1 if $rc == 0 && $out =~ /^(?:the data directory has been $done|there is nothing to \w+)$/m;
	diag("$name: exit code $rc: $out$err");
	return 0;
}

# All is encrypted, by the look of it and by the key.
sub is_encrypted
{
	my ($name) = @_;
	my ($rc, $out) = run_cmd([ 'pgx_encrypt', '-D', $data, '--check' ], stdin => "$PASSPHRASE\n");
	my ($pages, @clear) = plain_files(relation_files($data));
	my ($wal, @clear_wal) = plain_wal("$data/pg_wal");
	my @left = grep { /pgsql_tmp\.pgx|conversion|\.tmp$/ } files_below($data, $place);
	return 1 if $rc == 0 && !@clear && !@clear_wal && !@left && $pages > 1000 && $wal > 0;
	diag("$name: check $rc; in the clear: @clear @clear_wal; left: @left; $out");
	return 0;
}

# All is plain, byte by byte as before.
sub is_plain
{
	my ($name) = @_;
	my $now = content();
	my @different = grep { ($now->{$_} // '') ne ($plain->{$_} // '') } sort keys %{ { %$now, %$plain } };
	my @left = grep { /pgsql_tmp\.pgx|conversion|\.tmp$|pgx_tde\/keys/ } files_below($data, $place);
	return 1 if !@different && !@left;
	diag("$name: different: @different; left: @left");
	return 0;
}

sub serves
{
	my ($name) = @_;
	$node->start;
	my $now = fingerprint($node, 'postgres');
	my $unlogged = $node->safe_psql('postgres', 'SELECT count(*) FROM u');
	$node->stop;
	$seen{'servers started'}++;
	return 1 if $now eq $known && $unlogged eq '1000';
	diag("$name: content differs: $now, $unlogged");
	return 0;
}

# One direction: where it starts from, what is run, what it must come to.
my $encrypted = work_dir() . '/encrypted';
my %directions = (
	encrypt => { from => $saved, args => [], done => 'encrypted', check => \&is_encrypted },
	decrypt => { from => $encrypted, args => ['--decrypt'], done => 'decrypted', check => \&is_plain });

sub survives
{
	my ($name, $direction, $kill) = @_;
	restore($direction->{from});
	my $rc = $kill->();
	return 0 if !no_server($name) || !gets_there($name, $direction->{args}, $direction->{done});
	return 0 if !$direction->{check}->($name);
	return !$seen{'servers started'} || rand() < 0.15 ? serves($name) : 1;
}

# ---- chosen calls -----------------------------------------------------------------------------------

restore($saved);
my %calls = (encrypt => [ calls_of() ]);
ok(is_encrypted('undisturbed'), 'undisturbed: encrypted');
mkdir $encrypted;
system_or_bail('cp', '-a', $data, "$encrypted/data");
system_or_bail('cp', '-a', $place, "$encrypted/place");
$calls{decrypt} = [ calls_of('--decrypt') ];
ok(is_plain('undisturbed'), 'undisturbed: decrypted');
cmp_ok(scalar(@{ $calls{$_} }), '>', 1000, "control: to $_ takes " . @{ $calls{$_} } . ' calls') foreach sort keys %calls;

foreach my $direction (sort keys %directions)
{
	my ($killed, @bad) = (0);
	my @numbers = chosen($rounds, @{ $calls{$direction} });
	foreach my $at (@numbers)
	{
		my $call = join ' ', map { basename $_ } @{ $calls{$direction}[ $at - 1 ] };
		my $kill = sub {
			my ($rc) = convert($directions{$direction}{args}, $at);
			$killed++ if $rc == -9;
		};
		push @bad, "$at: $call" if !survives("$direction, call $at ($call)", $directions{$direction}, $kill);
	}
	is(join("\n", @bad), '', "$direction: killed at " . @numbers . ' chosen calls');
	is($killed, scalar(@numbers), 'control: it was killed each time');
}

# ---- at any time, with several jobs, by somebody else -------------------------------------------------

my ($killed, $late, @bad) = (0, 0);
my $longest = 2;
foreach my $round (1 .. $rounds)
{
	my $direction = $directions{ $round % 2 ? 'encrypt' : 'decrypt' };
	my $kill = sub {
		my ($in, $out, $err) = ("$PASSPHRASE\n", '', '');
		my $began = time;
		my $run = IPC::Run::start([ 'pgx_encrypt', '-D', $data, '-j', 3, @{ $direction->{args} } ], \$in, \$out, \$err);
		$run->pump while length $in;
		random_sleep(0, $longest);
		$run->signal('KILL');
		$run->finish;
		if (($? & 127) == 9) { $killed++ }
		# Not so long next time.
		else                 { $late++; $longest = 0.8 * (time - $began) }
	};
	push @bad, "round $round" if !survives("round $round", $direction, $kill);
}
is(join("\n", @bad), '', "killed at any time, $rounds times");
cmp_ok($killed, '>', $rounds / 4, "control: it was killed $killed times, and done before $late times");
ok($seen{$_}, "control: $_, " . ($seen{$_} // 0) . ' times')
  foreach 'with a journal', $rounds < 20 ? () : 'without a journal', 'starts refused', 'killed again', 'servers started';

done_testing();
