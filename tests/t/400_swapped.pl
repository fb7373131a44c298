# 400_swapped.pl
#		Pieces of a server that belong to another time, another place or another
#		tablespace: an older key table, keys and tablespaces exchanged, the I/O layer lost
#		on the way, a data directory behind a symbolic link, module and I/O layer of other
#		builds.  Each is refused before anything is written, or does no harm.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use File::Basename;
use File::Copy;
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

# ---- module, I/O layer and server of other builds -----------------------------------------------------------------

# A private installation: links, but for the programs, which look for their libraries where they are, and for what is
# changed in a test.
my ($bin, $lib, $share) = map { chomp(my $dir = `pg_config --$_`); $dir } qw(bindir pkglibdir sharedir);
my $private = work_dir() . '/private';
my ($bin2, $lib2, $share2) = map { $private . $_ } $bin, $lib, $share;
system_or_bail('mkdir', '-p', $bin2, $lib2, dirname($share2));
copy("$bin/$_", "$bin2/$_") && chmod(0755, "$bin2/$_") or die foreach qw(postgres pg_ctl);
symlink $share, $share2;
symlink $_, "$lib2/" . basename($_) foreach glob "$lib/*";

# Start there with another content of a library; returns exit code and what came to the log.
sub start_with
{
	my ($library, $content) = @_;
	my $size = log_size($node);
	unlink "$lib2/$library";
	write_file("$lib2/$library", $content, 0755);
	my ($rc) = run_program([ "$bin2/pg_ctl", '-w', '-D', $data, '-l', $node->logfile, 'start' ]);
	unlink "$lib2/$library";
	symlink "$lib/$library", "$lib2/$library";
	return ($rc, log_since($node, $size));
}

# Exchange bytes that must be there exactly so many times.
sub exchanged
{
	my ($bytes, $from, $to, $times) = @_;
	my $n = ($bytes =~ s/\Q$from\E/$to/g) || 0;
	die "expected " . unpack('H*', $from) . " $times times, but it is there $n times" if $n != $times;
	return $bytes;
}

# Where in the file of a library a symbol's value is.
sub offset_of
{
	my ($library, $symbol) = @_;
	my ($address) = `nm -D "$library"` =~ /^([0-9a-f]+) D \Q$symbol\E$/m or die "no symbol $symbol";
	foreach my $line (split /\n/, `readelf -SW "$library"`)
	{
		my ($start, $at, $length) = $line =~ /PROGBITS\s+([0-9a-f]+) ([0-9a-f]+) ([0-9a-f]+) / or next;
		my $into = hex($address) - hex $start;
		return hex($at) + $into if $into >= 0 && $into < hex $length && hex $start;
	}
	die "no section for $symbol";
}

my $module = slurp_raw("$lib/pgx_tde.so");
my $layer = slurp_raw("$lib/pgx_tde_io.so");
my $interface = offset_of("$lib/pgx_tde_io.so", 'pgx_tde_io_api');
my ($major, $number) = (`pg_config --version` =~ /(\d+)\.(\d+)/) ? ($1, $1 * 10000 + $2) : die;
$content = fingerprint($node, 'postgres');
$node->stop;

# The number of the server compiled for is compared at one place.
{
	my $other = $number - 1;
	my ($rc, $text) = start_with('pgx_tde.so', exchanged($module, pack('V', $number), pack('V', $other), 1));
	is($rc, 0, 'a module that was compiled for another minor version: start');
	$node->_update_pid(1);
	like($text, qr/LOG:  pgx_tde was compiled for PostgreSQL $major\.\S+.* and runs in $major\.\d+/, 'and message');
	like($text, qr/DETAIL:  Minor versions of one major version are compatible\./, 'and detail');
	is_whole('all data is there');
	$node->safe_psql('postgres', 'UPDATE t_one SET g = g + 1; CHECKPOINT');
	$content = fingerprint($node, 'postgres');
	$node->stop('immediate');
	$node->start;
	is_whole('what was written there is there after a crash');
	$node->stop;
}
{
	# In PG_MODULE_MAGIC: version, FUNC_MAX_ARGS, INDEX_MAX_KEYS, NAMEDATALEN, FLOAT8PASSBYVAL.
	my @magic = (100, 32, 64, 1);
	my $other = exchanged($module, pack('V5', $major * 100, @magic), pack('V5', ($major + 1) * 100, @magic), 1);
	$before = disk();
	my ($rc, $text) = start_with('pgx_tde.so', $other);
	is($rc, 1, 'a module of another major version: exit code');
	like($text, qr/FATAL:  incompatible library "\Q$lib2\E\/pgx_tde\.so": version mismatch/, 'and message');
	is_untouched($before, 'a module of another major version');
}
foreach my $case (
	[ 'interface version', 0, qr/FATAL:  the I\/O layer has interface version \d+, but the module needs \d+/ ],
	[ 'shape of the interface', 4, qr/FATAL:  the I\/O layer "\Q$lib2\E\/pgx_tde_io\.so" and the module are of different builds/ ])
{
	my ($name, $offset, $message) = @$case;
	my $other = $layer;
	substr($other, $interface + $offset, 4) = pack('V', unpack('V', substr($layer, $interface + $offset, 4)) + 1);
	$before = disk();
	my ($rc, $text) = start_with('pgx_tde_io.so', $other);
	is($rc, 1, "an I/O layer with another $name: exit code");
	like($text, $message, 'and message');
	like($text, qr/HINT:  Install both from the same (?:version|build) of pgx_tde\./, 'and hint');
	is_untouched($before, "another $name");
}
{
	my ($rc) = start_with('pgx_tde.so', $module);
	is($rc, 0, 'control: with its own module and I/O layer it starts');
	$node->_update_pid(1);
	is_whole('all data is there');
	$node->stop;
}

done_testing();
