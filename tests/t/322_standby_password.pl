# 322_standby_password.pl
#		pgx_rcvall --standby of a primary that asks for a password: the standby connects as it was built, from a password
#		file, and what it could not connect with is refused before anything is made.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PgxBackup;
use PgxStandby;
use PgxTde;

my $SECRET = 'correct horse, said the role';
my $primary = backup_primary('primary', conf => "autovacuum = off\n");
fill_tablespaces($primary, 'MARK_build');
$primary->safe_psql('postgres', "SET password_encryption = 'scram-sha-256'; CREATE ROLE builder SUPERUSER REPLICATION LOGIN PASSWORD '$SECRET';
	CREATE ROLE other SUPERUSER LOGIN PASSWORD '$SECRET'");
my $hba = $primary->data_dir . '/pg_hba.conf';
my $open = slurp_raw($hba);
write_file($hba, "local all,replication builder scram-sha-256\nlocal all other scram-sha-256\nlocal replication other reject\n$open");
$primary->reload;

my $plan = plan_standby($primary, 'standby');
my $to = "host='" . $primary->host . "' port=" . $primary->port;
my $from = "$to user=builder dbname=postgres";
my @pass = ('--passphrase-file', pass_file($primary), '--slot', 'slot1', '--create-slot');

# A password file; the server's, the database, the password.
sub password_file
{
	my ($name, $database, $password) = @_;
	return write_file(work_dir() . "/$name", join(':', '*', $primary->port, $database, '*', $password) . "\n");
}

my $good = password_file('good', '*', $SECRET);
my $wrong = password_file('wrong', '*', 'battery staple');
my $partly = password_file('partly', 'postgres', $SECRET);
my $none = work_dir() . '/none';
my $as_standby = qr/error: could not connect to the primary as the standby will: /;
my $file_hint = qr/hint: It takes a password from a password file only, .* is "replication" or "\*"/;

# ---- refused, before anything is made --------------------------------------------------------------

my $control = $primary->psql('postgres', 'SELECT 1', connstr => "$from passfile='$none'", extra_params => ['-w']);
isnt($control, 0, 'control: without a password nobody connects');
build_fails($plan, 'no password', 1, qr/could not connect to the server: .*no password supplied/s, { PGPASSFILE => $none }, @pass,
	'--from', $from);
build_fails($plan, 'wrong password', 1, qr/could not connect to the server: .*password authentication failed/s,
	{ PGPASSFILE => $wrong }, @pass, '--from', $from);
build_fails($plan, 'in the environment', 1, qr/$as_standby.*no password supplied.*\n.*$file_hint/, { PGPASSFILE => $none, PGPASSWORD => $SECRET },
	@pass, '--from', $from);
build_fails($plan, 'for another database only', 1, qr/$as_standby.*no password supplied.*\n.*$file_hint/, { PGPASSFILE => $partly }, @pass,
	'--from', $from);
build_fails($plan, 'no line for replication', 1, qr/$as_standby.*pg_hba\.conf rejects replication connection.*\n.*hint: .*attribute REPLICATION, and a line for/,
	{ PGPASSFILE => $good }, @pass, '--from', "$to user=other dbname=postgres");
build_fails($plan, 'another role for the standby, wrong', 1, qr/$as_standby/, { PGPASSFILE => $good }, @pass, '--from', $from,
	'--primary-conninfo', "$to user=nobody");
my $stranger = new_primary('stranger');
build_fails($plan, 'another server for the standby', 1, qr/the servers of the options --from and --primary-conninfo are not the same/,
	{ PGPASSFILE => $good }, @pass, '--from', $from, '--primary-conninfo', "host='" . $stranger->host . "' port=" . $stranger->port);
$stranger->stop;

# ---- from a password file, named in each of the ways ------------------------------------------------

sub is_built
{
	my ($name, $passfile, @how) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($rc, $out, $err) = build($plan, @how, @pass, '--auto-open', '--log', work_dir() . '/standby.log');
	is($rc, 0, "$name: built") or diag($err);
	my $conf = slurp_raw("$plan->{data}/postgresql.auto.conf");
	like($conf, qr/^primary_conninfo = '.*passfile=(''|\\')?\Q$passfile\E/m, "$name: the standby knows the file");
	is(index("$conf$out$err" . slurp_raw(work_dir() . '/standby.log'), $SECRET), -1, "$name: nothing that is written has the password");
	streams($plan, $name);
	# Nothing of our environment is there any more.
	local %ENV = %ENV;
	delete @ENV{qw(PGPASSFILE PGPASSWORD PGAPPNAME)};
	is(system('pg_ctl', '-s', '-w', '-D', $plan->{data}, '-l', work_dir() . '/standby.log', 'restart'), 0, "$name: restarts");
	streams($plan, "$name, after a restart");
	is($primary->safe_psql('postgres', q{SELECT usename FROM pg_stat_replication}), 'builder', "$name: as that role");
	stop_standby($plan);
	return;
}

is_built('PGPASSFILE', $good, { PGPASSFILE => $good }, '--from', $from);
is_built('passfile, and a password in the environment', $good, { PGPASSWORD => $SECRET }, '--from', "$from passfile='$good'");
dmpall_ok($primary);
is_built('from a backup', $good, '-B', area_dir($primary), '--primary-conninfo', "$to user=builder passfile='$good'");
build_fails($plan, 'from a backup, by the environment', 1, qr/$as_standby.*no password supplied.*\n.*$file_hint/, { PGPASSFILE => $good }, @pass,
	'-B', area_dir($primary), '--primary-conninfo', "$to user=builder");

done_testing();
