# pgx_keystore status over all servers of a group, compare, and copy --to all-standbys.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IO::Socket::INET;
use IO::Socket::UNIX;
use POSIX ();
use PgxTde;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $file = work_dir() . '/fleet.conf';
my $uuid_re = qr/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/;

# A servers file of sections: [name, keystore, other lines].
sub servers
{
	write_file($file, join '', map { "[$_->[0]]\nkeystore = $_->[1]\n" . join('', map { "$_\n" } @$_[ 2 .. $#$_ ]) } @_);
	return;
}

sub conninfo { return 'conninfo = ' . $_[0]->connstr('postgres') }

sub status { return pgx_keystore([ 'status', '--servers', $file, @_ ]) }

# The row of a server: its words.
sub row
{
	my ($out, $name) = @_;
	my ($line) = $out =~ /^\Q$name\E +(.*)$/m;
	return defined $line ? [ split / {2,}/, $line ] : [];
}

my $primary = new_primary('primary');
my $standby = new_standby($primary, 'standby');
$standby->start;
caught_up($primary, $standby);

my @primary = ('primary', keystore_dir($primary), conninfo($primary));
my @standby = ('standby', keystore_dir($standby), conninfo($standby));

# ---- all is well ----

servers(\@primary, \@standby);
my ($rc, $out, $err) = status();
is($rc, 0, 'two servers in step: exit code');
is($err, '', 'and nothing on standard error');
unlike($out, qr/drift/, 'no drift');
my ($p, $s) = (row($out, 'primary'), row($out, 'standby'));
is_deeply([ @$p[ 0, 4, 5 ], $p->[-1] ], [ 'primary', 'open', 'passphrase command', 'ok' ], 'row of the primary');
is_deeply([ @$s[ 0, 4, 5 ], $s->[-1] ], [ 'standby', 'open', 'passphrase command', 'ok' ], 'row of the standby');
like($p->[1], qr/^$uuid_re$/, 'UUID');
is_deeply([ @$s[ 1, 2, 3 ] ], [ @$p[ 1, 2, 3 ] ], 'the same UUID, generation and key');

SKIP:
{
	($rc, $out, $err) = status('--json');
	skip 'built without libjansson', 3 if $err =~ /not supported by this build/;
	require JSON::PP;
	my $data = JSON::PP::decode_json($out);
	is($rc, 0, '--json: exit code');
	is_deeply($data->{drift}, [], '--json: no drift');
	is_deeply(
		[ map { [ @$_{qw(server role status uuid generation active_master_key)}, $_->{reachable} ? 1 : 0 ] } @{ $data->{servers} } ],
		[ [ 'primary', 'primary', 'open', @$p[ 1, 2, 3 ], 1 ], [ 'standby', 'standby', 'open', @$p[ 1, 2, 3 ], 1 ] ],
		'--json: rows');
}

# ---- servers that do not answer ----

# One that is not there, one that accepts and never says a word, one without a conninfo.
my $silent_dir = PostgreSQL::Test::Utils::tempdir_short();
my $silent = IO::Socket::UNIX->new(Local => "$silent_dir/.s.PGSQL.5432", Listen => 10) or die "could not listen: $!";
my $silent_tcp = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 10) or die "could not listen: $!";
my @hanging = map { [ "hanging$_", '/nowhere', "conninfo = host=$silent_dir port=5432 user=x" ] } 1 .. 3;
push @hanging, [ 'hangingtcp', '/nowhere', 'conninfo = host=127.0.0.1 port=' . $silent_tcp->sockport . ' user=x' ];
servers(\@primary, @hanging, [ 'gone', '/nowhere', "conninfo = host=$silent_dir port=5433" ], \@standby);
($rc, $out, $err) = status('--timeout', 2);
is($rc, 1, 'servers that do not answer: exit code');
for my $name (map { $_->[0] } @hanging)
{
	is(row($out, $name)->[-1], 'no answer within 2 seconds', "row of $name");
	like($out, qr/^drift: server "$name" could not be asked: no answer within 2 seconds$/m, "drift of $name");
}
like(row($out, 'gone')->[-1], qr/connection to server on socket .* failed: No such file or directory/, 'row of one that is gone');
is(row($out, $_)->[-1], 'ok', "the $_ answered") for qw(primary standby);
$silent->close;
$silent_tcp->close;

# A server that says nothing to anyone until it has three connections, then turns all of them away: only who asks
# side by side gets its answer.
unlink "$silent_dir/.s.PGSQL.5432";
my $patient = IO::Socket::UNIX->new(Local => "$silent_dir/.s.PGSQL.5432", Listen => 10) or die "could not listen: $!";
my $pid = fork // die "could not fork: $!";
if ($pid == 0)
{
	my @there = map { $patient->accept } 1 .. 3;
	my $fields = "SFATAL\0VFATAL\0C57P03\0Mall are here\0\0";
	foreach my $client (@there)
	{
		sysread $client, my $startup, 8192;
		syswrite $client, 'E' . pack('N', 4 + length $fields) . $fields;
		close $client;
	}
	POSIX::_exit(0);
}
servers(map { [ "patient$_", '/nowhere', "conninfo = host=$silent_dir port=5432 user=x" ] } 1 .. 3);
($rc, $out, $err) = status('--timeout', $PostgreSQL::Test::Utils::timeout_default);
waitpid $pid, 0;
like(row($out, "patient$_")->[-1], qr/^all are here$/, "patient$_ was asked beside the others") for 1 .. 3;
$patient->close;

servers([ 'primary', keystore_dir($primary) ], \@standby, [ 'far', '/nowhere', 'host = far.example' ]);
($rc, $out) = status();
is($rc, 1, 'a server without conninfo on another host: exit code');
is(row($out, 'primary')->[-1], 'no conninfo, only the file was looked at', 'row without conninfo');
is_deeply([ @{ row($out, 'primary') }[ 1, 2 ] ], [ @$p[ 1, 2 ] ], 'its UUID and generation come from the file');
like($out, qr/^drift: server "far" could not be asked: no conninfo in the servers file$/m, 'drift of the far one');

# ---- drift ----

servers(\@primary, \@standby);
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
rotate($primary);
($rc, $out) = status();
is($rc, 1, 'a standby that is behind: exit code');
my ($old, $new) = ($p->[2], $p->[2] + 1);
like($out, qr/^drift: server "standby" has generation $old of the keystore, but "primary" has $new$/m, 'generation');
like($out, qr/^drift: server "standby" has active master key \d+, but "primary" has \d+$/m, 'active key');
unlike($out, qr/drift: server "primary"/, 'the primary is what is compared with');

($rc, $out) = pgx_keystore([ 'compare', '--servers', $file, 'primary', 'standby' ]);
is($rc, 1, 'compare: exit code');
like($out, qr/^standby is older: generation $old, but primary has $new$/m, 'compare');
($rc, $out) = pgx_keystore([ 'compare', '--servers', $file, '--open', 'primary', 'standby' ], "$PASSPHRASE\n");
is($rc, 1, 'compare --open: exit code');
like($out, qr/^master key \d+ \(active\) is only in primary$/m, 'compare --open: the new key');
like($out, qr/^master key \d+ is retired in primary, but active in standby$/m, 'compare --open: the old key');
($rc, $out, $err) = pgx_keystore([ 'compare', '--servers', $file, '--open', 'primary', 'standby' ], "not the passphrase\n");
is($rc, 2, 'compare --open, wrong passphrase: exit code');
is($out, '', 'and no result');

$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
caught_up($primary, $standby);
($rc, $out) = status();
is($rc, 0, 'and it has caught up') or diag($out);
($rc, $out) = pgx_keystore([ 'compare', keystore_file($primary), keystore_dir($standby) ]);
is($rc, 0, 'compare by path: exit code');
like($out, qr/^the same: keystore $p->[1], generation $new$/, 'compare: the same');

# Another group's server, which is a primary too, and a server with a closed keystore.
my $other = new_primary('other', open => 'none', streaming => 0);
servers(\@primary, \@standby, [ 'other', keystore_dir($other), conninfo($other) ]);
($rc, $out) = status();
like($out, qr/^drift: server "other" has keystore $uuid_re, but "primary" has $p->[1]$/m, 'another keystore');
like($out, qr/^drift: servers "primary" and "other" are both primaries$/m, 'two primaries');
($rc, $out) = pgx_keystore([ 'compare', '--servers', $file, 'primary', 'other' ]);
is($rc, 1, 'compare of two keystores: exit code');
like($out, qr/^different keystores: primary is $p->[1], other is $uuid_re$/m, 'compare of two keystores');
$other->safe_psql('postgres', 'DROP EXTENSION pgx_tde');
($rc, $out) = status();
like($out, qr/^drift: server "other" could not tell: the database has no extension pgx_tde$/m, 'no extension');
$other->stop;

# ---- bad input ----

for my $case (
	[ [ 'status', '--servers', work_dir() . '/none' ], qr/could not open file/, 'no servers file' ],
	[ [ 'status', '--servers', write_file(work_dir() . '/empty', "# nothing\n") ], qr/defines no server/, 'no server' ],
	[ [ 'status', '--timeout', '0' ], qr/--timeout must be in range 1\.\.3600/, 'timeout 0' ],
	[ [ 'status', '--timeout', '1s' ], qr/invalid value "1s" for option --timeout/, 'timeout 1s' ],
	[ [ 'status', 'x' ], qr/too many command-line arguments \(first is "x"\)/, 'an argument' ],
	[ [ 'compare', '/a' ], qr/too few command-line arguments/, 'compare with one argument' ],
	[ [ 'compare', keystore_file($primary), 'h:/x' ], qr/is on another host/, 'compare with HOST:DIR' ],
	[ [ 'compare', keystore_file($primary), '/nowhere/keystore.ks' ], qr/does not exist|No such file/, 'compare with nothing' ],
	[ [ 'compare', '--servers', $file, 'primary', 'nobody' ], qr/unknown server name "nobody"/, 'compare with an unknown name' ])
{
	my ($args, $like, $name) = @$case;
	($rc, $out, $err) = pgx_keystore($args);
	is($rc, 1, "$name: exit code");
	like($err, $like, $name);
	is($out, '', "$name: no result");
}
write_file($file, "[all-standbys]\nkeystore = /x\n");
($rc, $out, $err) = status();
like($err, qr/line 1: server name "all-standbys" is reserved/, 'reserved name');

# ---- copy --to all-standbys ----

my $keys = work_dir() . '/keys';
mkdir "$keys/third", 0700;
servers(\@primary, [ 'second', "$keys/second" ], [ 'third', "$keys/third" ]);
my @copy = ('copy', '--servers', $file, '--to', 'all-standbys');
($rc, $out, $err) = pgx_keystore(\@copy);
is($rc, 0, 'copy --to all-standbys: exit code') or diag($err);
is_same_file("$keys/$_/keystore.ks", keystore_file($primary), "the $_ has it") for qw(second third);
($rc, $out) = pgx_keystore(\@copy);
is(scalar(() = $out =~ /is already up to date/g), 2, 'again: both have it already');
($rc, $out) = pgx_keystore([ @copy, '--from', keystore_file($primary) ]);
is(scalar(() = $out =~ /is already up to date/g), 2, 'from a file: the section that is the source is known by its directory');

# One that refuses does not keep the others from theirs.
write_file("$keys/second/keystore.ks", slurp_raw(keystore_file($other)));
unlink "$keys/third/keystore.ks";
($rc, $out, $err) = pgx_keystore(\@copy);
is($rc, 1, 'one refuses: exit code');
like($err, qr/error: target ".*second\/keystore.ks" is another keystore/, 'its reason');
like($err, qr/detail: The keystore was not copied to server "second"\./, 'its name');
like($err, qr/error: 1 of 2 servers did not get the keystore/, 'the sum');
is_same_file("$keys/third/keystore.ks", keystore_file($primary), 'the next one has it');
is_same_file("$keys/second/keystore.ks", keystore_file($other), 'the one that refused is untouched');
servers(\@primary);
($rc, $out, $err) = pgx_keystore(\@copy);
is($rc, 1, 'nobody to copy to: exit code');
like($err, qr/names no server but the source/, 'nobody to copy to');

done_testing();
