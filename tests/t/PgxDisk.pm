# PgxDisk.pm
#		Disks that are full: a file system of some bytes, or of some files, that only one program and what it starts can see.
#
# It is a user's own right to make one, where the kernel lets users have namespaces.

package PgxDisk;

use strict;
use warnings;

use Exporter 'import';
use POSIX ();
use Test::More;

use PgxTde;

our @EXPORT = qw(small_disk can_limit_disk on_small_disk left_on_disk);

# The rights that a namespace gives are kept over the start of perl, which calls mount(2): mount(8) insists on root.
my @apart = qw(unshare --map-current-user --keep-caps --mount);
my %mount_number = (x86_64 => 165, aarch64 => 40);

my $mounting = <<'EOF';
my ($number, $limit, $dir, $left, @argv) = @ARGV;
my $type = 'tmpfs';
syscall($number + 0, $type, $dir, $type, 0, $limit) == 0 or die "could not mount: $!\n";
my $rc = system(@argv);
open my $fh, '>', $left or die "$!";
opendir my $dh, $dir or die "$!";
print $fh map { "$_\n" } grep { !/^\.\.?$/ } readdir $dh;
close $fh or die "$!";
exit($rc & 127 ? 128 + ($rc & 127) : $rc >> 8);
EOF

# Where it is.
sub small_disk
{
	my $dir = work_dir() . '/disk';
	mkdir $dir, 0700;
	return $dir;
}

# Run a program that sees such a disk; limit: "size=6m", "nr_inodes=2".  Exit code, standard output, standard error.
sub on_small_disk
{
	my ($limit, @argv) = @_;
	my $script = write_file(work_dir() . '/small_disk.pl', $mounting);
	my $left = work_dir() . '/left';
	unlink $left;
	local %ENV = %ENV;
	delete @ENV{qw(PGHOST PGPORT PGDATABASE PGUSER PGDATA)};
	return run_program(
		[ @apart, $^X, $script, $mount_number{ (POSIX::uname())[4] } // 0, $limit, small_disk(), $left, @argv ], timeout => 300);
}

# Names of what the last program left in its uppermost directory, one a line.
sub left_on_disk { return slurp_raw(work_dir() . '/left'); }

# If so, it is shown that such a disk is full when it should be, and that what is left on it is seen.
sub can_limit_disk
{
	my $disk = small_disk();
	my ($rc) = on_small_disk('size=4k', 'true');
	return 0 if $rc != 0;
	($rc) = on_small_disk('size=4k', 'sh', '-c',
		"echo x >'$disk/one' && ! dd if=/dev/zero of='$disk/two' bs=4k count=1 && rm '$disk/two'");
	is($rc, 0, 'control: a small disk is full after a page');
	is(left_on_disk(), "one\n", 'control: and what is left on it is seen');
	return 1;
}

1;
