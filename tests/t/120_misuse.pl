# 120_misuse.pl
#		What a server does with bad input: each is refused with a clear message, nothing
#		on disk has changed, and once it is put right the server is as before.  Then ways
#		of starting "postgres" that are easy to get wrong.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use Cwd;
use Digest::SHA qw(sha256);
use File::Basename;
use File::Copy;
use File::Find;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PgxTde;
use Test::More;

my $env_file = work_dir() . '/archive_env';
my $node = new_primary(
	'main',
	conf => "archive_mode = on\nautovacuum = off\n"
	  . "archive_command = 'env >$env_file.new && mv $env_file.new $env_file'");
my $other = new_primary('other');
$other->stop;
my $space = tablespace_dir($node, 'enc');
$node->safe_psql('postgres',
	"CREATE TABLESPACE enc LOCATION '$space' WITH (tablespace_encryption_algorithm = 'AES256')");
$node->safe_psql('postgres', q{
	CREATE TABLE secret TABLESPACE enc AS SELECT g, 'MARK_secret' || g AS x FROM generate_series(1, 3000) g;
	CREATE TABLE plain AS SELECT g FROM generate_series(1, 100) g});
my $content = fingerprint($node, 'postgres');
$node->stop;

my $data = $node->data_dir;
my $keys = keystore_dir($node);
my $ks = keystore_file($node);
my $kt = keytable_file($node);
my $good_ks = slurp_raw($ks);
my $good_kt = slurp_raw($kt);

# Every file, link and directory of the server: mode, and checksum or target.  What any start writes is left out.
sub snapshot
{
	my %found;
	find(
		{
			no_chdir => 1,
			wanted => sub {
				return if /^\Q$data\E\/postmaster\.(?:opts|pid)$/;
				my $mode = sprintf '%o', (lstat $_)[2];
				$found{$_} = "$mode " . (-l $_ ? readlink $_ : -f _ ? unpack('H*', sha256(slurp_raw($_))) : '');
			}
		},
		$data, $space, $keys);
	return \%found;
}

# Compare two snapshots; only what differs is shown.
sub unchanged
{
	my ($before, $name) = @_;
	my $now = snapshot();
	my %all = (%$before, %$now);
	my @different = grep { ($before->{$_} // '') ne ($now->{$_} // '') } sort keys %all;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is_deeply(\@different, [], $name);
}

# The server runs, and has what it had.
sub is_whole
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is_content(fingerprint($node, 'postgres'), $content, $name);
	return;
}

# A start that must fail.  Parameters:
#   break, mend   what to do before, and to put it right again
#   options       for pg_ctl
#   env           for the server
#   start         instead of the stock pg_ctl: returns exit code and what was said
#   crash         1: the server has to recover from a crash
sub refused
{
	my ($name, $messages, %params) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($log, $whole);

	if ($params{crash})
	{
		$node->start;
		$node->safe_psql('postgres', 'CHECKPOINT; INSERT INTO secret VALUES (0, repeat($$MARK_late$$, 20))');
		$content = fingerprint($node, 'postgres');
		$node->stop('immediate');
	}
	$whole = snapshot();
	$params{break}->() if $params{break};
	my $before = $params{break} ? snapshot() : $whole;
	if ($params{start})
	{
		my $size = log_size($node);
		my ($rc, $out, $err) = $params{start}->();
		is($rc, 1, "$name: exit code");
		ok(!is_running($node), "$name: no server");
		$log = $err . log_since($node, $size);
	}
	else
	{
		local %ENV = (%ENV, %{ $params{env} // {} });
		$log = start_fails($node, @{ $params{options} // [] });
	}
	like($log, $_, "$name: message") foreach @$messages;
	unlike($log, qr/MARK_|\Q$PASSPHRASE\E/, "$name: nothing secret");
	unchanged($before, "$name: nothing changed on disk");
	if ($params{mend})
	{
		$params{mend}->();
		unchanged($whole, "$name: put right, all is as it was");
	}
	starts_again("$name: put right") if $params{crash};
	return;
}

# After a group of cases: each left the server as the one before, so one start shows it for all.
sub starts_again
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(plain_start($node), 0, "$name, it starts");
	is_whole("$name, all data is there");
	$node->stop;
	return;
}

# ---- the keystore ---------------------------------------------------------------------------------

sub refused_keystore
{
	my ($name, $bytes, @messages) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return refused(
		$name, \@messages,
		break => sub { write_file($ks, $bytes) },
		mend => sub { write_file($ks, $good_ks) });
}

# With a byte flipped; as somebody would do it who also corrects the checksum at the end.
sub flipped
{
	my ($bytes, $offset) = @_;
	substr($bytes, $offset, 1) ^= "\x01";
	return $bytes;
}

sub sealed
{
	my ($bytes) = @_;
	my $start = substr($bytes, 0, -32);
	return $start . sha256($start);
}
is(unpack('H*', sealed($good_ks)), unpack('H*', $good_ks), 'the checksum is where this test thinks it is');

refused(
	'no keystore',
	[ qr/FATAL:  keystore "\Q$ks\E" does not exist/, qr/HINT:  Make sure that the location is correct\./ ],
	break => sub { rename $ks, "$ks.away" },
	mend => sub { rename "$ks.away", $ks });
refused(
	'no directory',
	[ qr/FATAL:  directory "\Q$keys\E" does not exist/, qr/HINT:  .*"mkdir -m 700 \Q$keys\E"/ ],
	break => sub { rename $keys, "$keys.away" },
	mend => sub { rename "$keys.away", $keys });
refused_keystore('empty keystore', '', qr/FATAL:  (?:file|keystore) "\Q$ks\E" is (?:not a keystore|corrupted)/);
my $repair_hint = qr/HINT:  Run "pgx_keystore repair \Q$ks\E", which takes "keystore\.ks\.prev" or a backup, or copy/;
refused_keystore('truncated by one byte', substr($good_ks, 0, -1), qr/FATAL:  keystore "\Q$ks\E" is corrupted/,
	$repair_hint);
refused_keystore('truncated by half', substr($good_ks, 0, length($good_ks) / 2),
	qr/FATAL:  keystore "\Q$ks\E" is corrupted/, $repair_hint);
refused_keystore('one byte more', "$good_ks\n", qr/FATAL:  keystore "\Q$ks\E" is corrupted/);
refused_keystore("byte $_ flipped", flipped($good_ks, $_),
	qr/FATAL:  keystore "\Q$ks\E" is corrupted: invalid checksum/,
	$repair_hint)
  foreach 20, 150, length($good_ks) - 1;
refused_keystore('body altered', sealed(flipped($good_ks, length($good_ks) - 100)),
	qr/FATAL:  keystore "\Q$ks\E" is corrupted: its content was altered/);
refused_keystore('wrong magic', sealed(flipped($good_ks, 0)), qr/FATAL:  file "\Q$ks\E" is not a keystore/, $repair_hint);
{
	my $future = $good_ks;
	substr($future, 8, 2) = pack 'n', 99;
	refused_keystore('unknown version', sealed($future),
		qr/FATAL:  keystore "\Q$ks\E" has format version 99, but only versions 1 and 2 are supported/,
		qr/HINT:  Use the version that wrote the keystore, or a later one\./);
}
refused(
	'group-readable file',
	[ qr/FATAL:  file "\Q$ks\E" has group or other access \(mode 0640\)/, qr/HINT:  Run "chmod 600 \Q$ks\E"\./ ],
	break => sub { chmod 0640, $ks },
	mend => sub { chmod 0600, $ks });
refused(
	'group-readable directory',
	[
		qr/FATAL:  directory "\Q$keys\E" has group or other access \(mode 0750\)/,
		qr/HINT:  Run "chmod 700 \Q$keys\E"\./
	],
	break => sub { chmod 0750, $keys },
	mend => sub { chmod 0700, $keys });
refused(
	'symbolic link',
	[qr/FATAL:  file "\Q$ks\E" is a symbolic link/],
	break => sub { rename $ks, "$ks.real"; symlink "$ks.real", $ks },
	mend => sub { rename "$ks.real", $ks });
symlink $keys, "$keys.link";
refused(
	'symbolic link to the directory',
	[qr/FATAL:  directory "\Q$keys\E.link" is a symbolic link/],
	options => [ '-o', "-c pgx_tde.keystore_location=$keys.link" ]);
refused_keystore(
	'keystore of another UUID', slurp_raw(keystore_file($other)),
	qr/FATAL:  keystore "\Q$ks\E" does not belong to this data directory/,
	qr/DETAIL:  The data needs keystore [0-9a-f-]{36}, but this is keystore [0-9a-f-]{36}\./,
	qr/HINT:  Copy the keystore of this replication group with "pgx_keystore copy"/);

starts_again('the keystore put right');

# ---- its location ----------------------------------------------------------------------------------

# The keystore is there, and the place is all that is wrong.
sub refused_place
{
	my ($name, $dir, $what) = @_;
	mkdir $dir, 0700;
	copy($ks, "$dir/keystore.ks");
	chmod 0600, "$dir/keystore.ks";
	symlink $dir, work_dir() . '/disguise';
	foreach my $location ($dir, work_dir() . '/disguise')
	{
		refused(
			"$name, as \"" . basename($location) . '"',
			[ qr/FATAL:  keystore location "\Q$location\E" lies in $what/, qr/HINT:  Move the keystore/ ],
			options => [ '-o', "-c pgx_tde.keystore_location=$location" ]);
	}
	unlink work_dir() . '/disguise', "$dir/keystore.ks";
	rmdir $dir;
	return;
}
refused_place('in the data directory', "$data/inside", 'the data directory');
refused_place('in a tablespace', "$space/inside", 'a tablespace');
refused(
	'relative location',
	[ qr/FATAL:  keystore location "keys" is not an absolute path/, qr/HINT:  Specify the whole path/ ],
	options => [ '-o', '-c pgx_tde.keystore_location=keys' ]);
refused(
	'no location',
	[ qr/FATAL:  keystore location is not configured/, qr/HINT:  Specify pgx_tde\.keystore_location parameter/ ],
	options => [ '-o', '-c pgx_tde.keystore_location=' ]);

starts_again('its location put right');

# ---- the passphrase ----------------------------------------------------------------------------------

foreach my $case (
	[ 'wrong passphrase', 'certainly another one', qr/FATAL:  .*passphrase/ ],
	[ 'passphrase of 7 bytes', '1234567', qr/DETAIL:  .* between 8 and 200 bytes/ ],
	[ 'passphrase of 201 bytes', 'x' x 201, qr/DETAIL:  .* between 8 and 200 bytes/ ],
	[ 'no passphrase', '', qr/FATAL:  could not get the passphrase .*\n.*DETAIL:  The command printed nothing/ ])
{
	my ($name, $passphrase, $message) = @$case;
	refused(
		$name, [$message],
		break => sub { set_passphrase($node, $passphrase) },
		mend => sub { set_passphrase($node, $PASSPHRASE) });
}
refused(
	'passphrase command fails',
	[qr/FATAL:  could not get the passphrase .* from command "exit 3"\n.*DETAIL:  .*exit code 3/],
	options => [ '-o', '-c pgx_tde.keystore_passphrase_command="exit 3"' ]);
refused(
	'nothing opens it',
	[
		qr/FATAL:  could not encrypt or decrypt data because the keystore is not open/,
		qr/HINT:  Start the server with "pg_ctl --keystore-passphrase start"/
	],
	options => [ '-o', '-c pgx_tde.keystore_passphrase_command=' ],
	crash => 1);

starts_again('the passphrase put right');

# ---- the key table --------------------------------------------------------------------------------------

sub refused_keytable
{
	my ($name, $bytes, @messages) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return refused(
		$name, \@messages,
		break => sub { write_file($kt, $bytes) },
		mend => sub { write_file($kt, $good_kt) });
}
my $damaged = qr/FATAL:  key table "pgx_tde\/keys" is (?:damaged|not a key table)/;
my $restore = qr/HINT:  Restore the file from a backup of this data directory/;

refused_keytable('key table: empty', '', $damaged, $restore);
refused_keytable('key table: truncated', substr($good_kt, 0, -1), $damaged, $restore);
refused_keytable("key table: byte $_ flipped", flipped($good_kt, $_), $damaged, $restore)
  foreach 0, length($good_kt) / 2, length($good_kt) - 1;
refused_keytable('key table: of another cluster', slurp_raw(keytable_file($other)),
	qr/FATAL:  keystore "\Q$ks\E" does not belong to this data directory/);

starts_again('the key table put right');

# Without a key table, or without the module, a cluster looks like any other until recovery looks at its WAL.
refused(
	'key table removed',
	[
		qr/FATAL:  could not decrypt WAL because the keys in file "pgx_tde\/keys" are missing/,
		qr/HINT:  Restore the file from a backup of this data directory/
	],
	break => sub { rename $kt, "$kt.away" },
	mend => sub { rename "$kt.away", $kt },
	crash => $_)
  foreach 0, 1;
refused(
	'without the module',
	[qr/PANIC:  could not locate a valid checkpoint record/],
	options => [ '-o', '-c shared_preload_libraries=' ],
	crash => $_)
  foreach 0, 1;

# ---- the handover ------------------------------------------------------------------------------------------

foreach my $value ('abc', '99', '', '-1', '1', '99999999999999999999')
{
	refused(
		"PGX_KEYSTORE_FD=$value",
		[
			qr/FATAL:  environment variable PGX_KEYSTORE_FD does not name a pipe/,
			qr/HINT:  The variable is for "pg_ctl --keystore-passphrase" only/
		],
		env => { PGX_KEYSTORE_FD => $value });
}

# Start with what the shell opens as descriptor 9.
sub start_with
{
	my ($redirection, $stdin) = @_;
	return run_program(
		[
			'timeout', $PostgreSQL::Test::Utils::timeout_default, 'sh', '-c', "exec pg_ctl \"\$\@\" $redirection", 'sh', '-w', '-D', $data, '-l',
			$node->logfile, 'start'
		],
		stdin => $stdin // '',
		env => { PGX_KEYSTORE_FD => 9 });
}
refused(
	'PGX_KEYSTORE_FD: a regular file',
	[qr/FATAL:  environment variable PGX_KEYSTORE_FD does not name a pipe/],
	start => sub { start_with("9<$data/PG_VERSION") });
foreach my $garbage ('', 'garbage', 'PGXKSK01', 'g' x 56, 'g' x 5000)
{
	refused(
		'PGX_KEYSTORE_FD: a pipe with ' . length($garbage) . ' wrong bytes',
		[ qr/FATAL:  pg_ctl did not hand over the key/, qr/HINT:  Use the pg_ctl that was installed together/ ],
		start => sub { start_with('9<&0', $garbage) });
}
refused(
	'PGX_KEYSTORE_FD: a wrong key',
	[ qr/FATAL:  the key that pg_ctl handed over does not open keystore "\Q$ks\E"/, qr/HINT:  Start the server again/ ],
	start => sub { start_with('9<&0', 'PGXKSK01' . substr($good_ks, 16, 16) . 'k' x 32) });
system('mkfifo', work_dir() . '/fifo') == 0 or die 'could not make a FIFO';
refused(
	'PGX_KEYSTORE_FD: a pipe that nobody writes to',
	[qr/FATAL:  pg_ctl did not hand over the key/],
	start => sub { start_with('9<>' . work_dir() . '/fifo') });

starts_again('without a wrong handover');

# ---- the pg_ctl that asks ---------------------------------------------------------------------------------

refused(
	'closed standard input',
	[qr/error: could not read the passphrase/],
	start => sub {
		run_program(
			[
				'setsid', '-w', 'sh', '-c', 'exec "$@" <&-', 'sh', "$ENV{PGX_SHIM_DIR}/pg_ctl", '-w', '-D', $data,
				'-l', $node->logfile, '--keystore-passphrase', 'start'
			]);
	});
$node->start;
foreach my $mode (qw(stop status reload promote logrotate))
{
	my $pid = is_running($node);
	my ($rc, $out, $err) = shim($node, [ '--keystore-passphrase', $mode ], "$PASSPHRASE\n");
	is($rc, 1, "pg_ctl --keystore-passphrase $mode: exit code");
	like($err, qr/error: option --keystore-passphrase cannot be used with mode "$mode"\n.*"start" or "restart"/,
		'message');
	is(is_running($node), $pid, 'the server goes on');
}
$node->_update_pid(1);
is_whole('all data is there');
$node->stop;

# ---- the I/O layer ------------------------------------------------------------------------------------------

{
	my ($bin, $lib, $share) = map { chomp(my $dir = `pg_config --$_`); $dir } qw(bindir pkglibdir sharedir);
	# A private installation: links, but for the programs, which look for their libraries where they are.
	my $private = work_dir() . '/private';
	my ($bin2, $lib2, $share2) = map { $private . $_ } $bin, $lib, $share;
	system('mkdir', '-p', $bin2, $lib2, dirname($share2)) == 0 or die;
	copy("$bin/$_", "$bin2/$_") && chmod(0755, "$bin2/$_") or die foreach qw(postgres pg_ctl);
	symlink $share, $share2;
	symlink $_, "$lib2/" . basename($_) foreach grep { !/pgx_tde_io\.so$/ } glob "$lib/*";
	my $start = sub {
		run_program(
			[ "$bin2/pg_ctl", '-w', '-D', $data, '-l', $node->logfile, 'start' ]);
	};

	refused(
		'I/O layer missing',
		[
			qr/FATAL:  could not access the I\/O layer "\Q$lib2\E\/pgx_tde_io\.so": No such file/,
			qr/HINT:  Install pgx_tde again/
		],
		start => $start);
	write_file("$lib2/pgx_tde_io.so", 'not a shared library', 0755);
	refused(
		'I/O layer not a library',
		[ qr/FATAL:  the I\/O layer "\Q$lib2\E\/pgx_tde_io\.so" could not be loaded/, qr/HINT:  .*dynamic linker/ ],
		start => $start);

	# Control: with the layer in place the private installation works.
	unlink "$lib2/pgx_tde_io.so";
	symlink "$lib/pgx_tde_io.so", "$lib2/pgx_tde_io.so";
	is(($start->())[0], 0, 'with the I/O layer it starts');
	$node->_update_pid(1);
	is_whole('all data is there');
	$node->stop;
}

# The environment of an archive command of a server that was started with some LD_PRELOAD.
sub archive_environment
{
	my ($preload) = @_;
	{
		local $ENV{LD_PRELOAD} = $preload;
		delete $ENV{LD_PRELOAD} if !defined $preload;
		is(plain_start($node), 0, 'start with LD_PRELOAD ' . ($preload // 'unset'));
	}
	$node->_update_pid(1);
	is_whole('all data is there');
	my $maps = slurp_raw('/proc/' . is_running($node) . '/maps');
	like($maps, qr/pgx_tde_io\.so/, 'the I/O layer is in the server');
	like($maps, qr/\Q$preload\E/, 'and so is the other library') if defined $preload;
	unlink $env_file;
	finish_segment($node);
	wait_until(sub { -e $env_file });
	my $environment = slurp_raw($env_file) // '';
	like($environment, qr/^PATH=/m, 'an archive command has an environment');
	unlike($environment, qr/pgx_tde_io|PGX_TDE_IO|PGX_KEYSTORE/, 'with nothing of ours in it');
	$node->stop;
	return $environment;
}
unlike(archive_environment(undef), qr/^LD_PRELOAD=/m, 'LD_PRELOAD is gone');
SKIP:
{
	# One that no server needs.
	my ($library) = map { Cwd::realpath($_) } glob '/lib/*/libBrokenLocale.so.1 /lib/libBrokenLocale.so.1';
	skip 'no library for LD_PRELOAD', 1 if !defined $library;
	like(archive_environment($library), qr/^LD_PRELOAD=\Q$library\E$/m, 'LD_PRELOAD of somebody else is kept');
}

# ---- other ways of running postgres -----------------------------------------------------------------------

# None may ask for a passphrase; the command leaves a trace.
my $trace = work_dir() . '/asked';

sub run_postgres
{
	my ($stdin, @argv) = @_;
	return run_program([ 'timeout', $PostgreSQL::Test::Utils::timeout_default, 'postgres', @argv ], stdin => $stdin);
}
my @traced = ('-c', "pgx_tde.keystore_passphrase_command=touch $trace; cat " . pass_file($node));
my $before = snapshot();

is_deeply([ (run_postgres('', '-D', $data, '-C', 'pgx_tde.keystore_location', @traced))[ 0, 1 ] ],
	[ 0, "$keys\n" ], 'postgres -C: one of our settings');
is_deeply([ (run_postgres('', '-C', 'port', '-D', $data, @traced))[ 0, 1 ] ], [ 0, $node->port . "\n" ],
	'postgres -C: one of the server');
{
	my ($rc, $out) = run_postgres('', '-D', $data, @traced, '-C', 'shared_memory_size');
	is($rc, 0, 'postgres -C: one that is computed: exit code');
	like($out, qr/^[1-9]\d*\n\z/, 'and value');
	($rc, $out) = run_postgres('', '--describe-config');
	is($rc, 0, 'postgres --describe-config: exit code');
	like($out, qr/^shared_buffers\t/m, 'and output');
	is(-e $trace, undef, 'none asked for a passphrase');
	unchanged($before, 'and nothing changed on disk');

	my $sql = "SELECT 'sum ' || sum(g) AS s FROM secret WHERE g > 0\n";
	($rc, $out, my $err) = run_postgres($sql, '--single', '-D', $data, @traced, 'postgres');
	is($rc, 0, 'postgres --single: exit code');
	like($out, qr/s = "sum 4501500"/, 'it reads encrypted data');
	ok(-e $trace, 'after the passphrase command');
	($rc, $out, $err) =
	  run_postgres($sql, '--single', '-D', $data, '-c', 'pgx_tde.keystore_passphrase_command=', 'postgres');
	is($rc, 1, 'postgres --single without a passphrase: exit code');
	like($err, qr/FATAL:  could not encrypt or decrypt data because the keystore is not open/, 'and message');
	unlike($out, qr/sum/, 'and no data');
}

# A data directory relative to where the server is started; then again from elsewhere, by postmaster.opts.
{
	my ($parent, $name) = (dirname($data), basename($data));
	my ($rc) = run_program(
		[
			'sh', '-c', 'cd "$1" && exec pg_ctl -w -D "$2" -l "$3" start', 'sh', $parent, $name, $node->logfile
		]);
	is($rc, 0, 'start with a relative -D');
	$node->_update_pid(1);
	is_whole('all data is there');
	my $pid = is_running($node);
	($rc) = run_program(
		[ 'sh', '-c', 'cd / && exec pg_ctl -w -D "$1" -l "$2" restart', 'sh', $data, $node->logfile ]);
	is($rc, 0, 'restart from elsewhere');
	$node->_update_pid(1);
	isnt(is_running($node), $pid, 'it is another server');
	is_whole('all data is there');
	$node->stop;

	($rc) = run_program(
		[
			'sh', '-c', 'cd "$1" && PGDATA=$2 exec pg_ctl -w -l "$3" start', 'sh', $parent, "./$name",
			$node->logfile
		]);
	is($rc, 0, 'start with a relative PGDATA');
	$node->_update_pid(1);
	is_whole('all data is there');
	$node->stop;
}
is(unpack('H*', slurp_raw($ks)), unpack('H*', $good_ks), 'the keystore has never changed');

done_testing();
