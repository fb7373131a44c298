# PgxBackup.pm
#		What the tests of backup and recovery share: a primary that archives into its backup
#		area, and calls of pgx_dmpall.

package PgxBackup;

use strict;
use warnings;

use Exporter 'import';
use File::Path qw(remove_tree);
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PgxTde;

our @EXPORT = qw(
  backup_primary area_dir dmpall dmpall_ok backups_of newest_backup backup_info restored
  fill_tablespaces start_dmpall rcvall rcvall_ok lose archived can_inject injected kill_at_each
  recovers_again is_recovered
);

# The backup area of a server; it exists and is 0700.
sub area_dir
{
	my ($node) = @_;
	my $dir = work_dir() . '/backup_' . $node->name;
	mkdir $dir, 0700;
	return $dir;
}

# A running primary as new_primary() makes it, with a backup area that it archives into.  Further parameter:
# archive_command => 0: no archiving.
sub backup_primary
{
	my ($name, %params) = @_;
	my $node = new_primary($name, %params, start => 0);
	my $area = area_dir($node);

	mkdir "$area/archived_wal", 0700;
	$node->append_conf('postgresql.conf', "pgx_tde.backup_destination = '$area'");
	$node->append_conf('postgresql.conf',
		"archive_mode = on\narchive_command = 'pgx_walcopy --verify \"%p\" \"$area/archived_wal/%f\"'")
	  if $params{archive_command} // 1;
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION pgx_tde');
	my $passphrase = $params{passphrase} // $PASSPHRASE;
	$node->safe_psql('postgres', "SELECT pgx_set_master_key('$passphrase')") if $params{master_key} // 1;
	return $node;
}

# Two tablespaces, one of them encrypted, and a table in each.
sub fill_tablespaces
{
	my ($node, $mark) = @_;
	foreach my $ts ([ 'sec', q{WITH (tablespace_encryption_algorithm = 'AES256')} ], [ 'plain', '' ])
	{
		my ($name, $options) = @$ts;
		my $dir = tablespace_dir($node, $name);
		$node->safe_psql('postgres', "CREATE TABLESPACE $name LOCATION '$dir' $options");
		my $text = $name eq 'sec' ? $mark : 'nothing';
		$node->safe_psql('postgres',
			"CREATE TABLE t_$name TABLESPACE $name AS SELECT g, '$text' || g AS x FROM generate_series(1, 2000) g");
	}
	return;
}

# pgx_dmpall on a server; returns exit code, standard output, standard error.
sub dmpall
{
	my ($node, @options) = @_;
	local %ENV = $node->_get_env();
	delete @ENV{qw(PGHOST PGPORT PGDATABASE PGUSER)};
	return run_program([ 'pgx_dmpall', '-D', $node->data_dir, @options ]);
}

sub dmpall_ok
{
	my ($node, @options) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($rc, $out, $err) = dmpall($node, @options);
	return ok($rc == 0 && $out eq "backup of database and configuration files completed successfully\n",
		"pgx_dmpall @options") || diag("$rc, $out, $err");
}

# pgx_rcvall for a server's data directory; returns exit code, standard output, standard error.  The first option may
# be a reference to what it reads from standard input.
sub rcvall
{
	my ($node, @options) = @_;
	my $stdin = ref $options[0] ? ${ shift @options } : '';
	local %ENV = $node->_get_env();
	delete @ENV{qw(PGHOST PGPORT PGDATABASE PGUSER PGDATA)};
	return run_program([ 'pgx_rcvall', '-D', $node->data_dir, @options ], stdin => $stdin);
}

# A recovery that must succeed; returns its standard output.
sub rcvall_ok
{
	my ($node, @options) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($rc, $out, $err) = rcvall($node, @options);
	ok($rc == 0 && $out =~ /^Recovery of database completed successfully\.$/m, 'pgx_rcvall ' . join(' ', grep { !ref } @options))
	  || diag("$rc, $out, $err");
	return $out;
}

# Stop a server if it runs, and lose its data: data directory and tablespaces are empty then.  With a true second
# argument, its keystore is lost too.
sub lose
{
	my ($node, $keystore) = @_;
	$node->stop('immediate') if is_running($node);
	remove_tree($node->data_dir, { keep_root => 1 });
	# Only now: a server that was killed has left its postmaster.pid.
	$node->_update_pid(0);
	foreach my $dir (glob $node->basedir . '/ts_*')
	{
		remove_tree($dir, { keep_root => 1 });
	}
	unlink glob keystore_dir($node) . '/*' if $keystore;
	return;
}

# End the current segment and wait until it is in the archive.
sub archived
{
	my ($node) = @_;
	my $segment = finish_segment($node);
	$node->poll_query_until('postgres', "SELECT last_archived_wal >= '$segment' FROM pg_stat_archiver")
	  or die "segment $segment is not archived";
	return $segment;
}

# Start it and return the IPC::Run handle.
sub start_dmpall
{
	my ($node, $out, @options) = @_;
	local %ENV = $node->_get_env();
	delete @ENV{qw(PGHOST PGPORT PGDATABASE PGUSER)};
	return IPC::Run::start([ 'pgx_dmpall', '-D', $node->data_dir, @options ], '<', '/dev/null', '>', $out, '2>', $out);
}

# ---- dying and failing at a certain point ----------------------------------------------------

sub can_inject
{
	return system("strace -o /dev/null -e inject=getppid:signal=KILL:when=2 true >/dev/null 2>&1") == 0;
}

# Run a program of ours under strace, which kills it before its N-th call of a kind ("CALL:signal=KILL:when=N") or lets
# that call fail ("CALL:error=EIO:when=N").  With "+" in front, threads and children are counted too, each by itself;
# not for a program that leaves a server behind.  Returns exit code, standard error and the trace.
sub injected
{
	my ($node, $inject, $program, @options) = @_;
	my $trace = work_dir() . '/trace';
	my @follow = $inject =~ s/^\+// ? ('-f') : ();
	# What a function of the C library calls depends on the machine.
	my %calls = (mkdir => '?mkdir,?mkdirat', chmod => '?chmod,?fchmodat', rename => '?rename,?renameat,?renameat2',
		unlink => '?unlink,?unlinkat', symlink => '?symlink,?symlinkat', rmdir => '?rmdir,?unlinkat');
	my ($call, $what) = $inject =~ /^(\w+):(.*)$/;
	my $set = $calls{$call} // $call;
	my ($path) = grep { -x } map { "$_/$program" } split /:/, $ENV{PATH};

	local %ENV = $node->_get_env();
	delete @ENV{qw(PGHOST PGPORT PGDATABASE PGUSER PGDATA)};
	my ($rc, $out, $err) = run_program(
		[
			'strace', @follow, '-qq', '-o', $trace, '-e', "trace=$set", '-e', "inject=$set:$what",
			$path, '-D', $node->data_dir, @options
		]);
	return ($rc, $err, slurp_raw($trace));
}

# Kill a program of ours at one point after the other, "CALL:N".  run: its name and options; before: called with the name
# of the point, before each; killed: the same, after each; missed: with that and the exit code, where the
# point is not reached.  Ten points must have been.
sub kill_at_each
{
	my ($node, $points, %do) = @_;
	my $killed = 0;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	foreach my $point (@$points)
	{
		my ($call, $n) = split /:/, $point;
		$do{before}->($point) if $do{before};
		my ($rc, $err, $trace) = injected($node, "$call:signal=KILL:when=$n", @{ $do{run} });
		if ($trace !~ /killed by SIGKILL/)
		{
			note("$point is not reached");
			$do{missed}->($point, $rc) if $do{missed};
			next;
		}
		$killed++;
		$do{killed}->("killed before $point");
	}
	return cmp_ok($killed, '>=', 10, "$do{run}[0] was killed at $killed points");
}

# The recovered server has that content; its new timeline is not archived, for there is more to come.
sub is_recovered
{
	my ($node, $content, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $rc = plain_start($node, '-o', '-c archive_mode=off');
	is($rc, 0, "$name: the server starts") or return;
	is_content(fingerprint($node, 'postgres'), $content, "$name: content");
	$node->stop;
	return;
}

# pgx_rcvall was killed: what it has left is recovered by the next run, or was recovered already.
sub recovers_again
{
	my ($node, $content, $name, @options) = @_;
	my $data = $node->data_dir;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($rc, undef, $err) = rcvall($node, @options);

	if ($rc != 0 && !-e "$data/pgx_rcvall.incomplete" && -e "$data/PG_VERSION")
	{
		# Killed between the last removal and the end: recovery was complete.
		like($err, qr/is not empty/, "$name: it was complete");
	}
	else
	{
		is($rc, 0, "$name: the next run recovers") or diag($err);
	}
	return is_recovered($node, $content, $name);
}

# Names of directories in the area that look like backups, oldest first; those that are not complete have their suffix.
sub backups_of
{
	my ($node) = @_;
	my @names = sort grep { /^\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d/ } slurp_dir(area_dir($node));
	return @names;
}

sub newest_backup
{
	my ($node) = @_;
	my @complete = grep { !/incomplete/ } backups_of($node);
	return @complete ? area_dir($node) . "/$complete[-1]" : undef;
}

sub backup_info
{
	my ($dir) = @_;
	return decode_json(slurp_raw("$dir/backup_info.json"));
}

# Put a backup into the place of a new node, by hand: what is in the area is all that is needed.  The node recovers to
# the end of archived WAL, or with restore => 0 to the end of the backup.  Not started.
sub restored
{
	my ($from, $dir, $name, %params) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	my $info = backup_info($dir);

	system_or_bail('cp', '-a', "$dir/data/.", $node->data_dir);
	chmod 0700, $node->data_dir;
	foreach my $ts (@{ $info->{tablespaces} })
	{
		my $to = $node->basedir . "/ts_$ts->{oid}";
		system_or_bail('cp', '-a', "$dir/tablespaces/$ts->{oid}", $to);
		unlink $node->data_dir . "/pg_tblspc/$ts->{oid}";
		symlink $to, $node->data_dir . "/pg_tblspc/$ts->{oid}" or die "could not make a link: $!";
	}
	PgxTde::prepare_node($node);
	mkdir keystore_dir($node), 0700;
	system_or_bail('cp', "$dir/keystore/keystore.ks", keystore_file($node)) if $info->{keystore}{copy};
	my $archive = area_dir($from) . '/archived_wal';
	$node->append_conf('postgresql.conf',
		    'port = ' . $node->port . "\nunix_socket_directories = '" . $node->host . "'\n"
		  . "archive_mode = off\npgx_tde.backup_destination = ''\n");
	if ($params{restore} // 1)
	{
		$node->append_conf('postgresql.conf', "restore_command = 'cp $archive/%f %p'");
		write_file($node->data_dir . '/recovery.signal', '');
	}
	configure_node($node, %params);
	return $node;
}

1;
