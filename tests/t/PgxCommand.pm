# PgxCommand.pm
#		What the tests of the commands share.
#
# The commands are found in PATH, and the pg_ctl shim in $PGX_SHIM_DIR.  Passphrases go
# through standard input, as a script would do it.

package PgxCommand;

use strict;
use warnings;

use Exporter 'import';
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(
  run_cmd cmd_ok cmd_fails new_dir new_keystore write_file read_file mode_of
  keystore_generation keystore_uuid
  $passphrase @fast
);

my $in_dir;

our $passphrase = 'a passphrase for tests';

# scrypt at the lowest cost that is allowed.
our @fast = ('--kdf-cost', '10');

# Run a program.  Options: stdin (text, default empty), env (hash).  Returns exit code, or -signal,
# standard output and standard error.
sub run_cmd
{
	my ($argv, %opt) = @_;
	my ($out, $err) = ('', '');
	# From a file: a program that ends before it has read a pipe would take us with it.
	my $in = '/dev/null';
	if (defined $opt{stdin})
	{
		$in_dir //= PostgreSQL::Test::Utils::tempdir();
		$in = write_file("$in_dir/stdin", $opt{stdin});
	}
	local %ENV = (%ENV, %{ $opt{env} // {} });

	delete $ENV{$_} for grep { !defined $ENV{$_} } keys %ENV;
	note 'run: ' . join ' ', @$argv;
	IPC::Run::run($argv, '<', $in, '>', \$out, '2>', \$err);
	my $rc = $? & 127 ? -($? & 127) : $? >> 8;
	note "exit $rc", $out, $err;
	return ($rc, $out, $err);
}

# It succeeds, standard output matches, and standard error is empty.
sub cmd_ok
{
	my ($argv, $out_like, $name, %opt) = @_;
	my ($rc, $out, $err) = run_cmd($argv, %opt);

	subtest $name => sub {
		is($rc, 0, 'exit code');
		like($out, $out_like, 'standard output');
		is($err, '', 'standard error');
	};
	return $out;
}

# It fails with this code, says this, and prints no result.
sub cmd_fails
{
	my ($argv, $code, $err_like, $name, %opt) = @_;
	my ($rc, $out, $err) = run_cmd($argv, %opt);

	subtest $name => sub {
		is($rc, $code, 'exit code');
		is($out, '', 'standard output');
		like($err, $_, 'standard error') for ref $err_like eq 'ARRAY' ? @$err_like : $err_like;
	};
	return $err;
}

# A new directory, mode 0700.
sub new_dir
{
	my $dir = PostgreSQL::Test::Utils::tempdir(@_);
	chmod 0700, $dir or die "could not chmod \"$dir\": $!";
	return $dir;
}

sub new_keystore
{
	my ($dir, $pass) = @_;
	my ($rc, undef, $err) = run_cmd([ 'pgx_keystore', 'create', @fast, "$dir/keystore.ks" ],
		stdin => ($pass // $passphrase) . "\n");
	die "could not create a keystore: $err" if $rc != 0;
	return "$dir/keystore.ks";
}

sub write_file
{
	my ($path, $text, $mode) = @_;
	open my $fh, '>:raw', $path or die "could not write \"$path\": $!";
	print $fh $text;
	close $fh or die "could not write \"$path\": $!";
	chmod $mode // 0600, $path or die "could not chmod \"$path\": $!";
	return $path;
}

sub read_file
{
	my ($path) = @_;
	open my $fh, '<:raw', $path or return undef;
	local $/;
	my $text = <$fh>;
	close $fh;
	return $text // '';
}

sub mode_of
{
	my ($path) = @_;
	my @st = lstat $path;
	return @st ? sprintf('%04o', $st[2] & 07777) : 'none';
}

sub info_field
{
	my ($path, $field) = @_;
	my ($rc, $out) = run_cmd([ 'pgx_keystore', 'info', $path ]);
	return $rc == 0 && $out =~ /^$field:\s+(.*)$/m ? $1 : "none (exit code $rc)";
}

sub keystore_generation { return info_field($_[0], 'Generation') }
sub keystore_uuid       { return info_field($_[0], 'UUID') }

1;
