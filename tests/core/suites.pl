#!/usr/bin/perl
#
# suites.pl
#		Run PostgreSQL's suites twice, on a plain server and with everything encrypted,
#		and print what differs.  Called by tests/core/run, which has prepared both.
#
# The judge is the plain server: a test that fails there too is no difference.  One that differs has
# to be in the list of expected differences, with its reason; else the exit code is 1.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename;
use File::Path qw(make_path remove_tree);
use Getopt::Long;
use TAP::Parser;

# Name, folder, and what is in it: a schedule, Perl tests, or tests that its Makefile names (REGRESS, TAP).
# "from" is the first major version that has it.
my @suites = (
	{ name => 'regress', dir => 'src/test/regress', schedule => 'parallel_schedule' },
	{ name => 'isolation', dir => 'src/test/isolation', schedule => 'isolation_schedule' },
	{ name => 'recovery', dir => 'src/test/recovery', tap => 1 },
	(map { { name => $_, dir => "src/bin/$_", tap => 1 } }
		  qw(pg_basebackup pg_verifybackup pg_rewind pg_checksums pg_ctl pg_waldump)),
	(map { { name => $_, dir => "src/bin/$_", tap => 1, from => 17 } } qw(pg_combinebackup pg_walsummary)),
	(map { { name => $_, dir => "contrib/$_", makefile => 1 } }
		  qw(amcheck pageinspect pg_prewarm pg_walinspect basic_archive)));

my %opt;
GetOptions(\%opt, 'list', map { "$_=s" } qw(major source out pgxs lib plain encrypted expected))
  or die "suites.pl: bad usage\n";
if ($opt{list})
{
	print map { $_->{name} . ($_->{from} ? " (from $_->{from} on)" : '') . "\n" } @suites;
	exit 0;
}
$| = 1;

my %path = (plain => "$opt{plain}:$ENV{PATH}", encrypted => "$opt{encrypted}:$ENV{PATH}");
# What the suites' makefiles say to Perl tests.
$ENV{PG_REGRESS} = "$opt{pgxs}/test/regress/pg_regress";
$ENV{REGRESS_SHLIB} = "$opt{lib}/regress.so";
$ENV{PG_TEST_PORT_DIR} = "$opt{out}/portlock";
$ENV{top_builddir} = $opt{source};
$ENV{enable_injection_points} = 'no';
@ENV{qw(TAR GZIP_PROGRAM LZ4 ZSTD)} = qw(tar gzip lz4 zstd);

my %only;						# suite => list of words, empty for all of it
foreach my $argument (@ARGV)
{
	my ($name, $words) = split /:/, $argument, 2;
	die "suites.pl: there is no suite \"$name\"\n" unless grep { $_->{name} eq $name } @suites;
	push @{ $only{$name} }, split /,/, $words // '';
}

# Run with a log; nothing hangs for ever.  Returns the wait status.
sub run_logged
{
	my ($mode, $log, $dir, $limit, @command) = @_;
	my $pid = fork // die "suites.pl: could not fork: $!\n";

	if ($pid == 0)
	{
		$ENV{PATH} = $path{$mode};
		chdir $dir or die "$dir: $!\n";
		open STDIN,  '<', '/dev/null'  or die "$!\n";
		open STDOUT, '>>', $log        or die "$log: $!\n";
		open STDERR, '>>', "$log.err"  or die "$log.err: $!\n";
		exec('timeout', '-k', '60', $limit, @command) or die "timeout: $!\n";
	}

	# Servers that outlive the test that killed them come to us; if nobody waits for them, they stay in the process
	# table, and 017_shm finds its server alive.
	while ((my $ended = waitpid -1, 0) != $pid)
	{
		die "suites.pl: could not wait for $command[0]: $!\n" if $ended < 0;
	}
	return $?;
}

# Name and result of a test, from a line of pg_regress: those of 15, and TAP of 16 and later.
sub regress_result
{
	my ($line) = @_;

	return ($1, $2 eq 'ok' ? 'ok' : 'failed')
	  if $line =~ /^(?:test\s+|\s+)(\S+)\s+\.\.\.\s+(ok|FAILED|failed \(ignored\))/;
	return ($2, $1 ? 'failed' : 'ok') if $line =~ /^(not )?ok \d+\s+[-+]\s+(\S+)/;
	return;
}

# What failed tests of pg_regress printed: mode => suite and test => text.  One that fails on the plain server too has to
# fail in the same way on the encrypted one.
my %output;

sub keep_output
{
	my ($mode, $suite, $test, $file) = @_;

	open my $fh, '<', $file or return;
	local $/;
	(my $text = <$fh> // '') =~ s{\Q$opt{out}/$mode\E}{...}g;
	$output{$mode}{"$suite $test"} = $text;
	return;
}

# pg_regress and pg_isolation_regress.  Results are put into %$results under the test's name.
sub run_regress
{
	my ($mode, $out, $suite, $results, @options) = @_;
	my $isolation = $suite->{isolation} || $suite->{name} eq 'isolation';
	my $program = $isolation ? 'isolation/pg_isolation_regress' : 'regress/pg_regress';
	my $dir = "$opt{source}/$suite->{dir}";
	my $kind = $isolation ? 'isolation' : 'regress';
	my $log = "$out/$kind.log";

	make_path("$out/$kind");
	my $wait = run_logged($mode, $log, $dir, 3600, "$opt{pgxs}/test/$program",
		"--temp-instance=$out/$kind/instance", "--outputdir=$out/$kind", "--inputdir=$dir",
		'--bindir=', "--dlpath=$opt{lib}", '--max-concurrent-tests=20',
		'--no-locale', '--encoding=UTF8', @options);

	my $count = 0;
	open my $fh, '<', $log or die "$log: $!\n";
	while (<$fh>)
	{
		my ($name, $result) = regress_result($_);
		next unless defined $name;
		$results->{$name} = $result;
		keep_output($mode, $suite->{name}, $name, "$out/$kind/results/$name.out") if $result eq 'failed';
		$count++;
	}
	close $fh;
	# It died, or the server did not start.
	$results->{"$kind ended"} = $count > 0 && $wait >> 8 <= 1 && !($wait & 127) ? 'ok' : 'failed';
	return;
}

# Tests that a Perl test leaves to pg_regress; their lines, which end with a time, are in its log.  The Perl test fails if
# one of them does, and would hide that others fail on the encrypted server.
sub inner_results
{
	my ($mode, $suite, $work, $name, $results) = @_;

	open my $fh, '<', "$work/log/regress_log_$name" or return;
	while (<$fh>)
	{
		my ($test, $result) = /\d+ ms$/ ? regress_result($_) : ();
		next unless defined $test;
		$results->{"$name inner $test"} = $result;
		keep_output($mode, $suite, "$name inner $test", "$work/results/$test.out") if $result eq 'failed';
	}
	close $fh;
	return;
}

# One Perl test after the other.
sub run_tap
{
	my ($mode, $out, $suite, $results) = @_;
	my $dir = "$opt{source}/$suite->{dir}";
	my @words = @{ $only{ $suite->{name} } // [] };

	foreach my $path (sort glob("$dir/t/*.pl"))
	{
		my $name = basename($path, '.pl');
		next if @words && !grep { index($name, $_) >= 0 } @words;
		my $work = "$out/$name";

		make_path("$work/tmp_check/log");
		local $ENV{TESTDIR} = $work;
		local $ENV{TESTDATADIR} = "$work/tmp_check";
		local $ENV{TESTLOGDIR} = "$work/tmp_check/log";
		my $wait = run_logged($mode, "$work/tap", $dir, 1800, $^X, '-I', "$opt{source}/src/test/perl",
			'-I', $dir, $path);
		open my $fh, '<', "$work/tap" or die "$work/tap: $!\n";
		my $parser = TAP::Parser->new({ source => $fh });
		while (my $result = $parser->next)
		{
			next unless $result->is_test;
			(my $text = $result->description) =~ s/^- //;
			$text =~ s/\Q$work\E/.../g;
			$text =~ s{\bpid \d+}{pid N}g;
			$text =~ s{\b[0-9A-F]{1,8}/[0-9A-F]{1,8}\b}{LSN}g;
			$text =~ s{\b([0-9A-F]{8})-[0-9A-F]{8}-[0-9A-F]{8}\b}{$1-LSN}g;
			$results->{ sprintf('%s %03d %s', $name, $result->number, $text) } =
			    $result->has_skip ? 'skipped'
			  : $result->is_ok    ? 'ok'
			  :                     'failed';
		}
		$results->{"$name ended"} =
		    $parser->skip_all ? 'skipped'
		  : ($wait >> 8) == 255 || $wait >> 8 == 124 || $wait & 127 || !defined $parser->plan ? 'failed'
		  :                                                                                   'ok';
		inner_results($mode, $suite->{name}, "$work/tmp_check", $name, $results);
		# The servers' files of tests that passed are of no use, and large.
		remove_tree("$work/tmp_check") if $wait == 0;
	}
	return;
}

# What a contrib folder's Makefile says; where it names the top of the sources, ours is meant.
sub makefile_variables
{
	my ($dir) = @_;
	my $top = abs_path("$opt{pgxs}/..");
	my %value;

	foreach my $name (qw(REGRESS REGRESS_OPTS ISOLATION ISOLATION_OPTS TAP_TESTS top_srcdir))
	{
		my $text = `cd '$dir' && printf 'include Makefile\\npgx-print:\\n\\t\@echo \$($name)\\n' | make -s -f - USE_PGXS=1 PG_CONFIG='$opt{plain}/pg_config' pgx-print`;
		die "suites.pl: could not read $dir/Makefile\n" if $? != 0;
		chomp $text;
		$value{$name} = $text;
	}
	s/\Q$value{top_srcdir}\E/$opt{source}/g foreach @value{qw(REGRESS_OPTS ISOLATION_OPTS)};
	return \%value;
}

sub run_suite
{
	my ($mode, $suite) = @_;
	my $out = "$opt{out}/$mode/$suite->{name}";
	my %results;

	remove_tree($out);
	make_path($out);
	if ($suite->{schedule})
	{
		run_regress($mode, $out, $suite, \%results, "--schedule=$opt{source}/$suite->{dir}/$suite->{schedule}");
	}
	elsif ($suite->{makefile})
	{
		my $make = makefile_variables("$opt{source}/$suite->{dir}");
		my $db = "--dbname=contrib_regression";
		run_regress($mode, $out, $suite, \%results, $db, split(' ', $make->{REGRESS_OPTS}), split(' ', $make->{REGRESS}))
		  if $make->{REGRESS} =~ /\S/;
		run_regress($mode, $out, { %$suite, isolation => 1 }, \%results, $db,
			split(' ', $make->{ISOLATION_OPTS}), split(' ', $make->{ISOLATION}))
		  if $make->{ISOLATION} =~ /\S/;
		run_tap($mode, $out, $suite, \%results) if $make->{TAP_TESTS} =~ /\S/;
	}
	else
	{
		run_tap($mode, $out, $suite, \%results);
	}
	return \%results;
}

# How many clusters were made so far, by the initdb that encrypts.
sub clusters_made
{
	open my $fh, '<', "$opt{out}/initdb.log" or return 0;
	my $count = () = <$fh>;
	return $count;
}

# The list of expected differences: versions, suite, test (the begin of its name), and the reason.
sub read_expected
{
	my @expected;

	open my $fh, '<', $opt{expected} or die "$opt{expected}: $!\n";
	while (<$fh>)
	{
		next if /^\s*(#|$)/;
		chomp;
		my ($majors, $suite, $test, $reason) = split /\s*\|\s*/, $_, 4;
		die "$opt{expected}, line $.: no reason is given\n" unless defined $reason && $reason =~ /\S/;
		my $pattern = join '.', map { quotemeta } split /\?/, $test, -1;
		push @expected, { suite => $suite, test => qr/^$pattern/, name => $test, reason => $reason, seen => 0 }
		  if grep { $_ eq $opt{major} } split /,/, $majors;
	}
	return @expected;
}

sub count_of
{
	my ($results, $what) = @_;
	return scalar grep { $_ eq $what } values %$results;
}

my @expected = read_expected();
my (@rows, @differences);
my ($unexpected, $total, $broken) = (0, 0, 0);

# The end of a program, and what one Perl test is made of, are results of their own for comparing, but no tests to count.
sub tests_only
{
	my ($results) = @_;
	return { map { $_ => $results->{$_} }
		  grep { !/ inner \S+$/ && (!/ ended$/ || $results->{$_} eq 'failed') } keys %$results };
}

foreach my $suite (@suites)
{
	next if %only && !$only{ $suite->{name} };
	next if $suite->{from} && $opt{major} < $suite->{from};
	my $start = time;
	print "== $suite->{name}, plain\n";
	my $plain = run_suite('plain', $suite);
	my $middle = time;
	print "== $suite->{name}, encrypted\n";
	my $clusters = clusters_made();
	my $encrypted = run_suite('encrypted', $suite);
	my $end = time;
	my ($differ, $explained) = (0, 0);

	foreach my $test (sort keys %{ { %$plain, %$encrypted } })
	{
		my ($one, $two) = map { $_->{$test} // 'not run' } $plain, $encrypted;
		my ($printed, $also) = map { $output{$_}{"$suite->{name} $test"} } 'plain', 'encrypted';
		$two = 'failed in another way' if defined $printed && defined $also && $printed ne $also;
		next if $one eq $two;
		my ($why) = grep { $_->{suite} eq $suite->{name} && $test =~ $_->{test} } @expected;
		$differ++;
		$explained++ if $why;
		$why->{seen}++ if $why;
		push @differences, [ $suite->{name}, $test, $one, $two, $why ? $why->{reason} : 'NOT EXPECTED' ];
		print "differs: $test: $one when plain, $two when encrypted\n";
	}
	# A program that ends half way on the plain server as well judges nothing.
	foreach my $test (grep { / ended$/ && $plain->{$_} eq 'failed' } sort keys %$plain)
	{
		print "does not get to its end on the plain server: $suite->{name}: $test\n";
		$broken++;
	}
	$unexpected += $differ - $explained;
	my ($p, $e) = (tests_only($plain), tests_only($encrypted));
	$total += keys %$p;
	push @rows, sprintf("| %-16s | %5d | %5d / %-3d | %5d / %-3d | %8d | %4d s | %4d s | %s |\n", $suite->{name},
		scalar keys %$p, count_of($p, 'ok'), count_of($p, 'failed'), count_of($e, 'ok'), count_of($e, 'failed'),
		clusters_made() - $clusters, $middle - $start, $end - $middle,
		$differ == 0 ? 'none' : $explained == $differ ? "$differ, expected" : sprintf('%d, %d of them not expected', $differ, $differ - $explained));
}

print "\n| suite            | tests | plain ok / failed | encrypted ok / failed | encrypted clusters | plain | encrypted | difference |\n",
  "|---|---|---|---|---|---|---|---|\n", @rows, "\n";
printf "%s: %s\n    plain: %s, encrypted: %s; %s\n", @$_ foreach @differences;
print "listed, but no difference any more: $_->{suite}: $_->{name}\n"
  foreach grep { !$_->{seen} && !@ARGV } @expected;
printf "%d tests, %d differences, %d of them not expected%s\n", $total, scalar @differences, $unexpected,
  $broken ? ", $broken programs that judge nothing" : '';
exit($total > 0 && $unexpected == 0 && $broken == 0 ? 0 : 1);
