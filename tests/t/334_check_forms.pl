# 334_check_forms.pl
#		What is known before anything is touched, of backups that do not hold the data as it was: in a sealed file, or
#		where a copy command put it.  WAL is read to its end, and a restore point that is not there is refused.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PgxBackup;
use PgxTde;

my $node = backup_primary('main', checksums => 1);
my $area = area_dir($node);
my $sample = (grep { -x } map { "$_/../share/pgx-tde/copy_command.archive.sh.sample" } split /:/, $ENV{PATH})[0];
ok(defined $sample, 'the sample of a copy command is installed');
$ENV{PGX_COPY_DIR} = work_dir() . '/copies';
mkdir $ENV{PGX_COPY_DIR}, 0700;
fill_tablespaces($node, 'MARK_forms');
my @open = ('--keystore-passphrase', '--passphrase-file', pass_file($node));

sub check { return run_program([ 'pgx_rcvall', '--check', '-B', $area, @open ], timeout => 300); }

foreach my $form (
	[ 'compressed', [ '--compress', 'zstd', '--passphrase-file', pass_file($node) ], [] ],
	[ 'copy command', [ '-Y', $sample ], [ '-Y', $sample ] ])
{
	my ($name, $make, $use) = @$form;
	dmpall_ok($node, @$make);
	my $backup = newest_backup($node);
	is(-e "$backup/keytable" ? 1 : 0, $name eq 'copy command' ? 1 : 0, "$name: the key table beside the data");
	rotate($node);
	$node->safe_psql('postgres', "INSERT INTO t_sec SELECT g, 'MARK_forms $name' FROM generate_series(1, 300) g");
	my $wanted = fingerprint($node, 'postgres');
	(my $point = "point_$name") =~ tr/ /_/;
	$node->safe_psql('postgres', "SELECT pg_create_restore_point('$point')");
	$node->safe_psql('postgres', 'DELETE FROM t_sec');
	my $last = archived($node);
	archived($node);

	my ($rc, $out, $err) = check();
	is($rc, 0, "$name: it fits") or diag($err);
	like($out, qr/^WAL: complete up to [0-9A-F\/]+ on timeline \d+\nBackup, WAL and keystore fit together\.$/m, "$name: WAL was read");
	unlike($err, qr/WAL cannot be looked into/, "$name: without a warning about WAL");
	my $whole = slurp_raw("$area/archived_wal/$last");
	write_file("$area/archived_wal/$last", substr($whole, 0, 64) . "\0" x (length($whole) - 64));
	($rc, $out, $err) = check();
	is($rc, 1, "$name: a segment is empty: exit code");
	like($err, qr/WAL cannot be read beyond [0-9A-F\/]+/, "$name: a segment is empty: message");
	write_file("$area/archived_wal/$last", $whole);

	lose($node);
	($rc, $out, $err) = rcvall($node, '-B', $area, @open, @$use, '-n', 'none');
	is($rc, 1, "$name: a restore point that is not there: exit code");
	like($err, qr/restore point "none" does not exist/, "$name: a restore point that is not there: message");
	is_deeply([ grep { !/^\.\.?$/ } slurp_dir($node->data_dir) ], [], "$name: nothing was touched");
	($rc, $out, $err) = rcvall($node, '-B', $area, @open, @$use, '--xid', 4000000000);
	is($rc, 1, "$name: a transaction that is not there: exit code");
	like($err, qr/transaction 4000000000 does not exist/, "$name: a transaction that is not there: message");
	rcvall_ok($node, '-B', $area, @open, @$use, '-n', $point);
	$node->start;
	is_content(fingerprint($node, 'postgres'), $wanted, "$name: content at the restore point");
	archived($node);
}

done_testing();
