# 194_pg_createsubscriber.pl
#		pg_createsubscriber (PostgreSQL 17) makes an encrypted standby a logical replica: it starts and stops the server by
#		the stock pg_ctl and gives it another system identifier with pg_resetwal, which writes WAL in plaintext.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PgxTde;
use Test::More;

my ($program) = grep { -x } map { "$_/pg_createsubscriber" } split /:/, $ENV{PATH};
plan skip_all => 'pg_createsubscriber is not installed' if !$program;

my $conf = "wal_level = logical\nautovacuum = off\nallow_in_place_tablespaces = on\nmax_worker_processes = 12\n";
my $primary = new_primary('primary', checksums => 1, conf => $conf);
$primary->safe_psql('postgres', "CREATE TABLESPACE enc LOCATION '' WITH (tablespace_encryption_algorithm = 'AES256')");
$primary->safe_psql('postgres',
	'CREATE TABLE secret (n int PRIMARY KEY USING INDEX TABLESPACE enc, content text) TABLESPACE enc');
$primary->safe_psql('postgres', 'INSERT INTO secret SELECT n, md5(n::text) FROM generate_series(1, 1000) n');
my $standby = new_standby($primary, 'standby', conf => $conf);
$standby->start;
caught_up($primary, $standby);
$standby->stop;

sub rows { return $_[0]->safe_psql('postgres', 'SELECT count(*) FROM secret WHERE content = md5(n::text)'); }

my ($rc, $out, $err) = run_program(
	[ 'pg_createsubscriber', '-D', $standby->data_dir, '-P', $primary->connstr('postgres'), '-d', 'postgres', '-p', $standby->port, '-s', $standby->host ],
	timeout => 180);
is($rc, 0, 'pg_createsubscriber') or diag($out, $err);
$standby->start;
is($standby->safe_psql('postgres', 'SELECT pg_is_in_recovery()'), 'f', 'it is a server of its own');
isnt($standby->safe_psql('postgres', 'SELECT system_identifier FROM pg_control_system()'),
	$primary->safe_psql('postgres', 'SELECT system_identifier FROM pg_control_system()'), 'with another system identifier');
is(rows($standby), 1000, 'and has the data');
$primary->safe_psql('postgres', 'INSERT INTO secret SELECT n, md5(n::text) FROM generate_series(1001, 1500) n');
ok(wait_until(sub { rows($standby) eq '1500' }), 'what is new comes by logical replication');

# Each has its own keys from now on.
my $tablespaces = 'SELECT count(*) FROM pgx_tablespaces';
is($standby->safe_psql('postgres', $tablespaces), $primary->safe_psql('postgres', $tablespaces), 'the same tablespaces are encrypted');
rotate($standby);
rotate($primary);
$standby->safe_psql('postgres', "CREATE TABLESPACE other LOCATION '' WITH (tablespace_encryption_algorithm = 'AES128')");
foreach my $node ($primary, $standby)
{
	is(status_of($node, 'wal_encryption'), 't', $node->name . ' encrypts WAL');
	$node->stop('immediate');
	$node->start;
	is(rows($node), 1500, $node->name . ' has the data after a crash');
	$node->stop;
}

done_testing();
