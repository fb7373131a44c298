# 166_put_back.pl
#		An older keystore that was put back by mistake is found: against the key table of the data directory, against what
#		lies beside it, and against the other servers; and the server brings it up to date by itself.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PgxTde;
use Test::More;

my $primary = new_primary('primary', conf => "wal_keep_size = '1GB'\n");
my $standby = new_standby($primary, 'standby');
$standby->start;
my ($file, $other) = map { keystore_file($_) } $primary, $standby;
my $pgdata = $primary->data_dir;
my $older = slurp_raw($file);
my $generation = status_of($primary, 'generation');
rotate($primary, 2);
caught_up($primary, $standby);
my $newest = slurp_raw($file);

sub verify
{
	my ($rc, $out, $err) = pgx_keystore([ 'verify', @_, $file ], '');
	return ($rc, "$out$err");
}

my ($rc, $text) = verify('-D', $pgdata);
is($rc, 0, 'control: it is in order') or diag($text);
unlike($text, qr/older/, 'control: and not old');

write_file($file, $older, 0600);
($rc, $text) = verify('-D', $pgdata);
is($rc, 1, 'verify -D');
like($text,
	qr/^error: keystore "\Q$file\E" is an older one: generation $generation, but the data directory "\Q$pgdata\E" has seen @{[ $generation + 2 ]}$/m,
	'it names both generations');
like($text, qr/^hint: Copy the keystore from a server of the group, or from a newer backup/m, 'and what to do');
like($text, qr/^warning: "\Q$file\E\.prev" has generation @{[ $generation + 1 ]}, newer than the keystore's $generation: an older keystore seems to have been put back$/m,
	'so does what lies beside it');
($rc, $text) = verify();
like($text, qr/an older keystore seems to have been put back/, 'without -D too');

my $servers = write_file(work_dir() . '/both.conf', join '', map { "[" . $_->name . "]\nkeystore = " . keystore_dir($_) . "\n" } $primary, $standby);
my ($out, $err);
($rc, $out, $err) = pgx_keystore([ 'compare', '--servers', $servers, 'primary', 'standby' ]);
is($rc, 1, 'compare');
like($out, qr/^primary is older: generation $generation, but standby has @{[ $generation + 2 ]}$/m, 'which is the older one');

# The server has the newest keys in its key table.
$primary->stop;
$primary->start;
like(log_since($primary, 0), qr/LOG:  keystore "\Q$file\E" was older than the data and has been brought up to date/, 'the server says so');
is(status_of($primary, 'active_master_key'), status_of($standby, 'active_master_key'), 'and has its key');
isnt(slurp_raw($file), $older, 'in the file too');
$_->stop foreach $primary, $standby;
done_testing();
