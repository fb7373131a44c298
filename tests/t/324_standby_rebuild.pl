# 324_standby_rebuild.pl
#		A former primary becomes a standby of the server that took over: pgx_rcvall --standby -B with a backup that a copy
#		command made, which restores to the same places.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use Cwd ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PgxBackup;
use PgxStandby;
use PgxTde;

my $old = backup_primary('old', conf => "autovacuum = off\n");
my $area = area_dir($old);
my $data = $old->data_dir;
fill_tablespaces($old, 'MARK_copy');
my $sample = (grep { -x } map { "$_/../share/pgx-tde/copy_command.archive.sh.sample" } split /:/, $ENV{PATH})[0];
$sample = Cwd::abs_path($sample);
$ENV{PGX_COPY_DIR} = work_dir() . '/copies';
mkdir $ENV{PGX_COPY_DIR}, 0700;
dmpall_ok($old, '-Y', $sample, '--label', 'everything');
my $list = write_file(work_dir() . '/list', "sec\n");
dmpall_ok($old, '-Y', $sample, '-P', $list, '--exclude-copy-cluster', '--label', 'one tablespace');
$old->safe_psql('postgres', "INSERT INTO t_sec SELECT g, 'MARK_copy more' FROM generate_series(1, 300) g");
archived($old);

# Another server takes over.
my $new = new_standby($old, 'new');
$new->start;
$old->wait_for_catchup($new);
$old->stop;
$new->promote;
rotate($new);
$new->safe_psql('postgres', "INSERT INTO t_sec SELECT g, 'MARK_copy after' FROM generate_series(1, 300) g");
archived($new);

my ($sec, $plain) = map { tablespace_dir($old, $_) } qw(sec plain);
my $plan = {
	primary => $new, name => 'again', data => $data, keys => work_dir() . '/again_keys', places => [ $sec, $plain ],
	port => PostgreSQL::Test::Cluster::get_free_port()
};
$plan->{args} = [
	'-D', $data, '--keystore-location', $plan->{keys}, '--set', "port=$plan->{port}", '--set', 'cluster_name=again', '--set',
	'pgx_tde.keystore_passphrase_command=', '-B', $area, '--primary-conninfo', "host='" . $new->host . "' port=" . $new->port,
	'--passphrase-file', pass_file($old), '--slot', 'slot1', '--create-slot'
];
lose($old);
rmdir $data or die "$!";

# ---- refused, or failed ------------------------------------------------------------------------------

my @all = ('--backup', 'everything');
build_fails($plan, 'without -Y', 1, qr/option -Y is necessary because backup has been performed with the copy command/, @all);
my $elsewhere = { %$plan, data => work_dir() . '/elsewhere' };
build_fails($elsewhere, 'another data directory', 1, qr/the copy command restores the database storage directory "\Q$data\E", not/, @all,
	'-Y', $sample, '-D', "$elsewhere->{data}");
build_fails($plan, 'a tablespace elsewhere', 1, qr/tablespace "sec" is restored by the copy command and cannot be put elsewhere/, @all, '-Y', $sample,
	'--tablespace-mapping', "$sec=" . work_dir() . '/elsewhere');
my $calls = work_dir() . '/calls';
my $failing = write_file(work_dir() . '/failing', "#!/bin/sh\necho \"\$1\" >>'$calls'\n'$sample' \"\$@\"\nexit 3\n", 0700);
build_fails($plan, 'the copy command fails', 1, qr/program ".*failing" failed with exit code 3/, @all, '-Y', $failing);
is(slurp_raw($calls), "restore\n", 'the copy command fails: it was called once');
my $empty = write_file(work_dir() . '/empty', "#!/bin/sh\n", 0700);
build_fails($plan, 'the copy command copies nothing', 1, qr/error: /, @all, '-Y', $empty);
build_fails($plan, 'it does not start', 1, qr/the standby did not start as it should/, @all, '-Y', $sample, '--set', 'shared_buffers=nonsense');

# ---- and it works --------------------------------------------------------------------------------------

foreach my $label ('everything', 'one tablespace')
{
	my ($rc, $out, $err) = build($plan, '--backup', $label, '-Y', $sample, '--auto-open', '--log', work_dir() . '/again.log');
	is($rc, 0, "$label: exit code") or diag($err);
	like($out, qr/^The standby is streaming\.$/m, "$label: it streams");
	streams($plan, $label);
	rotate($new);
	streams($plan, "$label, after a rotation");
	is_deeply([ files_with({ mark => 'MARK_copy' }, $data, $sec) ], [], "$label: and encrypted");
	ok(!-e "$data/$_", "$label: no $_ is left") foreach qw(pgx_rcvall.incomplete recovery.signal);
	stop_standby($plan);
}

done_testing();
