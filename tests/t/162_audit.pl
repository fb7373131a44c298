# 162_audit.pl
#		Audit lines of the server: one for each key event, with who and what and the outcome, in the
#		form that the commands have, and no secret.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PgxTde;
use Test::More;

my $second = 'the second phrase of test 162';
my $node = new_primary('primary', master_key => 0, by_sql => 1, conf => "wal_keep_size = '1GB'\n");
my $uuid = qr/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/;
my $path = keystore_file($node);
my $who = qr/user=\S+ database=postgres client="\[local\]"/;
my $offset = 0;

# The event's line must be the only one of it since the last look.
sub line_is
{
	my ($server, $what, $rest, $name) = @_;
	my @lines = grep { / outcome=/ } split /\n/, log_since($server, $offset);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(scalar(@lines), 1, "$name: one line") or diag(join "\n", @lines);
	like($lines[0] // '', qr/ LOG:  event=\Q$what\E $rest$/, "$name: what it says");
	return;
}

sub event
{
	my ($sql, $what, $rest, $name) = @_;
	$offset = log_size($node);
	$node->psql('postgres', $sql);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return line_is($node, $what, $rest, $name);
}

event("SELECT pgx_set_master_key('short')", 'create',
	qr/outcome=failure $who keystore=\Q$path\E reason="[^"]+"/, 'no keystore with a short passphrase');
event("SELECT pgx_set_master_key('$PASSPHRASE')", 'create',
	qr/outcome=success $who keystore=\Q$path\E uuid=$uuid generation=1 key=1/, 'create');
event('SELECT pgx_set_master_key()', 'rotate', qr/outcome=success $who keystore=\Q$path\E uuid=$uuid generation=2 key=2/, 'rotate');
event("SELECT pgx_set_keystore_passphrase('not the passphrase', '$second')",
	'change-passphrase', qr/outcome=failure $who keystore=\S+ uuid=$uuid generation=2 key=2 reason=".*passphrase is wrong"/,
	'wrong passphrase');
event("SELECT pgx_set_keystore_passphrase('$PASSPHRASE', '$second')",
	'change-passphrase', qr/outcome=success $who keystore=\S+ uuid=$uuid generation=3 key=2/, 'passphrase');
event('SELECT length(pgx_get_keystore())', 'fetch', qr/outcome=success $who keystore=\S+ uuid=$uuid generation=3 key=2/, 'fetch');
event("SELECT pgx_store_keystore('x')", 'store', qr/outcome=failure $who .* reason="file .*new keystore.* is not a keystore"/, 'store, refused');
event('BEGIN; SELECT pgx_set_master_key()', 'rotate', qr/outcome=failure $who .* reason="SQLSTATE 25001"/, 'an error of the server itself');
event("SELECT pgx_open_keystore('$second')", 'open', qr/outcome=failure $who .* reason="keystore is already open"/, 'open');

$offset = log_size($node);
my ($rc) = pgx_keystore([ 'slot', 'label', '--slot', 1, '--label', 'Alice', '-d', $node->connstr('postgres') ], "$second\n");
is($rc, 0, 'a change by pgx_keystore -d');
my @events = map { /event=(\S+ \S+)/ ? $1 : () } split /\n/, log_since($node, $offset);
is($events[-1], 'store outcome=success', 'its last line');

set_passphrase($node, $second);
my $standby = new_standby($node, 'standby', passphrase => $second);
$standby->start;
like(log_since($standby, 0), qr/ LOG:  event=open outcome=success keystore=\S+ uuid=$uuid generation=4 key=2 method=command$/m,
	'start of the standby');
$offset = log_size($standby);
rotate($node);
caught_up($node, $standby);
line_is($standby, 'replicate', qr/outcome=success keystore=\S+ uuid=$uuid generation=5 key=3/, 'the standby follows');

$standby->stop;
$node->stop;
set_passphrase($node, 'not the passphrase');
like(start_fails($node), qr/ LOG:  event=open outcome=failure keystore=\S+ method=command reason=".*passphrase is wrong"/, 'start with a wrong passphrase');
auto_open($node, $second);
set_passphrase($node, $second);
$node->append_conf('postgresql.conf', "pgx_tde.keystore_passphrase_command = ''");
$offset = log_size($node);
$node->start;
like(log_since($node, $offset), qr/ LOG:  event=open outcome=success .* method=auto-open$/m, 'start by auto-open');
$node->stop;

unlike(slurp_file($_->logfile), qr/\Q$PASSPHRASE\E|\Q$second\E|not the passphrase/, 'no passphrase in the log of ' . $_->name)
  foreach $node, $standby;
done_testing();
