# 330_recover.pl
#		pgx_rcvall: what it lists, and recovery from backups of pgx_dmpall.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PgxBackup;
use PgxTde;

my $node = backup_primary('main');
my $area = area_dir($node);

# ---- the list --------------------------------------------------------------------------------

my ($rc, $out, $err) = rcvall($node, '-l');
is("$rc $out", "0 Date                    Status          Dir\n", 'no backup: the list');
like($err, qr/there is no backup in "\Q$area\E"/, 'no backup: message');
($rc, $out, $err) = rcvall($node, '--view-results-of-copying');
is($rc, 1, 'no backup: exit code of --view-results-of-copying');
like($err, qr/backup of the database has not yet been performed/, 'no backup: its message');

fill_tablespaces($node, 'MARK_backup');
dmpall_ok($node, '--label', 'first');
my $first = newest_backup($node);
my ($date, $time) = $first =~ m{/(\d{4}-\d\d-\d\d)_(\d\d-\d\d-\d\d)$};
$time =~ tr/-/:/;
mkdir "$area/2001-02-03_04-05-06.incomplete";
mkdir "$area/2001-02-03_04-05-07";
($rc, $out, $err) = rcvall($node, '-l');
is($rc, 0, 'exit code');
is($out, <<"END", 'the list');
Date                    Status          Dir
2001-02-03 04:05:06     INCOMPLETE      $area/2001-02-03_04-05-06.incomplete
2001-02-03 04:05:07     DAMAGED         $area/2001-02-03_04-05-07
$date $time     COMPLETE        $first
END
like($err, qr/backup data "\Q$area\E\/2001-02-03_04-05-07" is lost: could not open file "backup_info.json"/,
	'why one is damaged');
rmdir "$area/$_" foreach '2001-02-03_04-05-06.incomplete', '2001-02-03_04-05-07';
($rc, $out, $err) = run_program([ 'pgx_rcvall', '-l', '-B', $area, '--json' ]);
is($rc, 0, 'with -B alone, in JSON') or diag($err);
my $json = JSON::PP::decode_json($out);
is_deeply([ map { "$_->{status} $_->{label} $_->{directory}" } @$json ], ["COMPLETE first $first"], 'JSON');
($rc, $out, $err) = rcvall($node, '--view-results-of-copying');
is($rc, 1, 'no copy command: exit code');
like($err, qr/backup using the copy command has not been done/, 'no copy command: message');
my $command = write_file(work_dir() . '/command', "#!/bin/sh\n[ \$1 != finalize ] || echo 'noted by it' >\"\$2\"\n", 0700);
dmpall_ok($node, '-Y', $command);
($rc, $out, $err) = rcvall($node, '--view-results-of-copying');
is("$rc $out", "0 noted by it\n", 'what the copy command noted') or diag($err);
($rc, $out, $err) = rcvall($node, '-l');
like($out, qr/^Date +Status +Dir +Resources backed up by the copy command\n.*COMPLETE .*\n.*COMPLETE .*    pg_data,sec,plain\n$/,
	'what it copied is in the list');

# ---- refusals --------------------------------------------------------------------------------

foreach my $case (
	[ [ '-l', 'more' ], qr/invalid argument more/ ],
	[ ['--no-such'],    qr/unrecognized option/ ],
	[ [ '-l', '--view-results-of-copying' ], qr/option -l conflicts with option --view-results-of-copying/ ],
	[ [ '-l', '-B', work_dir() . '/none' ], qr/the specified backup storage directory ".*none" is not correct/ ],
  )
{
	my ($options, $like) = @$case;
	($rc, $out, $err) = rcvall($node, @$options);
	is($rc, 1, "@$options: exit code");
	like($err, $like, "@$options: message");
}

done_testing();
