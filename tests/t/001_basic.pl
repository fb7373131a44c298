# Help, version, bad options and bad usage of pgx_keystore.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PgxCommand;
use PostgreSQL::Test::Utils;
use Test::More;

program_help_ok('pgx_keystore');
program_version_ok('pgx_keystore');
program_options_handling_ok('pgx_keystore');

my @ks = ('pgx_keystore');

cmd_ok([ @ks, '-?' ], qr/^Usage:/m, 'short form of help');
cmd_ok([ @ks, '-V' ], qr/^pgx_keystore \(pgx-tde\) \d+\.\d+\.\d+$/, 'short form of version');
my ($help) = (run_cmd([ @ks, '--help' ]))[1];
for my $action (qw(create copy receive info passwd auto-open --enable-auto-open))
{
	like($help, qr/^  pgx_keystore \Q$action\E /m, "help shows $action");
}
cmd_ok([ @ks, 'create', '--help' ], qr/^Usage:/m, 'help after an operation');

# Parsing alone, without the action: the hidden --check-args.
my @good = (
	[ 'create', 'k' ],
	[ 'create', '--kdf', 'scrypt', '--kdf-cost', '24', 'k' ],
	[ 'create', '--kdf=pbkdf2', '--kdf-cost=210000', 'k' ],
	[ 'create', 'k', '--passphrase-file', 'p' ],
	[ 'copy', '--to', 'x', '--from', 'y', '--force', '--servers', 's' ],
	[ 'copy', '--to=h:/x', '--ssh', 'ssh', '--ssh-option', '-p', '--ssh-option', '22', '--remote-command', 'r' ],
	[ 'receive', '--force', 'd' ],
	[ 'receive', '--', '-d' ],
	[ 'info', '--json', '--open', '-v', 'k' ],
	[ 'passwd', '--passphrase-file', 'p', '--new-passphrase-file', 'q', 'k' ],
	[ 'auto-open', 'enable', 'k' ],
	[ '--enable-auto-open', 'k' ],
	[ 'k', '--enable-auto-open' ],
	[ '--enable-auto-open', '--host-secret', 'h', 'create' ],
);
cmd_ok([ @ks, @$_ ], qr{^$}, "accepted: @$_") for map { [ q{--check-args}, @$_ ] } @good;

my $advice = qr/hint: Try "pgx_keystore --help" for more information\./;
my @bad = (
	[ [], qr/error: no operation is specified/, $advice ],
	[ ['frobnicate'], qr/error: unknown operation "frobnicate"/, $advice ],
	[ ['--frobnicate'], qr/unrecognized option '--frobnicate'/, $advice ],
	[ ['create'], qr/error: keystore location is not specified/,
		qr/hint: Usage: pgx_keystore create FILE/ ],
	[ [ 'create', 'a', 'b' ], qr/error: too many command-line arguments \(first is "b"\)/ ],
	[ ['--enable-auto-open'], qr/error: keystore location is not specified/ ],
	[ [ '--enable-auto-open', 'a', 'b' ], qr/error: too many command-line arguments \(first is "b"\)/ ],
	[ [ 'copy', 'a' ], qr/error: too many command-line arguments \(first is "a"\)/ ],
	[ [ 'auto-open', 'enable' ], qr/error: too few command-line arguments/ ],
	[ [ 'auto-open', 'toggle', 'k' ], qr/error: unknown operation "auto-open toggle"/,
		qr/hint: Known are "enable", "disable" and "status"\./ ],
	[ ['copy'], qr/error: no target is specified/ ],
	[ [ 'create', '--kdf-cost', '9', 'k' ], qr/error: --kdf-cost must be in range 10\.\.24/ ],
	[ [ 'create', '--kdf-cost', '25', 'k' ], qr/error: --kdf-cost must be in range 10\.\.24/ ],
	[ [ 'create', '--kdf', 'pbkdf2', '--kdf-cost', '1000', 'k' ], qr/error: --kdf-cost must be in range 210000/ ],
	[ [ 'create', '--kdf-cost', '12x', 'k' ], qr/error: invalid value "12x" for option --kdf-cost/ ],
	[ [ 'create', '--kdf', 'md5', 'k' ], qr/error: unknown key derivation "md5"/ ],
	[ [ 'create', '--kdf' ], qr/option '--kdf' requires an argument/, $advice ],
	[ [ 'info', '--json=yes', 'k' ], qr/option '--json' doesn't allow an argument/, $advice ],
);
for my $case (@bad)
{
	my ($args, @texts) = @$case;
	cmd_fails([ @ks, @$args ], 1, \@texts, "refused: @$args");
}

# Every option with every action that does not take it.
my %takes = (
	'create'    => [qw(passphrase-file kdf kdf-cost)],
	'copy'      => [qw(from to force servers ssh ssh-option remote-command)],
	'receive'   => [qw(force)],
	'info'      => [qw(json open passphrase-file host-secret)],
	'passwd'    => [qw(passphrase-file new-passphrase-file kdf kdf-cost)],
	'auto-open' => [qw(passphrase-file host-secret)],
);
my %all = map { $_ => 1 } map { @$_ } values %takes;
my %flag = map { $_ => 1 } qw(force json open);
for my $action (sort keys %takes)
{
	my %own = map { $_ => 1 } @{ $takes{$action} };
	for my $option (grep { !$own{$_} } sort keys %all)
	{
		cmd_fails([ @ks, $action, $flag{$option} ? "--$option" : "--$option=1", 'k' ],
			1, qr/error: option --$option cannot be used with operation "$action"/,
			"$action does not take --$option");
	}
}

# A result that cannot be written is a failure.
SKIP:
{
	skip 'no /dev/full', 1 unless -c '/dev/full';
	my $rc = system('/bin/sh', '-c', 'exec pgx_keystore --help >/dev/full 2>&1');
	is($rc >> 8, 1, 'full standard output');
}

done_testing();
