# 171_standby_lacks_key.pl
#		A standby whose keystore lacks the key that it needs: an older copy catches up by itself;
#		with one that cannot open the data, replay stops, says what to run, and goes on
#		afterwards with nothing lost.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PgxTde;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_primary('primary', conf => "wal_keep_size = '256MB'\n");
my $dir = tablespace_dir($primary, 'enc');
$primary->safe_psql('postgres',
	"CREATE TABLESPACE enc LOCATION '$dir' WITH (tablespace_encryption_algorithm = 'AES256')");
$primary->safe_psql('postgres',
	q{CREATE TABLE t TABLESPACE enc AS SELECT g FROM generate_series(1, 1000) g});
my $standby = new_standby($primary, 'standby');
plain_start($standby);
my $oldest = slurp_raw(keystore_file($standby));

sub more
{
	$primary->safe_psql('postgres', 'INSERT INTO t SELECT g FROM generate_series(1, 1000) g');
	return;
}

sub put_keystore
{
	my ($content) = @_;
	unlink keystore_file($standby), keystore_file($standby) . '.prev';
	write_file(keystore_file($standby), $content);
	return;
}

sub goes_on
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(plain_start($standby), 0, "$name: it starts");
	caught_up($primary, $standby);
	same_content($primary, $standby, ['postgres'], "$name: nothing is lost");
	is(status_of($standby, 'generation, active_master_key'), status_of($primary, 'generation, active_master_key'),
		"$name: its keystore is the primary's again");
	return;
}

# A standby that has to stop does; returns what it logged.
sub stops
{
	my ($before, $name) = @_;
	wait_until(sub { !is_running($standby) });
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(!is_running($standby), "$name: it stops");
	$standby->_update_pid(-1);
	return log_since($standby, $before);
}

# ---- an older copy, put back while the standby was down -------------------------------------------------------

rotate($primary, 2);
more();
caught_up($primary, $standby);
$standby->stop;
put_keystore($oldest);
rotate($primary);
more();
my $before = log_size($standby);
goes_on('an older copy');
like(log_since($standby, $before), qr/keystore ".*" was older than the data and has been brought up to date/,
	'an older copy: what it lacks is in the key table');

# The same where it is WAL that brings the keys: the copy is as old as the key table.
$standby->stop;
rotate($primary, 3);
more();
$before = log_size($standby);
goes_on('keys in WAL');
like(log_since($standby, $before), qr/has been brought to generation \d+ by replication/, 'keys in WAL: by replication');

# ---- the keystore of others, put there while the standby was down --------------------------------------------------

$standby->stop;
unlink keystore_file($standby);
create_keystore($standby, $PASSPHRASE);
my $log = start_fails($standby);
like($log, qr/FATAL:  keystore ".*" does not belong to this data directory/, 'the keystore of others: refused');
like($log, qr/HINT:  Copy the keystore of this replication group with "pgx_keystore copy"/, 'with the command to run');
unlink keystore_file($standby);
copy_keystore($primary, $standby, '--force');
more();
goes_on('the primary\'s keystore');

# ---- the same while it runs: replay stops at the next key ---------------------------------------------------------

foreach my $how ('with the keystore of others', 'without a keystore')
{
	unlink keystore_file($standby);
	create_keystore($standby, $PASSPHRASE) if $how =~ /others/;
	my $there = slurp_raw(keystore_file($standby));
	$before = log_size($standby);
	rotate($primary);
	more();
	$log = stops($before, $how);
	like($log, qr/FATAL:  .*keystore.*"\Q@{[keystore_file($standby)]}\E"/, "$how: the log says why");
	like($log, qr/HINT:  Copy .* "pgx_keystore copy"/, "$how: and what to run");
	is(slurp_raw(keystore_file($standby)), $there, "$how: what is there was left alone");
	unlink keystore_file($standby);
	copy_keystore($primary, $standby, $how =~ /others/ ? '--force' : ());
	goes_on("$how, after the stop");
}

$_->stop foreach $standby, $primary;
done_testing();
