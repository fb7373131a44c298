# 161_online_keystore.pl
#		pgx_keystore -d: the keystore of a running server is changed on the client's side and handed
#		back; the standby follows, over a rekey too.  What is not this server's keystore, was
#		made from an older one, or lacks a key is refused.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PgxTde;
use Test::More;

my $second = 'the second phrase of test 161';
my $third = 'the third phrase of test 161';
my @fast = ('--kdf-cost', 10);

my $primary = new_primary('primary', conf => "wal_keep_size = '1GB'\nlog_statement = all\n");
my $dir = tablespace_dir($primary, 'enc');
$primary->safe_psql('postgres',
	"CREATE TABLESPACE enc LOCATION '$dir' WITH (tablespace_encryption_algorithm = 'AES256')");
$primary->safe_psql('postgres', 'CREATE TABLE t TABLESPACE enc AS SELECT g, md5(g::text) FROM generate_series(1, 2000) g');
my $standby = new_standby($primary, 'standby');
$standby->start;

my @d = ('-d', $primary->connstr('postgres'));

# Exit code, and what was printed.
sub online
{
	my ($args, $lines, $rc, $pattern, $name) = @_;
	my ($got, $out, $err) = pgx_keystore([ @$args, @d ], $lines);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($got, $rc, "$name: exit code");
	like($rc == 0 ? $out : $err, $pattern, "$name: what it says");
	return $out;
}

sub followed
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	caught_up($primary, $standby);
	is_same_file(keystore_file($primary), keystore_file($standby), "$name: the standby follows");
	is(status_of($standby, 'generation'), status_of($primary, 'generation'), "$name: and knows it");
	return;
}

sub opens
{
	my ($node, $passphrase, $rc, $name) = @_;
	my ($got) = pgx_keystore([ 'info', '--open', keystore_file($node) ], "$passphrase\n");
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is($got, $rc, $name);
}

# ---- the functions --------------------------------------------------------------------

is( $primary->safe_psql('postgres', "SELECT encode(pgx_get_keystore(), 'hex')"),
	unpack('H*', slurp_raw(keystore_file($primary))), 'pgx_get_keystore() gives the file');
is( $standby->safe_psql('postgres', "SELECT encode(pgx_get_keystore(), 'hex')"),
	unpack('H*', slurp_raw(keystore_file($standby))), 'on a standby too');
$primary->safe_psql('postgres', 'CREATE ROLE nobody LOGIN; CREATE ROLE custodian LOGIN;
	GRANT EXECUTE ON FUNCTION pgx_get_keystore(), pgx_store_keystore(bytea) TO custodian');
like(query_fails($primary, 'postgres', "SET ROLE nobody; SELECT $_"), qr/ERROR:  permission denied for function/, "not for all: $_")
  for 'pgx_get_keystore()', "pgx_store_keystore('x')", "pgx_store_keystore('x', 'x')";
like(query_fails($primary, 'postgres', "BEGIN; SELECT pgx_store_keystore('x')"),
	qr/pgx_store_keystore\(\) cannot run inside a transaction block/, 'not inside a transaction');
like(query_fails($standby, 'postgres', "SELECT pgx_store_keystore('x')"), qr/ERROR:  recovery is in progress/, 'not on a standby');
like(query_fails($primary, 'postgres', "SELECT pgx_store_keystore('x')"), qr/ERROR:  file "new keystore" is not a keystore/, 'not a keystore');
like(query_fails($primary, 'postgres', "SELECT pgx_store_keystore(pgx_get_keystore(), 'x')"),
	qr/ERROR:  the envelope of a rekey must have 132 bytes/, 'not an envelope');

# ---- slots and passphrases -----------------------------------------------------------------

like((online([ 'slot', 'list' ], '', 0, qr/^ +1  passphrase /m, 'slot list')), qr/scrypt N=2\^10/, 'its KDF');
online([ 'keys' ], "$PASSPHRASE\n", 0, qr/^ +1 .*\n +2  active /m, 'keys');
online([ 'passwd', @fast ], "not the passphrase\n$second\n", 2, qr/error: .*passphrase is wrong/, 'passwd, wrong passphrase');
online([ 'passwd', @fast ], "$PASSPHRASE\n$second\n", 0, qr/^the passphrase of server ".*" has been changed, generation 3$/, 'passwd');
opens($primary, $second, 0, 'the new passphrase opens');
opens($primary, $PASSPHRASE, 2, 'the old one does not');
followed('passwd');
online([ 'slot', 'add', '--label', 'Bob', @fast ], "$second\n$third\n", 0, qr/^slot 2 has been added to server/, 'slot add');
opens($primary, $third, 0, 'its passphrase opens');
followed('slot add');
online([ 'slot', 'label', '--slot', 1, '--label', 'Alice' ], "$third\n", 0, qr/is now labelled "Alice"/, 'slot label');
online([ 'slot', 'change', '--slot', 2, @fast ], "$second\nanother passphrase\n", 0, qr/^the passphrase of slot 2 of server/, 'slot change');
opens($primary, $third, 2, 'and changed');
my $recovery = online([ 'recovery-key', 'add', '--stdout', @fast ], "$second\n", 0, qr/^\S{47}$/, 'recovery-key add');
chomp $recovery;
followed('recovery-key add');
opens($standby, $recovery, 0, 'it opens the keystore of the standby');
online([ 'slot', 'remove', '--slot', 2 ], "$recovery\n", 0, qr/^slot 2 has been removed from server/, 'slot remove');

# Somebody who is not a superuser.
my ($rc, $out, $err) = pgx_keystore(
	[ 'slot', 'label', '--slot', 1, '--label', 'Carol', '-d', $primary->connstr('postgres') . ' user=custodian' ], "$second\n");
is($rc, 0, 'a role that was granted the functions can do it');
($rc, $out, $err) = pgx_keystore(
	[ 'slot', 'label', '--slot', 1, '--label', 'Dave', '-d', $primary->connstr('postgres') . ' user=nobody' ], "$second\n");
is($rc, 1, 'another cannot');
like($err, qr/error: could not fetch the keystore: permission denied for function pgx_get_keystore/, 'and is told');

# ---- master keys ----------------------------------------------------------------------------

online([ 'rotate' ], '', 0, qr/^a new master encryption key has been set on server/, 'rotate');
like((online([ 'keys' ], "$second\n", 0, qr/^ +3  active /m, 'keys')), qr/^ +2  retired /m, 'the former is retired');
online([ 'destroy', 3, '--force' ], "$second\n", 1, qr/error: master key 3 is the active one/, 'destroy the active key');
online([ 'destroy', 1, '--force' ], "$second\n", 0, qr/^master key 1 of server ".*" has been destroyed/, 'destroy');
online([ 'keys' ], "$second\n", 0, qr/^ +1  destroyed /m, 'keys, one destroyed');
followed('destroy');

# ---- what is refused ---------------------------------------------------------------------------

# Both began with the same file; one was faster.
my $work = work_dir();
mkdir "$work/$_", 0700 for qw(client other old);
my $client = "$work/client/keystore.ks";
write_file($client, slurp_raw(keystore_file($primary)));
online([ 'slot', 'label', '--slot', 1, '--label', 'Erin' ], "$second\n", 0, qr/labelled/, 'somebody else changes it');
($rc) = pgx_keystore([ 'slot', 'label', '--slot', 1, '--label', 'Frank', $client ], "$second\n");
is($rc, 0, 'changed at the client');

sub offer
{
	my ($file) = @_;
	my $before = slurp_raw(keystore_file($primary));
	my $error = query_fails($primary, 'postgres', "SELECT pgx_store_keystore('\\x" . unpack('H*', slurp_raw($file)) . "')");
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($before eq slurp_raw(keystore_file($primary)), 'the keystore is untouched');
	return $error;
}

my $error = offer($client);
like($error, qr/ERROR:  the keystore has been changed by somebody else meanwhile/, 'a change made from an older file is refused');
like($error, qr/DETAIL:  This server has generation \d+, so the next is \d+, but the new keystore has generation \d+\./, 'with numbers');
like($error, qr/HINT:  Fetch the keystore from this server again and repeat the change\./, 'and what to do');
like(offer(keystore_file($primary)), qr/changed by somebody else meanwhile/, 'the same file again is refused');

($rc) = pgx_keystore([ 'create', @fast, "$work/other/keystore.ks" ], "$PASSPHRASE\n");
like(offer("$work/other/keystore.ks"),
	qr/ERROR:  the new keystore is not this server's keystore\nDETAIL:  This server has keystore [0-9a-f-]{36}, but the new one is keystore [0-9a-f-]{36}\./,
	'another keystore is refused');

# The right generation, but a key of its own; and bytes that were altered on the way.
write_file($client, slurp_raw(keystore_file($primary)));
pgx_keystore([ 'rotate', $client ], "$second\n");
like(offer($client), qr/ERROR:  master encryption key 3 is not the active one in the new keystore/, 'a master key made elsewhere is refused');
write_file($client, slurp_raw(keystore_file($primary)));
pgx_keystore([ 'slot', 'label', '--slot', 1, '--label', 'Grace', $client ], "$second\n");
my $bytes = slurp_raw($client);
substr($bytes, -1) ^= "\1";
write_file($client, $bytes);
like(offer($client), qr/ERROR:  .*(?:corrupted|altered|does not open)/, 'an altered file is refused');

# A rekey without what the standbys need to follow it.
write_file($client, slurp_raw(keystore_file($primary)));
pgx_keystore([ 'rekey', '--force', $client ], "$second\n\n");
like(offer($client), qr/ERROR:  .*key/, 'a file with another key of its own is refused');

# ---- rekey --------------------------------------------------------------------------------------

auto_open($standby, $second);
auto_open($primary, $second);
my $aks = slurp_raw(keystore_dir($primary) . '/keystore.aks');
online([ 'rekey' ], "$second\n\n", 1, qr/error: 1 slots would be lost/, 'rekey that would lose the recovery key');
my $offset = log_size($standby);
online([ 'rekey' ], "$second\n$recovery\n", 0, qr/^server ".*" has a new keystore key/, 'rekey');
followed('rekey');
isnt(slurp_raw(keystore_dir($primary) . '/keystore.aks'), $aks, 'auto-open of the primary is made anew');
like(log_since($standby, $offset), qr/LOG:  automatic opening of keystore "[^"]+" has been enabled anew/, 'that of the standby too');
rotate($primary);
$primary->safe_psql('postgres', 'UPDATE t SET md5 = md5(md5)');
followed('rotate after rekey');
same_content($primary, $standby, ['postgres'], 'the standby has the data');

foreach my $node ($primary, $standby)
{
	$node->append_conf('postgresql.conf', "pgx_tde.keystore_passphrase_command = ''");
	$node->restart;
	is(status_of($node, 'status, opened_by'), 'open|auto-open', $node->name . ' opens by itself after the rekey');
}

# A server that crashes right after a rekey recovers.
online([ 'rekey' ], "$second\n$recovery\n", 0, qr/^server ".*" has a new keystore key/, 'rekey once more');
$primary->stop('immediate');
$primary->start;
is(status_of($primary, 'status'), 'open', 'crash after a rekey');
caught_up($primary, $standby);
$standby->stop('immediate');
$standby->start;
followed('crash of the standby after a rekey');
same_content($primary, $standby, ['postgres'], 'data after the crashes');

# A standby that was away over two rekeys and a rotation, and has an old copy of the keystore.
$standby->stop;
online([ 'rekey' ], "$second\n$recovery\n", 0, qr/new keystore key/, 'rekey while the standby is down');
rotate($primary);
online([ 'rekey' ], "$second\n$recovery\n", 0, qr/new keystore key/, 'and another');
online([ 'passwd', @fast ], "$second\n$third\n", 0, qr/has been changed/, 'and a passphrase');
$standby->start;
followed('a standby that was away');
opens($standby, $third, 0, 'with the new passphrase');

$standby->stop;
$primary->stop;

# ---- without a first master key nothing of a keystore is in WAL, which is in the clear --------------

my $fresh = new_primary('fresh', master_key => 0, start => 0);
create_keystore($fresh, $PASSPHRASE);
$fresh->start;
$fresh->safe_psql('postgres', 'CREATE EXTENSION pgx_tde');
@d = ('-d', $fresh->connstr('postgres'));
online([ 'passwd', @fast ], "$PASSPHRASE\n$second\n", 0, qr/has been changed, generation 2$/, 'passwd before the first master key');
$fresh->safe_psql('postgres', "SELECT pgx_set_keystore_passphrase('$second', '$third')");
opens($fresh, $third, 0, 'both were stored');
$fresh->stop;
my $slots = substr(slurp_raw(keystore_file($fresh)), 0, 64);
is_deeply([ files_with({ keystore => substr($slots, 0, 8) }, $fresh->data_dir . '/pg_wal') ], [], 'and no keystore is in WAL');
is(scalar(files_with({ keystore => substr($slots, 0, 8) }, keystore_file($fresh))), 1, 'control: the search finds one');

done_testing();
