# PgxTde.pm
#		What the tests on real servers share: primaries with the module and a keystore
#		directory of their own, standbys by the stock pg_basebackup, starts by our
#		pg_ctl, and looking for bytes in files.
#
# Servers are PostgreSQL::Test::Cluster objects.  What belongs to us is kept in them under keys that
# begin with "pgx_".

package PgxTde;

use strict;
use warnings;

use Exporter 'import';
use File::Find;
use File::Path qw(make_path);
use IO::Handle;
use IPC::Run;
use MIME::Base64;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

our $PASSPHRASE = 'open sesame, said the test';

our @EXPORT = qw(
  $PASSPHRASE
  work_dir keystore_dir keystore_file keytable_file pass_file set_passphrase create_keystore write_file slurp_raw
  pgx_keystore run_program shim shim_start plain_start start_fails log_size log_since
  new_primary new_standby copy_keystore base_backup configure_node tablespace_dir
  query_fails status_of comes_back fingerprint is_content same_content caught_up rotate finish_segment
  last_segment same_wal files_below files_with forms_of is_same_file is_running auto_open wait_until
);

# A directory of this test for everything that must not lie in a data directory.
my $work;

sub work_dir
{
	$work //= PostgreSQL::Test::Utils::tempdir('pgx');
	return $work;
}

sub write_file
{
	my ($path, $content, $mode) = @_;
	open my $fh, '>:raw', $path or die "could not open \"$path\": $!";
	print $fh $content;
	close $fh or die "could not write \"$path\": $!";
	chmod $mode // 0600, $path or die "could not chmod \"$path\": $!";
	return $path;
}

sub slurp_raw
{
	my ($path) = @_;
	open my $fh, '<:raw', $path or return undef;
	local $/;
	my $content = <$fh>;
	close $fh;
	return $content // '';
}

sub is_same_file
{
	my ($one, $two, $name) = @_;
	my ($a, $b) = (slurp_raw($one), slurp_raw($two));
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(defined $a && defined $b && length $a > 0 && $a eq $b, $name);
}

# Wait for a condition as long as the other waits of tests, $PG_TEST_TIMEOUT_DEFAULT; returns whether it holds.
sub wait_until
{
	my ($condition) = @_;
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;

	until ($condition->())
	{
		return 0 if time > $end;
		usleep(20_000);
	}
	return 1;
}

# ---- keystores ------------------------------------------------------------------

# The directory of a server's keystore; it exists and is 0700.
sub keystore_dir
{
	my ($node) = @_;
	return $node->{pgx_keystore_dir};
}

sub keystore_file { return keystore_dir($_[0]) . '/keystore.ks'; }
sub keytable_file { return $_[0]->data_dir . '/pgx_tde/keys'; }

# The file that the passphrase command of a server prints.
sub pass_file { return $_[0]->{pgx_pass_file}; }

sub set_passphrase
{
	my ($node, $passphrase) = @_;
	return write_file(pass_file($node), "$passphrase\n");
}

# Run a program; returns exit code, standard output, standard error.  Options: stdin, env.
sub run_program
{
	my ($argv, %params) = @_;
	my ($out, $err) = ('', '');
	my $in = $params{stdin} // '';

	print '# Running: ' . join(' ', @$argv) . "\n";
	local %ENV = (%ENV, %{ $params{env} // {} });
	# A pipe that is filled beforehand: a program may end without reading it, which IPC::Run's own writing
	# takes, now and then, for a reason to die.
	if (length $in < 60000)
	{
		pipe my $reader, my $writer or die "could not make a pipe: $!";
		$writer->autoflush(1);
		print $writer $in;
		close $writer;
		$in = $reader;
	}
	IPC::Run::run($argv, '<', ref $in ? $in : \$in, '>', \$out, '2>', \$err,
		IPC::Run::timeout($params{timeout} // $PostgreSQL::Test::Utils::timeout_default));
	my $status = $?;
	print $out, $err;
	return ($status & 127 ? 128 + ($status & 127) : $status >> 8, $out, $err);
}

# pgx_keystore with a passphrase (or lines) on standard input.
sub pgx_keystore
{
	my ($args, $stdin) = @_;
	return run_program([ 'pgx_keystore', @$args ], stdin => $stdin);
}

sub auto_open
{
	my ($node, $passphrase) = @_;
	my ($rc, $out, $err) =
	  pgx_keystore([ '--enable-auto-open', keystore_file($node) ], "$passphrase\n");
	die "could not enable auto-open: $err" if $rc != 0;
	return;
}

# A keystore whose passphrase is checked fast; the cost is a public option.
sub create_keystore
{
	my ($node, $passphrase) = @_;
	my ($rc, $out, $err) =
	  pgx_keystore([ 'create', '--kdf-cost', 10, keystore_file($node) ], "$passphrase\n");
	die "could not create a keystore: $err" if $rc != 0;
	return;
}

# The servers file names each server that was made by new_primary() or named for new_standby().
my %servers;

sub servers_file
{
	return write_file(work_dir() . '/servers.conf',
		join('', map { "[$_]\nkeystore = $servers{$_}\n" } sort keys %servers));
}

# Copy a keystore the documented way, by the names of both servers.
sub copy_keystore
{
	my ($from, $to, @options) = @_;
	my ($rc, $out, $err) = pgx_keystore(
		[ 'copy', '--servers', servers_file(), '--from', $from->name, '--to', $to->name, @options ]);
	die "could not copy the keystore: $err" if $rc != 0;
	return;
}

# ---- starting ---------------------------------------------------------------------

sub log_size
{
	my ($node) = @_;
	return -s $node->logfile // 0;
}

sub log_since
{
	my ($node, $offset) = @_;
	return -e $node->logfile ? slurp_file($node->logfile, $offset) : '';
}

sub is_running
{
	my ($node) = @_;
	my $pid = slurp_raw($node->data_dir . '/postmaster.pid') // return 0;
	$pid =~ s/\n.*//s;
	return kill(0, $pid) ? $pid : 0;
}

# Any call of our pg_ctl; returns exit code, standard output, standard error.
sub shim
{
	my ($node, $args, $stdin) = @_;
	local %ENV = $node->_get_env(PGAPPNAME => undef);
	my ($rc, $out, $err) = run_program(
		[
			"$ENV{PGX_SHIM_DIR}/pg_ctl", '-w', '-D', $node->data_dir, '-l', $node->logfile, '-o',
			'--cluster-name=' . $node->name, @$args
		],
		stdin => $stdin);
	$node->_update_pid(-1);
	return ($rc, $out, $err);
}

# pg_ctl --keystore-passphrase start, with the passphrase on standard input.
sub shim_start
{
	my ($node, $passphrase) = @_;
	return shim($node, [ '--keystore-passphrase', 'start' ], "$passphrase\n");
}

# The distribution's pg_ctl, without what Cluster's start() adds.
sub plain_start
{
	my ($node, @options) = @_;
	local %ENV = $node->_get_env(PGAPPNAME => undef);
	my ($rc) = run_program(
		[
			'pg_ctl', '-w', '-D', $node->data_dir, '-l', $node->logfile, '-o',
			'--cluster-name=' . $node->name, @options, 'start'
		]);
	$node->_update_pid(-1);
	return $rc;
}

# A start that must fail; returns what it added to the log.  Dies if the server runs.
sub start_fails
{
	my ($node, @options) = @_;
	my $before = log_size($node);
	my $rc = plain_start($node, @options);

	# From 18 on pg_ctl takes a standby that fails at once for one that came to its recovery target, and exits with 0.
	if (is_running($node) || $rc == 0 && log_since($node, $before) !~ / FATAL:  /)
	{
		diag('server "' . $node->name . '" has started but should not have');
		$node->stop('immediate');
		return '(the server has started)';
	}
	return log_since($node, $before);
}

# ---- making servers ------------------------------------------------------------------

sub tablespace_dir
{
	my ($node, $name) = @_;
	my $dir = $node->basedir . "/ts_$name";
	mkdir $dir;
	return $dir;
}

# Give a new node its keystore directory and passphrase file.
sub prepare_node
{
	my ($node) = @_;
	my $name = $node->name;

	make_path(work_dir() . '/keys');
	$node->{pgx_keystore_dir} = work_dir() . "/keys/$name";
	$node->{pgx_pass_file} = work_dir() . "/pass_$name";
	$servers{$name} = $node->{pgx_keystore_dir};
	return;
}

# Settings that are a server's own.
sub configure_node
{
	my ($node, %params) = @_;
	my $open = $params{open} // 'command';

	$node->append_conf('postgresql.conf',
		"pgx_tde.keystore_location = '" . keystore_dir($node) . "'\n"
		  . "pgx_tde.keystore_passphrase_command = '"
		  . ($open eq 'command' ? 'cat ' . pass_file($node) : '') . "'\n"
		  . ($params{conf} // ''));
	set_passphrase($node, $params{passphrase} // $PASSPHRASE) if $open eq 'command';
	return;
}

# What makes a cluster without data checksums, which from 18 on are the default.
sub no_checksums
{
	my ($major) = `pg_config --version` =~ /(\d+)/;
	return $major >= 18 ? ('--no-data-checksums') : ();
}

# A running primary.  Parameters:
#   streaming   as Cluster's allows_streaming; default 1
#   archive     1: has_archiving
#   checksums   1: initdb -k
#   open        'command' (default): a passphrase command; 'none': nothing opens the keystore
#   master_key  0: no keystore and no master key
#   by_sql      1: the keystore is made by pgx_set_master_key(), with the costly default KDF
#   passphrase  default $PASSPHRASE
#   conf        more lines for postgresql.conf
#   start       0: only make it
sub new_primary
{
	my ($name, %params) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	my $with_key = $params{master_key} // 1;
	my $passphrase = $params{passphrase} // $PASSPHRASE;

	prepare_node($node);
	mkdir keystore_dir($node), 0700;
	$node->init(
		allows_streaming => $params{streaming} // 1,
		has_archiving => $params{archive} // 0,
		extra => [ $params{checksums} ? ('-k') : no_checksums(), '--no-locale', '-E', 'UTF8' ]);
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'pgx_tde'");
	configure_node($node, %params);
	create_keystore($node, $passphrase) if $with_key && !$params{by_sql};
	return $node if exists $params{start} && !$params{start};
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION pgx_tde');
	$node->safe_psql('postgres', "SELECT pgx_set_master_key('$passphrase')") if $with_key;
	return $node;
}

# The stock pg_basebackup into a new node's data directory, every tablespace mapped beside it.  Parameters: options,
# a list; meanwhile: what to do while it is running.
sub base_backup
{
	my ($from, $node, %params) = @_;
	my @options = @{ $params{options} // ['-R'] };
	my @map;

	foreach my $line (split /\n/,
		$from->safe_psql('postgres',
			q{SELECT oid || ' ' || pg_tablespace_location(oid) FROM pg_tablespace
			  WHERE pg_tablespace_location(oid) ~ '^/'}))
	{
		my ($oid, $location) = $line =~ /^(\d+) (.*)$/;
		(my $base = $location) =~ s{^.*/(?:ts_)?}{};
		push @map, '-T', "$location=" . $node->basedir . "/ts_$base";
	}
	# -R would note the name of this test as the standby's.
	local %ENV = $from->_get_env(PGAPPNAME => undef);
	my $backup = IPC::Run::start(
		[
			'pg_basebackup', '-D', $node->data_dir, '-h', $from->host, '-p', $from->port, '-c', 'fast',
			'-N', @map, @options
		]);
	$params{meanwhile}->() if $params{meanwhile};
	$backup->finish or die 'pg_basebackup failed';
	mkdir $node->backup_dir;
	mkdir $node->archive_dir;
	$node->append_conf('postgresql.conf',
		'port = ' . $node->port . "\nunix_socket_directories = '" . $node->host . "'");
	return;
}

# A standby of a running server, not yet started.  Parameters: open, passphrase, conf as for new_primary();
# copy => 0: leave its keystore directory empty; options, meanwhile as for base_backup().
sub new_standby
{
	my ($from, $name, %params) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	prepare_node($node);
	if ($params{copy} // 1)
	{
		copy_keystore($from, $node);
	}
	else
	{
		mkdir keystore_dir($node), 0700;
	}
	base_backup($from, $node, %params);
	configure_node($node, %params);
	return $node;
}

# ---- asking ---------------------------------------------------------------------------

# A statement that must fail; returns everything that psql printed as the error.
sub query_fails
{
	my ($node, $db, $sql, %params) = @_;
	my ($rc, $out, $err) =
	  $node->psql($db, $sql, extra_params => $params{extra} // [], timeout => $PostgreSQL::Test::Utils::timeout_default);
	return $rc != 0 ? $err : '(no error)';
}

# One column of the status view.
sub status_of
{
	my ($node, $column) = @_;
	return $node->safe_psql('postgres', "SELECT $column FROM pgx_keystore_status");
}

# The content of every permanent table of the named databases, one line each.  (A sequence may skip values after a
# crash and on a standby.)
sub fingerprint
{
	my ($node, @dbs) = @_;
	my $result = '';

	foreach my $db (@dbs)
	{
		my $lines = $node->safe_psql($db, q{
			SELECT format('SELECT %L, count(*), coalesce(sum(hashtextextended(t::text, 0)), 0) FROM %s t',
				c.oid::regclass, c.oid::regclass)
			FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
			WHERE relkind IN ('r', 'm') AND relpersistence = 'p'
			  AND nspname !~ '^pg_' AND nspname <> 'information_schema'
			ORDER BY c.oid::regclass::text
			\gexec});
		$result .= "$db.$_\n" foreach split /\n/, $lines;
	}
	return $result;
}

# Compare fingerprints; of a difference only the lines that differ are shown.
sub is_content
{
	my ($got, $want, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my %got = map { $_ => 1 } split /\n/, $got;
	my %want = map { $_ => 1 } split /\n/, $want;
	return ok(1, $name) if $got eq $want && $want =~ /\|[1-9]/;
	ok(0, $name);
	diag('there is nothing to compare') if $want !~ /\|[1-9]/;
	diag("     got: $_") foreach grep { !$want{$_} } sort keys %got;
	diag("expected: $_") foreach grep { !$got{$_} } sort keys %want;
	return 0;
}

sub same_content
{
	my ($one, $two, $dbs, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is_content(fingerprint($two, @$dbs), fingerprint($one, @$dbs), $name);
}

# Wait until a standby has replayed all that the other server has.
sub caught_up
{
	my ($from, $standby) = @_;
	$from->wait_for_catchup($standby, 'replay',
		$from->safe_psql('postgres',
			'SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END'
		));
	return;
}

sub rotate
{
	my ($node, $times) = @_;
	$node->safe_psql('postgres', 'SELECT pgx_set_master_key()') for 1 .. $times // 1;
	return;
}

# ---- WAL and bytes ----------------------------------------------------------------------

# End the current segment; returns the name of the last one that is complete.
sub finish_segment
{
	my ($node) = @_;
	# Something has to be in it: an empty segment is not switched, and from 17 on it is the one that is named.
	my $name = $node->safe_psql('postgres',
		"SELECT pg_walfile_name(pg_logical_emit_message(false, 'finish_segment', 'x'))");
	$node->safe_psql('postgres', 'SELECT pg_switch_wal()');
	return $name;
}

# A server that was killed starts its processes again by itself.  psql may die before it has read its query, which
# IPC::Run takes, now and then, for a reason to die too.
sub comes_back
{
	my ($node) = @_;
	for (1 .. 100)
	{
		my $back = eval { $node->poll_query_until('postgres', 'SELECT true') };
		return $back if defined $back;
		die $@ if $@ !~ /Broken pipe/;
		usleep(50_000);
	}
	return 0;
}

# Compare all complete segments that two directories both have; returns how many are the same, and the names of
# those that differ.
sub same_wal
{
	my ($one, $two, $last) = @_;
	my ($same, @different) = (0);

	foreach my $name (sort grep { /^[0-9A-F]{24}$/ } slurp_dir($one))
	{
		# Behind the last one are recycled segments with any content.
		next if !-f "$two/$name" || substr($name, 8) gt substr($last, 8);
		if (slurp_raw("$one/$name") eq slurp_raw("$two/$name")) { $same++ }
		else                                                     { push @different, $name }
	}
	return ($same, @different);
}

sub files_below
{
	my (@dirs) = @_;
	my @files;
	find({ no_chdir => 1, follow_fast => 1, follow_skip => 2, wanted => sub { push @files, $_ if -f $_ } },
		grep { -e $_ } @dirs);
	return @files;
}

# Files below some directories (or files) that hold one of the given byte strings; "PATH: NAME" each.
# needles: name => bytes.
sub files_with
{
	my ($needles, @dirs) = @_;
	my @found;

	foreach my $file (sort(files_below(@dirs)))
	{
		my $content = slurp_raw($file) // next;
		foreach my $name (sort keys %$needles)
		{
			push @found, "$file: $name" if index($content, $needles->{$name}) >= 0;
		}
	}
	return @found;
}

# The forms in which a secret could show: name => bytes.
sub forms_of
{
	my ($name, $bytes) = @_;
	my $hex = unpack('H*', $bytes);
	my %forms = ("$name raw" => $bytes, "$name hex" => $hex, "$name HEX" => uc $hex);

	# At each of the three offsets that base64 can have in a longer text; the ends depend on the neighbours.
	foreach my $shift (0 .. 2)
	{
		my $text = encode_base64(("\0" x $shift) . $bytes, '');
		$text =~ s/=+$//;
		$forms{"$name base64 at $shift"} = substr($text, $shift ? 4 : 0, -2) if length $text > 12;
	}
	return %forms;
}

1;
