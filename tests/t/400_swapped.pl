# 400_swapped.pl
#		Pieces of a server that belong to another time, another place or another
#		tablespace: an older key table, keys and tablespaces exchanged, the I/O layer lost
#		on the way, a data directory behind a symbolic link.  Each is refused before
#		anything is written, or does no harm.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PgxTde;
use Test::More;

my $node = new_primary('main', checksums => 1, conf => "autovacuum = off\n");
my $data = $node->data_dir;
my $kt = keytable_file($node);

sub make_space
{
	my ($name) = @_;
	my $dir = tablespace_dir($node, $name);
	$node->safe_psql('postgres',
		"CREATE TABLESPACE $name LOCATION '$dir' WITH (tablespace_encryption_algorithm = 'AES256')");
	$node->safe_psql('postgres', "CREATE TABLE t_$name TABLESPACE $name AS
		SELECT g, 'MARK_$name' || g AS x FROM generate_series(1, 3000) g");
	return $node->safe_psql('postgres', "SELECT oid FROM pg_tablespace WHERE spcname = '$name'");
}

my $first = make_space('one');
my $table_before = slurp_raw($kt);
rotate($node);
my $second = make_space('two');
my $content = fingerprint($node, 'postgres');
$node->stop;
my $good = slurp_raw($kt);

sub is_whole
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is_content(fingerprint($node, 'postgres'), $content, $name);
	return;
}

# Everything below the data directory and the tablespaces, but for what any start writes.
sub disk
{
	my %found;
	foreach my $path (files_below($data, map { $node->basedir . "/ts_$_" } 'one', 'two'))
	{
		$found{$path} = slurp_raw($path) unless $path =~ m{/postmaster\.(?:opts|pid)$};
	}
	return \%found;
}

sub is_untouched
{
	my ($before, $name) = @_;
	my $now = disk();
	my %all = (%$before, %$now);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is_deeply([ grep { ($before->{$_} // '') ne ($now->{$_} // '') } sort keys %all ],
		[], "$name: nothing was written");
	return;
}

# ---- an older key table ----------------------------------------------------------------------------------------

write_file($kt, $table_before);
my $before = disk();
my $log = start_fails($node);
like(
	$log,
	qr/FATAL:  tablespace $second holds encrypted data, but key table "pgx_tde\/keys" has no key for it/,
	'an older key table, without a tablespace: message');
like($log, qr/HINT:  Restore the file from a backup of this data directory that was made later/, 'and hint');
is_untouched($before, 'an older key table');
write_file($kt, $good);
$node->start;
is_whole('with its own key table all data is there');

# One that differs by a change of the master key alone opens everything, since master keys are kept.
rotate($node);
$node->stop;
my $newer = slurp_raw($kt);
isnt(unpack('H*', $newer), unpack('H*', $good), 'a change of the master key changes the table');
write_file($kt, $good);
$node->start;
is_whole('a key table from before a change of the master key: all data is there');
rotate($node);
$node->safe_psql('postgres', 'INSERT INTO t_one VALUES (0, $$later$$)');
$content = fingerprint($node, 'postgres');
$node->stop('immediate');
$node->start;
is_whole('and after another change and a crash');
$node->stop;
$good = slurp_raw($kt);

# ---- keys and tablespaces exchanged ---------------------------------------------------------------------------

# Entries are fixed in size here: the key of WAL (32 bytes), then two of 64; nonce and tag around each.
{
	my ($wal_len, $len) = (12 + 12 + 32 + 16, 12 + 12 + 64 + 16);
	my $one = 52 + $wal_len;
	my $two = $one + $len;
	is_deeply([ unpack('N3', substr($good, $one, 12)) ], [ 2, $first, 2 ], 'the first key is where this test thinks');
	is_deeply([ unpack('N3', substr($good, $two, 12)) ], [ 2, $second, 2 ], 'and so is the second');

	my $swapped = $good;
	substr($swapped, $one + 12, $len - 12) = substr($good, $two + 12, $len - 12);
	substr($swapped, $two + 12, $len - 12) = substr($good, $one + 12, $len - 12);
	write_file($kt, $swapped);
	$before = disk();
	like(start_fails($node), qr/FATAL:  key table "pgx_tde\/keys" is damaged/, 'keys of tablespaces exchanged: message');
	is_untouched($before, 'keys exchanged');
	write_file($kt, $good);
}

# The files of one in the place of the other: no page of them is taken for a page.
{
	$node->start;
	my ($file_one, $file_two) =
	  map { "$data/" . $node->safe_psql('postgres', "SELECT pg_relation_filepath('t_$_')") } 'one', 'two';
	$node->stop;
	my ($bytes_one, $bytes_two) = map { slurp_raw($_) } $file_one, $file_two;
	write_file($file_one, $bytes_two);
	write_file($file_two, $bytes_one);
	$node->start;
	foreach my $name ('one', 'two')
	{
		my $error = query_fails($node, 'postgres', "SELECT count(*), min(x) FROM t_$name");
		like($error, qr/ERROR:  invalid page in block 0 of relation/, "files of tablespaces exchanged: t_$name");
		unlike($error, qr/MARK_/, 'and nothing of it is shown');
	}
	$node->stop('immediate');
	write_file($file_one, $bytes_one);
	write_file($file_two, $bytes_two);
	$node->start;
	is_whole('put right, all data is there');
	$node->stop;
}

# ---- the way into the server ------------------------------------------------------------------------------------

# LD_PRELOAD does not arrive where the server executes itself again.
{
	local $ENV{PGX_TDE_IO_GUARD} = 1;
	$before = disk();
	$log = start_fails($node);
	like($log, qr/FATAL:  the I\/O layer ".*\/pgx_tde_io\.so" could not be loaded/, 'LD_PRELOAD lost: message');
	is_untouched($before, 'LD_PRELOAD lost');
}

# The data directory by a symbolic link, then by its own name.
{
	my $link = work_dir() . '/linked';
	symlink $data, $link or die "could not make \"$link\": $!";
	my ($rc) = run_program([ 'pg_ctl', '-w', '-D', $link, '-l', $node->logfile, 'start' ]);
	is($rc, 0, 'a data directory behind a symbolic link: start');
	$node->_update_pid(1);
	is_whole('all data is there');
	$node->safe_psql('postgres', 'INSERT INTO t_two SELECT g, $$MARK_linked$$ || g FROM generate_series(1, 3000) g; CHECKPOINT');
	$content = fingerprint($node, 'postgres');
	ok(files_with({ mark => 'MARK_linked' }, $0), 'a search finds what is there');
	is_deeply([ files_with({ mark => 'MARK_linked' }, $data, $node->basedir . '/ts_two') ],
		[], 'and nothing is in plaintext');
	($rc) = run_program([ 'pg_ctl', '-w', '-D', $link, '-m', 'immediate', 'stop' ]);
	is($rc, 0, 'stop');
	$node->_update_pid(-1);
	$node->start;
	is_whole('by its own name, after a crash: all data is there');
}

done_testing();
