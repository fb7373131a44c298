# PgxNemesis.pm
#		Servers on a disk that fails: tests/nemesis stands between the I/O layer and the C library,
#		and after a kill the disk forgets writes that nobody had synced.

package PgxNemesis;

use strict;
use warnings;

use Exporter 'import';
use File::Path qw(remove_tree);
use IPC::Run;
use PostgreSQL::Test::Utils;
use PgxTde;
use Test::More;

our @EXPORT = qw(build_nemesis start_with_nemesis set_odds faults pull_the_plug);

my ($object, $powerloss);

sub build_nemesis
{
	my $build = $ENV{PGX_BUILDDIR};
	$object = "$build/tests/nemesis/.libs/nemesis.so";
	$powerloss = "$build/tests/nemesis/powerloss";
	system_or_bail('make', '-s', '-C', $build, 'tests/nemesis/nemesis.la', 'tests/nemesis/powerloss')
	  if !-e $object || !-x $powerloss;
	return;
}

# struct nemesis_control: seq, faults; seed; then the odds in the order of @odds.
my @odds = qw(short_read short_write read_error write_error no_space);
my $control_size = 8 + 8 + 4 + 4 * @odds;

sub control_of { return "$_[0]{pgx_nemesis}/control"; }

# Odds in a million; those that are not named become 0.
sub set_odds
{
	my ($node, %odds) = @_;
	open my $fh, '+<:raw', control_of($node) or die "could not open the control file: $!";
	seek $fh, 20, 0;
	print $fh pack('L*', map { delete $odds{$_} // 0 } @odds);
	close $fh or die "could not write the control file: $!";
	die 'no such fault: ' . join(' ', keys %odds) if %odds;
	return;
}

sub faults
{
	my ($node) = @_;
	return (unpack 'QQ', slurp_raw(control_of($node)))[1];
}

# Start a server on a disk that notes from now on what is not synced.  Returns what $node->start does.
sub start_with_nemesis
{
	my ($node, $seed, %odds) = @_;
	my $dir = work_dir() . '/nemesis_' . $node->name;
	remove_tree($dir);
	mkdir $dir, 0700 or die "could not create \"$dir\": $!";
	write_file("$dir/control", pack('QQL', 0, 0, $seed) . "\0" x ($control_size - 20));
	$node->{pgx_nemesis} = $dir;
	set_odds($node, %odds);
	local $ENV{LD_PRELOAD} = $object;
	local $ENV{PGX_NEMESIS} = $dir;
	return $node->start(fail_ok => 1);
}

# The server was killed, and the power went with it.  Returns counts: unsynced writes, sectors, fallen back.
sub pull_the_plug
{
	my ($node, $seed) = @_;
	my @dirs = ($node->data_dir, keystore_dir($node), glob($node->data_dir . '/pg_tblspc/*/'));
	my ($out, $err) = ('', '');
	IPC::Run::run([ $powerloss, $seed, $node->{pgx_nemesis}, @dirs ], '>', \$out, '2>', \$err)
	  or die "powerloss failed: $err";
	return $out =~ /(\d+)/g;
}

1;
