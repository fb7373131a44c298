#!/usr/bin/perl
#
# summary.pl
#		Run the TAP tests and close with one line that counts them together with
#		the unit tests that "make check" has run.
#
# A test program that died, printed no plan, bailed out or was killed counts as failed; so does a
# "make check" that failed without naming a test.  One program's bailing out does not keep the others from
# running, which is why this is not TAP::Harness.  Exit code 0 only if something passed and nothing
# failed.

use strict;
use warnings;

use File::Path qw(make_path);
use Getopt::Long;
use TAP::Parser;

my %opt = ('jobs' => 1, 'limit' => 1500, 'make-status' => 0, 'unit' => '');
GetOptions(\%opt, 'trs-dir=s', 'unit=s', 'make-status=i', 'jobs=i', 'limit=i', 'log-dir=s')
  or die "summary.pl: bad usage\n";

my ($passed, $failed, $skipped) = (0, 0, 0);

# The last lines of a file that may explain a failure.
sub show_tail
{
	my ($path, $count) = @_;

	return unless -s $path && open my $fh, '<', $path;
	my @lines = <$fh>;
	splice @lines, 0, @lines - $count if @lines > $count;
	print "--- the last lines of $path:\n", @lines;
	return;
}

# The automake TAP driver leaves one NAME.trs per test program, with one
# ":test-result:" line per test.
sub count_unit
{
	my ($name) = @_;
	my $path = "$opt{'trs-dir'}/$name";
	$path =~ s/\.test$//;		# the one extension that automake takes off by itself
	my ($p, $f, $s) = (0, 0, 0);

	if (open my $fh, '<', "$path.trs")
	{
		while (<$fh>)
		{
			next unless /^:test-result:\s*([A-Z]+)/;
			if    ($1 eq 'PASS' || $1 eq 'XFAIL') { $p++ }
			elsif ($1 eq 'SKIP')                  { $s++ }
			else                                  { $f++ }
		}
		close $fh;
		# A program that died before its first test has no results at all.
		$f++ if $p + $f + $s == 0;
	}
	else
	{
		print "$name: no result was left behind\n";
		$f++;
	}
	show_tail("$path.log", 60) if $f > 0;
	return ($p, $f, $s);
}

if ($opt{unit} =~ /\S/)
{
	foreach my $name (split ' ', $opt{unit})
	{
		my ($p, $f, $s) = count_unit($name);
		$passed += $p;
		$failed += $f;
		$skipped += $s;
	}
	$failed = 1 if $opt{'make-status'} != 0 && $failed == 0;
	print "Unit tests and lints: $passed passed, $failed failed, $skipped skipped\n";
}

# Start a test program with its output in files; returns what finish_tap() needs.
sub start_tap
{
	my ($name) = @_;
	(my $base = $name) =~ s{^.*/|\.pl$}{}g;
	my %test = (name => $name, base => $base, started => time,
		out => "$opt{'log-dir'}/$base.tap", err => "$opt{'log-dir'}/$base.err");

	$test{pid} = fork // die "summary.pl: could not fork: $!\n";
	if ($test{pid} == 0)
	{
		open STDIN,  '<', '/dev/null'  or die "$!\n";
		open STDOUT, '>', $test{out} or die "$test{out}: $!\n";
		open STDERR, '>', $test{err} or die "$test{err}: $!\n";
		exec('timeout', '-k', '30', $opt{limit}, $^X, $name) or die "timeout: $!\n";
	}
	return \%test;
}

# Count what a program that has ended printed.
sub finish_tap
{
	my ($test, $wait) = @_;
	open my $fh, '<', $test->{out} or die "$test->{out}: $!\n";
	my $parser = TAP::Parser->new({ source => $fh });
	my $bailed = '';

	while (my $result = $parser->next)
	{
		$bailed = ', bailed out' if $result->is_bailout;
	}
	my ($p, $f, $s) = map { scalar @$_ }
	  ([ $parser->passed ], [ $parser->failed ], [ $parser->skipped ]);

	# A skipped test is "passed" to the parser too.
	$p -= $s;
	$s++ if $parser->skip_all;
	# An unclean end is a failure even if every test that ran is ok.
	$f++ if $f == 0 && ($wait != 0 || $bailed || $parser->parse_errors);

	my $end =
	    $wait & 127 ? sprintf(', killed by signal %d', $wait & 127)
	  : $wait >> 8 == 124 ? ", stopped after $opt{limit} s"
	  : $wait != 0 && $f == 0 ? sprintf(', exit code %d', $wait >> 8)
	  :                         '';
	printf "%s %s: %d passed, %d failed, %d skipped%s%s (%d s)\n",
	  $f ? 'FAIL' : $parser->skip_all ? 'SKIP' : 'PASS', $test->{name}, $p, $f, $s, $bailed, $end,
	  time - $test->{started};
	if ($f > 0)
	{
		print "     not ok: $_\n" foreach $parser->failed, $parser->parse_errors;
		show_tail($test->{err}, 40);
		show_tail($_, 40)
		  foreach "$opt{'log-dir'}/regress_log_$test->{base}",
		  sort glob("$opt{'log-dir'}/$test->{base}_*.log");
	}
	$passed += $p;
	$failed += $f;
	$skipped += $s;
	return;
}

$| = 1;
make_path($opt{'log-dir'}) if @ARGV;
my @waiting = @ARGV;
my %running;
while (@waiting || %running)
{
	while (@waiting && keys %running < $opt{jobs})
	{
		my $test = start_tap(shift @waiting);
		$running{ $test->{pid} } = $test;
	}
	my $pid = wait;
	my $wait = $?;
	last if $pid < 0;
	my $test = delete $running{$pid} or next;
	finish_tap($test, $wait);
}

print "no test was run\n" if $passed + $failed + $skipped == 0;
printf "%d passed, %d failed%s\n", $passed, $failed, $skipped ? ", $skipped skipped" : '';
exit($passed > 0 && $failed == 0 ? 0 : 1);
