# The completion for bash offers what the commands' --help says.

use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

# What bash would offer for a command line; the last word is the one that is being typed.
sub offered
{
	my (@words) = @_;
	my $script = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
	  . '_pgx_complete "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"; '
	  . 'printf "%s\n" "${COMPREPLY[@]}"';
	IPC::Run::run([ 'bash', '-c', $script, 'bash', "$ENV{PGX_SRCDIR}/contrib/completions/pgx.bash", @words ],
		'>', \my $out, '2>', \my $err);
	note("@words: $out$err");
	is($err, '', "@words: no complaint");
	return [ sort grep { $_ ne '' } split /\n/, $out ];
}

# The operations that --help lists, read here in another way.
my ($help) = run_command([ 'pgx_keystore', '--help' ]);
my %operations = map { $_ => 1 } $help =~ /^  pgx_keystore ([a-z][a-z-]*)/gm;
cmp_ok(scalar keys %operations, '>=', 15, 'there are operations');
is_deeply(offered('pgx_keystore', ''), [ sort keys %operations ], 'all operations');
is_deeply(offered('pgx_keystore', 'rek'), ['rekey'], 'the only one that begins so');
is_deeply(offered('pgx_keystore', 're'), [ sort grep { /^re/ } keys %operations ], 'all that begin so');
is_deeply(offered('pgx_keystore', 'slot', ''), [ sort qw(list add change remove label) ], 'what slot can do');
is_deeply(offered('pgx_keystore', 'auto-open', 'd'), ['disable'], 'what auto-open can do');

foreach my $program (qw(pgx_keystore pgx_dmpall pgx_rcvall pgx_encrypt pgx_walcopy))
{
	my ($text) = run_command([ $program, '--help' ]);
	my %options = map { $_ => 1 } $text =~ /^  (?:-., |    )(--[a-z-]+)/gm;
	$options{'--enable-auto-open'} = 1 if $program eq 'pgx_keystore';
	cmp_ok(scalar keys %options, '>=', 2, "$program has options");
	my $offered = offered($program, '--');
	is_deeply([ sort map { s/=$//r } @$offered ], [ sort keys %options ], "all options of $program");
}
is_deeply(offered('pgx_keystore', 'create', '--passphrase-'), ['--passphrase-file='], 'an option that takes a value');
is_deeply(offered('pgx_keystore', 'create', '--kdf', '=', ''), [ sort qw(scrypt argon2id pbkdf2) ], 'the values of an option');
is_deeply(offered('pgx_keystore', 'create', '--kdf', '=', 'a'), ['argon2id'], 'the only one that begins so');
is_deeply(offered('no_such_program', ''), [], 'nothing for a program that does not run');

done_testing();
