#!/bin/sh
# Every option and operation that a command's --help shows is in its man page, and back.
set -u

: "${srcdir:=$(dirname "$0")/../..}"
: "${builddir:=.}"

# Long options of a help text, one a line.
help_options()
{
	"$@" --help | grep -o -e '--[a-z][a-z-]*' | sort -u
}

# Long options of a man page: mdoc writes them "Fl Fl name".
man_options()
{
	grep -o -e 'Fl Fl [a-z][a-z-]*' "$1" | sed 's/Fl Fl /--/' | sort -u
}

test_number=0
failed=0
compare()
{
	test_number=$((test_number + 1))
	if [ -z "$2" ] || [ "$2" != "$3" ]; then
		echo "not ok $test_number - $1"
		printf '%s\n' "in the program:" "$2" "in the man page:" "$3" | sed 's/^/# /'
		failed=1
	else
		echo "ok $test_number - $1 ($(printf '%s\n' "$2" | wc -l))"
	fi
}

# Fails if the man page's formatter has anything to say, other than that pages are not installed.
check_page()
{
	test_number=$((test_number + 1))
	said=$("$@" 2>&1 | grep -v -e 'mandoc\.db lacks' -e 'referenced manual not found')
	if [ -n "$said" ]; then
		echo "not ok $test_number - $*"
		printf '%s\n' "$said" | sed 's/^/# /'
		failed=1
	else
		echo "ok $test_number - $*"
	fi
}

compare "options of pgx_keystore" "$(help_options "$builddir/pgx_keystore")" \
	"$(man_options "$srcdir/man/pgx_keystore.1")"

# Operations stand in the usage, and as "Cm" at the begin of an item or of the synopsis.
compare "operations of pgx_keystore" \
	"$("$builddir/pgx_keystore" --help | sed -n 's/^  pgx_keystore \([a-z][a-z-]*\) .*/\1/p' | sort -u)" \
	"$(sed -n '/^\.Sh DESCRIPTION/,/^\.Sh OPTIONS/s/^\.It Cm \([a-z-]*\).*/\1/p' "$srcdir/man/pgx_keystore.1" | sort -u)"

# The shim prints the real program's help first; ours are those that the real one does not know.
compare "options of the pg_ctl shim" \
	"$(help_options "$builddir/bin/pg_ctl/pg_ctl" | grep -e '--keystore')" \
	"$(man_options "$srcdir/man/pgx-pg_ctl.1" | grep -e '--keystore')"

compare "options of the initdb front end" \
	"$(help_options "$builddir/bin/initdb/initdb" | grep -e '--keystore' -e '--encrypt')" \
	"$(man_options "$srcdir/man/pgx-initdb.1" | grep -e '--keystore' -e '--encrypt')"

compare "options of pgx_encrypt" "$(help_options "$builddir/pgx_encrypt")" \
	"$(man_options "$srcdir/man/pgx_encrypt.1")"

compare "options of pgx_walcopy" "$(help_options "$builddir/pgx_walcopy")" \
	"$(man_options "$srcdir/man/pgx_walcopy.1")"
if [ -x "$builddir/pgx_dmpall" ]; then	# not without libjansson
	compare "options of pgx_dmpall" "$(help_options "$builddir/pgx_dmpall")" \
		"$(man_options "$srcdir/man/pgx_dmpall.1")"
	compare "options of pgx_rcvall" "$(help_options "$builddir/pgx_rcvall")" \
		"$(man_options "$srcdir/man/pgx_rcvall.1")"
fi

# The module's settings, and what the extension makes for users: pgx_*_state and pg_stat_get_* are what views are made of.
compare "settings of the module" \
	"$(cat "$srcdir"/contrib/pgx_tde/module/*.c | grep -o '"pgx_tde\.[a-z_]*[a-z]"' | tr -d '"' | grep -v '\.h$' | sort -u)" \
	"$(sed -n '/^\.Ss Settings/,/^\.Ss Tablespaces/s/^\.It Va //p' "$srcdir/man/pgx_tde.7" | sort -u)"
compare "functions and views of the extension" \
	"$(sed -n 's/^CREATE FUNCTION pg_catalog\.\([a-z_]*\)(.*/\1/p; s/^CREATE VIEW \([a-z_]*\) .*/\1/p' \
		"$srcdir"/contrib/pgx_tde/module/pgx_tde--1.0.sql |
		grep -v -e '_state$' -e '^pg_stat_get_' -e '^pgx_tablespace_algorithm$' | sort -u)" \
	"$(sed -n '/^\.Ss Functions/,/^\.Sh/s/^\.It [FV][nt] \([a-z_]*\).*/\1/p' "$srcdir/man/pgx_tde.7" | sort -u)"

# The exit codes are promised in the page and in the help.
test_number=$((test_number + 1))
if "$builddir/pgx_keystore" --help | grep -q 'Exit status: 0 done, 1 failed, 2 passphrase wrong'; then
	echo "ok $test_number - exit codes in the help"
else
	echo "not ok $test_number - exit codes in the help"
	failed=1
fi

# PostgreSQL's own check of programs (program_help_ok) has this limit, from 17 on.
for program in pgx_keystore pgx_encrypt pgx_walcopy pgx_dmpall pgx_rcvall; do
	[ -x "$builddir/$program" ] || continue
	test_number=$((test_number + 1))
	too_long=$("$builddir/$program" --help | grep -E '.{96}')
	if [ -z "$too_long" ]; then
		echo "ok $test_number - no line of the help of $program is longer than 95"
	else
		echo "not ok $test_number - no line of the help of $program is longer than 95"
		printf '%s\n' "$too_long" | sed 's/^/# /'
		failed=1
	fi
done

for page in pgx_keystore.1 pgx_encrypt.1 pgx-initdb.1 pgx-pg_ctl.1 pgx_servers.conf.5 pgx_dmpall.1 pgx_rcvall.1 \
	pgx_walcopy.1 pgx_backup.5 pgx_tde.7; do
	for section in NAME 'EXIT STATUS' ENVIRONMENT FILES EXAMPLES 'SEE ALSO' CAVEATS; do
		case $page,$section in
			*.[57],E[XN][IV]*) continue ;;	# no program, no exit status
		esac
		test_number=$((test_number + 1))
		if grep -q "^\.Sh $section\$" "$srcdir/man/$page"; then
			echo "ok $test_number - $page has $section"
		else
			echo "not ok $test_number - $page has $section"
			failed=1
		fi
	done
	if command -v mandoc >/dev/null; then
		check_page mandoc -Tlint "$srcdir/man/$page"
	fi
	if command -v groff >/dev/null; then
		check_page groff -mandoc -ww -z -Tutf8 "$srcdir/man/$page"
	fi
done
echo "1..$test_number"
exit $failed
