# PgxStandby.pm
#		What the tests of pgx_rcvall --standby share: one that is to be built, what must be there afterwards, and what
#		must not.

package PgxStandby;

use strict;
use warnings;

use Exporter 'import';
use File::Path qw(remove_tree);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PgxTde;

our @EXPORT = qw(plan_standby build_args build standby_absent build_fails ask_standby streams stop_standby);

# A standby of that primary.  Places of tablespaces are made beside it, as empty directories.  Returns
# { primary, data, keys, places, port, args }.
sub plan_standby
{
	my ($primary, $name) = @_;
	my $top = work_dir() . "/$name";
	my %plan = (primary => $primary, data => "$top/data", keys => "$top/keys", name => $name,
		port => PostgreSQL::Test::Cluster::get_free_port());

	mkdir $top, 0700;
	my @args = ('-D', $plan{data}, '--keystore-location', $plan{keys}, '--set', "port=$plan{port}", '--set',
		"cluster_name=$name", '--set', 'pgx_tde.keystore_passphrase_command=');
	foreach my $location (split /\n/, $primary->safe_psql('postgres',
			q{SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE pg_tablespace_location(oid) ~ '^/'}))
	{
		my $place = "$top/" . ($location =~ s{^.*/}{}r);
		mkdir $place, 0700;
		push @{ $plan{places} }, $place;
		push @args, '--tablespace-mapping', "$location=$place";
	}
	$plan{args} = \@args;
	return \%plan;
}

# The command.  Arguments that come later win.
sub build_args
{
	my ($plan, @args) = @_;
	return ('pgx_rcvall', '--standby', @{ $plan->{args} }, @args);
}

# Exit code, standard output, standard error.  The first argument after the plan may be a reference to a hash: the environment.
sub build
{
	my ($plan, @args) = @_;
	my $env = ref $args[0] ? shift @args : {};
	local %ENV = %ENV;
	delete @ENV{qw(PGHOST PGPORT PGDATABASE PGUSER PGDATA)};
	return run_program([ build_args($plan, @args) ], env => $env, timeout => 300);
}

# Nothing is left of it: neither files, nor a slot on the primary.
sub standby_absent
{
	my ($plan, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is_deeply([ grep { -e } $plan->{data}, $plan->{keys} ], [], "$name: nothing is left");
	is_deeply([ map { grep { !/^\.\.?$/ } slurp_dir($_) } @{ $plan->{places} // [] } ], [], "$name: nor in the tablespaces");
	return is($plan->{primary}->safe_psql('postgres', 'SELECT count(*) FROM pg_replication_slots'), 0, "$name: no slot is left");
}

sub build_fails
{
	my ($plan, $name, $code, $message, @args) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($rc, $out, $err) = build($plan, @args);
	is($rc, $code, "$name: exit code");
	like($err, $message, "$name: message");
	return standby_absent($plan, $name);
}

sub ask_standby
{
	my ($plan, $sql) = @_;
	my ($code, $answer, $error) =
	  run_program([ 'psql', '-XAtq', '-h', $plan->{primary}->host, '-p', $plan->{port}, '-d', 'postgres', '-c', $sql ]);
	chomp $answer;
	return $code == 0 ? $answer : $error;
}

# It follows: what is written on the primary from now on is there.
sub streams
{
	my ($plan, $name) = @_;
	my $primary = $plan->{primary};
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$primary->safe_psql('postgres', "INSERT INTO t_sec SELECT g, 'MARK later' FROM generate_series(1, 50) g");
	$primary->wait_for_catchup($plan->{name}, 'replay', $primary->safe_psql('postgres', 'SELECT pg_current_wal_lsn()'));
	my $sum = 'SELECT count(*), sum(hashtextextended(t::text, 0)) FROM t_sec t';
	is(ask_standby($plan, $sum), $primary->safe_psql('postgres', $sum), "$name: its content is that of the primary");
	return is(ask_standby($plan, 'SELECT pg_is_in_recovery()'), 't', "$name: it is a standby");
}

# Stop it and take it away, with its slot.
sub stop_standby
{
	my ($plan) = @_;
	system('pg_ctl', '-s', '-w', '-m', 'fast', '-D', $plan->{data}, 'stop');
	remove_tree($plan->{data}, $plan->{keys});
	remove_tree($_, { keep_root => 1 }) foreach @{ $plan->{places} // [] };
	$plan->{primary}->safe_psql('postgres', 'SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots');
	return;
}

1;
