# 160_log_secrets.pl
#		Passphrases that are given in SQL: whatever form the statement has and however it
#		ends, with everything logged, they are not in the log, in the statistics of activity of
#		other sessions, or in pg_stat_statements.  The same statements with an ordinary
#		function show that each of these searches finds something.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PgxTde;
use Test::More;

my $good = 'Zq7 the right one of test 160';
my $mark = 'Xv4Planted';                           # in every wrong passphrase

my $node = new_primary('primary', passphrase => $good, conf => <<'EOC');
shared_preload_libraries = 'pg_stat_statements, pgx_tde, auto_explain'
log_destination = 'stderr,csvlog,jsonlog'
logging_collector = on
log_statement = all
log_min_duration_statement = 0
log_min_error_statement = debug5
log_min_messages = debug1
log_parameter_max_length = -1
log_parameter_max_length_on_error = -1
log_error_verbosity = verbose
log_executor_stats = off
debug_print_parse = on
debug_print_plan = on
auto_explain.log_min_duration = 0
auto_explain.log_nested_statements = on
auto_explain.log_verbose = on
pg_stat_statements.track = all
track_activity_query_size = 8192
EOC
$node->restart;
$node->safe_psql('postgres', 'CREATE EXTENSION pg_stat_statements');

my $log_dir = $node->data_dir . '/log';
my $node_log = $node->logfile;

sub log_files { return (glob("$log_dir/*"), $node_log) }

my %forms = forms_of('planted', $mark);
# debug_print_parse shows a constant's bytes as numbers.
$forms{'planted as numbers'} = join ' ', unpack('C*', $mark);

# Log files as they are now, then only what has been added to them since.
my %offset;

sub note_logs { %offset = map { $_ => -s $_ } log_files(); return }

sub logs_with
{
	my (%found);
	foreach my $file (log_files())
	{
		my $new = substr(slurp_raw($file) // '', $offset{$file} // 0);
		foreach my $form (sort keys %forms)
		{
			$found{ ($file =~ /\.(\w+)$/ ? $1 : 'log') . ": $form" } = 1 if index($new, $forms{$form}) >= 0;
		}
	}
	return [ sort keys %found ];
}

# The collector writes a little later: wait for a line that comes last.
my $marker = 0;

sub logs_written
{
	$marker++;
	$node->safe_psql('postgres', "SELECT 'end of part $marker'");
	wait_until(sub { 3 <= grep { slurp_raw($_) =~ /end of part $marker\b/ } glob("$log_dir/*") });
	return;
}

# It has parts of what it looks for in its own plans.
my $watcher = $node->background_psql('postgres');
$watcher->query_safe("SET $_") foreach 'auto_explain.log_min_duration = -1', 'debug_print_plan = off';

sub activity
{
	return $watcher->query_safe("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%' || 'Xv4' || 'Planted' || '%'");
}

sub statements
{
	return $watcher->query_safe("SELECT count(*) FROM pg_stat_statements WHERE query LIKE '%' || 'Xv4' || 'Planted' || '%'");
}

# [ name, statements of one session, must one fail?, extended protocol? ]; FUNC is the function's name.
my @cases = (
	[ 'right form, wrong passphrase', "SELECT FUNC('$mark 1')", 1 ],
	[ 'several in one', "SELECT 1; SELECT FUNC('$mark 2'); SELECT 2", 1, ],
	[ 'other case and schema', "select pg_catalog.\"FUNC\" ( '$mark 3' )", 1 ],
	[ 'syntax error', "SELEC FUNC('$mark 4')", 1 ],
	[ 'no closing quote', "SELECT FUNC('$mark 5)\\;\n", 1 ],
	[ 'no quotes', "SELECT FUNC($mark)", 1 ],
	[ 'wrong argument type', "SELECT FUNC('$mark 6'::int)", 1 ],
	[ 'too many arguments', "SELECT FUNC('$mark 7', 1, 'x')", 1 ],
	[ 'misspelled', "SELECT FUNCx('$mark 8')", 1 ],
	[ 'PREPARE and EXECUTE', "PREPARE p AS SELECT FUNC(\$1)", 0 ],
	[ 'EXECUTE', "PREPARE p AS SELECT FUNC(\$1);\nEXECUTE p('$mark 9')", 1 ],
	[ 'EXECUTE, too many', "PREPARE p AS SELECT FUNC(\$1);\nEXECUTE p('$mark 10', 'x')", 1 ],
	[ 'EXECUTE of what is gone', "PREPARE p AS SELECT FUNC(\$1);\nDEALLOCATE p;\nEXECUTE p('$mark 11')", 1 ],
	[ 'DO', "DO \$\$BEGIN PERFORM FUNC('$mark 12'); END\$\$", 1 ],
	[ 'DO, EXECUTE', "DO \$\$BEGIN EXECUTE 'SELECT FUNC(''$mark 13'')'; END\$\$", 1 ],
	[ 'DO, RAISE', "DO \$\$BEGIN PERFORM FUNC('$mark 14'); EXCEPTION WHEN OTHERS THEN RAISE NOTICE '$mark 14'; RAISE '$mark' USING ERRCODE = '42501'; END\$\$", 1 ],
	[ 'cursor', "BEGIN;\nDECLARE c CURSOR FOR SELECT FUNC('$mark 15');\nFETCH c;\nROLLBACK", 1 ],
	[ 'cursor that is closed', "BEGIN;\nDECLARE c CURSOR FOR SELECT CASE WHEN random() > 2 THEN FUNC('$mark 16') END;\nFETCH c;\nCOMMIT", 0 ],
	[ 'COPY', "COPY (SELECT FUNC('$mark 17')) TO STDOUT", 1 ],
	[ 'EXPLAIN', "EXPLAIN (VERBOSE) SELECT FUNC('$mark 18')", 0 ],
	[ 'EXPLAIN ANALYZE', "EXPLAIN ANALYZE SELECT FUNC('$mark 19')", 1 ],
	[ 'CREATE TABLE AS', "CREATE TEMP TABLE x AS SELECT FUNC('$mark 20')", 1 ],
	[ 'failed transaction', "BEGIN;\nSELECT 1/0;\nSELECT FUNC('$mark 21');\nROLLBACK", 1 ],
	[ 'not called', "SELECT CASE WHEN random() > 2 THEN FUNC('$mark 22') END", 0 ],
	[ 'extended protocol', "SELECT FUNC(\$1) \\bind '$mark 23' \\g", 1, 1 ],
	[ 'comment', "/* $mark 24 */ SELECT FUNC('wrong one')", 1 ],
);

# psql sends each line as a statement; what it stops at does not matter.
sub run_case
{
	my ($function, $sql) = @_;
	(my $text = $sql) =~ s/FUNC/$function/g;
	return $node->psql('postgres', "$text;\n", on_error_stop => 0, timeout => $PostgreSQL::Test::Utils::timeout_default);
}

# ---- control: with a function that is none of ours every search finds something --------------------------------

$node->safe_psql('postgres', "CREATE FUNCTION other_fn(text) RETURNS void LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END'");
foreach my $case (@cases)
{
	my ($name, $sql, undef, $extended) = @$case;
	next if $extended;
	note_logs();
	run_case('other_fn', $sql);
	logs_written();
	my $found = join ' ', @{ logs_with() };
	next if $sql !~ /$mark/;
	like($found, qr/csv: planted raw.*json: planted raw/, "control: $name is found in the log");
}
# From 16 on constants of most statements become parameters there, but not the text of a block.
$node->safe_psql('postgres', "DO \$\$ BEGIN PERFORM '$mark', $_; END \$\$") foreach 1 .. 3;
cmp_ok(statements(), '>=', 3, 'control: pg_stat_statements has some of it');
my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->query("SELECT '$mark'");
is(activity(), 1, 'control: pg_stat_activity has it');
$session->quit;
$watcher->query_safe('SELECT pg_stat_statements_reset()');

# ---- ours ----------------------------------------------------------------------------------------------------

foreach my $case (@cases)
{
	my ($name, $sql, $fails, $extended) = @$case;
	next if $extended;
	foreach my $function ('pgx_open_keystore', 'pgx_set_master_key')
	{
		note_logs();
		my ($rc, $out, $err) = run_case($function, $sql);
		ok($fails ? $err =~ /ERROR/ : $err !~ /ERROR/, "$name, $function: " . ($fails ? 'fails' : 'runs')) or diag($err);
		logs_written();
		is_deeply(logs_with(), [], "$name, $function: not in the log");
	}
}
is(statements(), 0, 'not in pg_stat_statements');

# Each of them again, in a session that stays.
$session = $node->background_psql('postgres', on_error_stop => 0);
foreach my $case (@cases)
{
	my ($name, $sql, undef, $extended) = @$case;
	next if $extended || $sql =~ /\\/ || $sql !~ /$mark/;
	(my $text = $sql) =~ s/FUNC/pgx_open_keystore/g;
	# What psql could not send at once would be another statement.
	my ($last) = $text =~ /([^\n]*$mark[^\n]*)/;
	foreach my $line (split /\n/, $text)
	{
		# query() adds the semicolon; another one would be another statement.
		$session->query($line =~ s/;$//r);
		is(activity(), 0, "$name: not in pg_stat_activity") if $line =~ /$mark/;
	}
	$session->query('ROLLBACK') if $text =~ /BEGIN/;
}
print $watcher->query_safe('SELECT pid, query FROM pg_stat_activity'), "\n";
$session->query('SELECT 7');
is($watcher->query_safe("SELECT count(*) FROM pg_stat_activity WHERE query ~ '^SELECT 7'"), 1, 'other statements are shown');

# While it runs.
$session->query_until(qr/started/, "\\echo started\nSELECT pg_sleep(60), pgx_open_keystore('$mark 30');\n");
ok($node->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE query = '(hidden by pgx_tde, since it may hold a passphrase)' AND state = 'active'"),
	'hidden while it runs');
is(activity(), 0, 'not in pg_stat_activity while it runs');
$node->safe_psql('postgres', "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
$session->quit;

# The extended protocol by pgbench: passphrase as a parameter, and in the text.
my $script = work_dir() . '/script';
foreach my $mode ('extended', 'prepared')
{
	note_logs();
	write_file($script, "\\set n random(1, 9)\nSELECT pgx_open_keystore('$mark ' || :n);\n");
	my ($rc, $out, $err) = run_program(
		[ 'pgbench', '-n', '-M', $mode, '-t', 1, '-D', "pass=$mark", '-f', $script, '-h', $node->host, '-p', $node->port, 'postgres' ]);
	like($err, qr/keystore is already open/, "$mode protocol: it was called");
	write_file($script, "SELECT pgx_open_keystore(:pass);\n");
	($rc, $out, $err) = run_program(
		[ 'pgbench', '-n', '-M', $mode, '-t', 1, '-D', "pass=$mark", '-f', $script, '-h', $node->host, '-p', $node->port, 'postgres' ]);
	like($err, qr/keystore is already open/, "$mode protocol with a parameter: it was called");
	logs_written();
	is_deeply(logs_with(), [], "$mode protocol: not in the log");
	is(statements(), 0, "$mode protocol: not in pg_stat_statements");
}

# A function of the user's own, whose name says nothing: from the call on.
$node->safe_psql('postgres', "CREATE FUNCTION mine(text) RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM pgx_open_keystore(\$1); END'");
note_logs();
$node->psql('postgres', "SET log_statement = none; SET debug_print_parse = off; SET debug_print_plan = off; SET auto_explain.log_nested_statements = off;\nSELECT mine('$mark 40');");
logs_written();
is_deeply(logs_with(), [], 'an error below a function of the user');

# ---- what works, and what the log has instead -----------------------------------------------------------------

%forms = forms_of('right', $good);
note_logs();
$node->safe_psql('postgres', "SELECT pgx_set_keystore_passphrase('$good', '$mark 50')");
$node->safe_psql('postgres', "SELECT pgx_set_master_key('$mark 50')");
$node->safe_psql('postgres', "SELECT pgx_set_keystore_passphrase('$mark 50', '$good')");
logs_written();
is_deeply(logs_with(), [], 'the right passphrase is not in the log');
%forms = forms_of('planted', $mark);
is_deeply(logs_with(), [], 'nor is the other');
is(statements(), 0, 'nor in pg_stat_statements');
$node->psql('postgres', "SELECT pgx_open_keystore('$mark 60)");
$node->psql('postgres', "SELECT pgx_open_keystore('$mark 60');");
$node->psql('postgres', "CREATE ROLE nobody; SET ROLE nobody;\nSELECT pgx_open_keystore('$mark 61');");
$node->psql('postgres', 'GRANT EXECUTE ON FUNCTION pgx_open_keystore(text) TO nobody; SELECT pgx_set_master_key()');
logs_written();
my $log = join '', map { slurp_raw($_) } glob("$log_dir/*.log");
like($log, qr/LOG:  00000: statement: \(hidden by pgx_tde, since it may hold a passphrase\)$/m, 'the log has the statement hidden');
like($log, qr/LOG:  00000: duration: \d+\.\d+ ms  statement: \(hidden by pgx_tde/, 'with how long it took');
like($log, qr/ERROR:  42601: a statement that may hold a passphrase failed with SQLSTATE 42601; the message went to the client only$/m,
	'a syntax error is an error with its SQLSTATE');
like($log, qr/ERROR:  55000: keystore is already open$/m, 'what the module says is in full');
like($log, qr/ERROR:  42501: permission denied for function pgx_open_keystore$/m, 'who has no permission is told in full');
like($log, qr/statement: GRANT EXECUTE ON FUNCTION pgx_open_keystore\(text\) TO nobody/, 'GRANT is logged in full');
like($log, qr/statement: .*SELECT pgx_set_master_key\(\)/, 'the form without a passphrase is logged in full');
my ($rc, $out, $err) = $node->psql('postgres', "SELECT pgx_open_keystore(nonsense)");
like($err, qr/ERROR:  (?:42703: )?column "nonsense" does not exist/, 'the client gets the whole message');

$watcher->quit;
$node->stop;
is_deeply([ grep { /planted/ } files_with(\%forms, glob($node->data_dir . '/pg_stat*')) ], [], 'not in files of statistics');
done_testing();
