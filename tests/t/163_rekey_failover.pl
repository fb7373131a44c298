# 163_rekey_failover.pl
#		A rekey in WAL meets a keystore that is not the one from before it: the primary's file was
#		put under a running standby; or the server is a former primary, brought back by pg_rewind,
#		that was rekeyed, or otherwise changed, after the other one was promoted.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PgxTde;
use Test::More;

my @fast = ('--kdf-cost', 10);

# It would note the name of this test as the standby's.
delete $ENV{PGAPPNAME};

sub change
{
	my ($node, $args, $lines) = @_;
	my ($rc, $out, $err) = pgx_keystore([ @$args, '-d', $node->connstr('postgres') ], $lines);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($rc, 0, "$$args[0] on the " . $node->name);
	return;
}

sub followed
{
	my ($from, $to, $name, $more_keys) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(comes_back($to), "$name: the " . $to->name . ' is there');
	caught_up($from, $to);
	# Keys that it alone made are not thrown away, and its file has them more.
	is_same_file(keystore_file($from), keystore_file($to), "$name: one keystore") if !$more_keys;
	is(status_of($to, 'generation'), status_of($from, 'generation'), "$name: and the server knows it");
	same_content($from, $to, ['postgres'], "$name: the data");
	return;
}

my $conf = "wal_log_hints = on\nwal_keep_size = '1GB'\n";
my $primary = new_primary('primary', conf => $conf);
my $dir = tablespace_dir($primary, 'enc');
$primary->safe_psql('postgres',
	"CREATE TABLESPACE enc LOCATION '$dir' WITH (tablespace_encryption_algorithm = 'AES256')");
$primary->safe_psql('postgres', 'CREATE TABLE t TABLESPACE enc AS SELECT g FROM generate_series(1, 1000) g');
my $standby = new_standby($primary, 'standby', conf => $conf);
$standby->start;
caught_up($primary, $standby);

# ---- the primary's file is copied under a running standby ------------------------------------------

auto_open($standby, $PASSPHRASE);
foreach my $later ('nothing more', 'a passphrase and a master key')
{
	$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
	change($primary, ['rekey'], "$PASSPHRASE\n\n");
	if ($later ne 'nothing more')
	{
		change($primary, [ 'passwd', @fast ], "$PASSPHRASE\n$PASSPHRASE\n");
		rotate($primary);
	}
	$primary->safe_psql('postgres', 'INSERT INTO t SELECT generate_series(2001, 2100)');
	copy_keystore($primary, $standby);
	my $offset = log_size($standby);
	$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
	followed($primary, $standby, "copied under a standby that has the rekey to come, and $later");
	like(log_since($standby, $offset), qr/LOG:  automatic opening of keystore "[^"]+" has been enabled anew/, 'auto-open is made anew');
	unlike(log_since($standby, $offset), qr/that were made on this server only have been given up/, 'and nothing is given up');
}
$standby->append_conf('postgresql.conf', "pgx_tde.keystore_passphrase_command = ''");
$standby->restart;
is(status_of($standby, 'opened_by'), 'auto-open', 'which opens');
$standby->append_conf('postgresql.conf', "pgx_tde.keystore_passphrase_command = 'cat " . pass_file($standby) . "'");

# ---- two primaries, and one of them comes back --------------------------------------------------------

# What either side does after the promotion; the standby rotates in between where the keystore has to be copied first.
my $round = 0;
my @rounds = (
	{ name => 'a rekey on either side', lost => ['rekey'], kept => ['rekey'], warns => 1 },
	{ name => 'more changes on the lost side', lost => [ 'rekey', 'passwd', 'rotate' ], kept => ['rekey'], warns => 1 },
	{ name => 'a rekey that was lost', lost => ['rekey'], kept => ['passwd'], warns => 1 },
	{ name => 'a rekey on the side that lives on', lost => [ 'rotate', 'passwd' ], kept => ['rekey'], warns => 1 },
	{ name => 'a rekey and more that were lost', lost => [ 'rekey', 'passwd', 'passwd', 'passwd' ], kept => ['passwd'], warns => 1, later => 1 },
	{ name => 'a rekey and more that were lost, and two master keys of one number', lost => [ 'rekey', 'rotate', 'rotate', 'rotate', 'passwd' ], kept => ['rotate'],
		warns => 1, later => 1 },
	{ name => 'the keystore was copied', lost => [ 'rotate', 'rekey' ], kept => [ 'rekey', 'passwd', 'rotate', 'rekey' ], copy => 1,
		warns => 0 });

sub apply_changes
{
	my ($node, $changes, $new) = @_;
	my $old = $PASSPHRASE;
	foreach my $what (@$changes)
	{
		rotate($node) if $what eq 'rotate';
		change($node, ['rekey'], "$old\n\n") if $what eq 'rekey';
		next if $what ne 'passwd';
		change($node, [ 'passwd', @fast ], "$old\n$new\n");
		$old = $new;
	}
	set_passphrase($node, $old);
	return $old;
}

# Put everything as it was: both with one passphrase.
sub back_to_one_passphrase
{
	my ($node, $passphrase) = @_;
	change($node, [ 'passwd', @fast ], "$passphrase\n$PASSPHRASE\n") if $passphrase ne $PASSPHRASE;
	set_passphrase($_, $PASSPHRASE) foreach $primary, $standby;
	return;
}

foreach my $case (@rounds)
{
	my ($old, $new) = $round++ % 2 ? ($standby, $primary) : ($primary, $standby);
	my $name = $case->{name};
	note "---- $name";

	$new->promote;
	$new->safe_psql('postgres', 'CHECKPOINT');
	my $lost = apply_changes($old, $case->{lost}, "the phrase of the lost side $round");
	# What the other side has is newer by the clock, in seconds, and only by that.
	sleep 2 if $case->{later};
	my $kept = apply_changes($new, $case->{kept}, "the phrase of the side that lives on $round");
	$old->safe_psql('postgres', 'INSERT INTO t VALUES (-1)');
	$new->safe_psql('postgres', "INSERT INTO t VALUES (10000 + $round)");
	$old->stop;

	my %own = map { $_ => slurp_raw($old->data_dir . "/$_") } 'postgresql.conf';
	my ($rc, $out, $err) = run_program(
		[
			'pgx_keystore', 'exec', '-D', $old->data_dir, '--', 'pg_rewind', '--target-pgdata', $old->data_dir,
			'--source-server', $new->connstr('postgres'), '--write-recovery-conf'
		],
		stdin => "$lost\n", env => { PGHOST => $old->host });
	is($rc, 0, "$name: pg_rewind");
	write_file($old->data_dir . "/$_", $own{$_}) foreach keys %own;

	if ($case->{copy})
	{
		like(start_fails($old), qr/was rekeyed elsewhere.*HINT:  Copy the keystore from the server that was rekeyed/s,
			"$name: without that it does not start");
		copy_keystore($new, $old, '--force');
		set_passphrase($old, $kept);
	}
	my $offset = log_size($old);
	$old->start;
	my $more = !$case->{copy} && grep { $_ eq 'rotate' } @{ $case->{lost} };
	followed($new, $old, $name, $more);
	my $log = log_since($old, $offset);
	is($log =~ /WARNING:  changes of keystore "[^"]+" that were made on this server only have been given up/ ? 1 : 0, $case->{warns}, "$name: the log");
	($rc) = pgx_keystore([ 'info', '--open', keystore_file($old) ], "$kept\n");
	is($rc, 0, "$name: the passphrase is that of the new primary");

	# Once more from the last checkpoint, with the keystore that it has now.
	set_passphrase($old, $kept);
	$old->stop('immediate');
	$old->start;
	change($new, [ 'slot', 'label', '--slot', 1, '--label', "round $round" ], "$kept\n");
	followed($new, $old, "$name: after a crash", $more);
	my ($here, $there) = map { scalar(() = (pgx_keystore([ 'keys', keystore_file($_) ], "$kept\n"))[1] =~ /^ +\d+  (?:active|retired) /mg) } $old, $new;
	cmp_ok($here, $more ? '>' : '==', $there, "$name: master keys");
	back_to_one_passphrase($new, $kept);
	caught_up($new, $old);
}

$_->stop foreach $primary, $standby;
done_testing();
