#!/bin/sh
# The style of messages, PostgreSQL's: a primary message begins in lower case and ends without a period,
# detail and hint are whole sentences, names are in double quotes, and none ends in a newline.
set -u

: "${srcdir:=$(dirname "$0")/../..}"
cd "$srcdir" || exit 1
exec perl -x - <<'PERL'
#!perl
use strict;
use warnings;
use File::Find;

# Which argument of which function is the message, counted from 0.
my %primary = (
	errmsg => 0, errmsg_internal => 0, elog => 1,
	pgx_log_error => 0, pgx_log_warning => 0, ksi_fail => 2);
my %sentence = (
	errdetail => 0, errdetail_internal => 0, errhint => 0,
	pgx_log_detail => 0, pgx_log_hint => 0, ksi_hint => 2);

# The words of the product whose interface this is, kept as they are.
my %published = map { $_ => 1 } (
	'Open the existing keystore, or set the master encryption key to create and open a new keystore');

my @problems;
my $messages = 0;

# Split the arguments that begin at the current position; strings and parentheses are kept whole.
sub arguments
{
	my ($text) = @_;
	my ($depth, @args) = (0, '');
	while ($$text =~ /\G("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[()]|,|[^"'(),]+)/gcs)
	{
		my $token = $1;
		if ($token eq ',' && $depth == 0) { push @args, ''; next; }
		$depth++ if $token eq '(';
		last if $token eq ')' && $depth-- == 0;
		$args[-1] .= $token;
	}
	return @args;
}

sub check
{
	my ($where, $kind, $message) = @_;
	my $problem = sub { push @problems, "$where: $_[0]: \"$message\"" };
	$messages++;
	return if $published{$message};
	$problem->('ends in a newline') if $message =~ /\\n$/;
	$problem->('contains a tab') if $message =~ /\\t/;
	$problem->('quotes with single quotes') if $message =~ /'%s'|`/;
	$problem->('says "failed to" or "unable to"; say "could not"')
	  if $message =~ /\b(?:failed to|unable to|cannot be able)\b/i;
	if ($kind eq 'primary')
	{
		# An acronym, a format or a quoted name may begin it.
		$problem->('begins with a capital letter') if $message =~ /^[A-Z](?![A-Z0-9])/;
		$problem->('ends with a period') if $message =~ /(?<!\.\.)\.$/;
	}
	else
	{
		$problem->('does not begin with a capital letter') if $message =~ /^[a-z]/;
		# A sentence, or what to do followed by a command to be copied, or one made elsewhere.
		$problem->('does not end a sentence') unless $message =~ /[.?!]$|^%s$|: %s|: [a-z]+ /;
	}
}

sub check_file
{
	return unless /\.c$/;
	my $name = $File::Find::name;
	open my $fh, '<', $_ or die "could not open \"$name\": $!";
	my $text = do { local $/; <$fh> };
	# Comments go, but lines stay where they are.
	$text =~ s{("(?:[^"\\]|\\.)*")|(/\*.*?\*/)}{ $1 // "\n" x ($2 =~ tr/\n//) }gse;
	for my $function (keys %primary, keys %sentence)
	{
		my $kind = exists $primary{$function} ? 'primary' : 'sentence';
		my $index = $primary{$function} // $sentence{$function};
		while ($text =~ /\b\Q$function\E\s*\(/g)
		{
			my $at = pos $text;
			my $line = 1 + (substr($text, 0, $at) =~ tr/\n//);
			my $argument = (arguments(\$text))[$index] // '';
			pos($text) = $at;
			# Each branch of a conditional is a message of its own.
			for my $branch (split /[?:](?=\s*")/, $argument)
			{
				my $message = join '', $branch =~ /"((?:[^"\\]|\\.)*)"/g;
				check("$name:$line", $kind, $message) if $message ne '';
			}
		}
	}
}

find({ wanted => \&check_file, no_chdir => 1 }, grep { -d } qw(lib bin contrib));
print "# $_\n" for @problems;
print @problems ? 'not ok' : 'ok', ' 1 - ', scalar(@problems), " of $messages messages out of style\n";
# With no message found the search itself is broken.
print $messages > 20 ? 'ok' : 'not ok', " 2 - messages were found\n";
print "1..2\n";
exit(@problems || $messages <= 20 ? 1 : 0);
PERL
