#!/bin/sh
# Run every operation at full verbosity with known passphrases, and look for them in all that was said and
# in every file that is not the input: as they are, in hex, in base64.
set -u

: "${builddir:=.}"
ks=$builddir/pgx_keystore
top=$(mktemp -d "${TMPDIR:-/tmp}/pgx-secrets.XXXXXX") || exit 1
trap 'rm -rf "$top"' EXIT
trap 'exit 1' HUP INT TERM
chmod 700 "$top"

pass1='first secret of l_secrets'
pass2='second secret of l_secrets'
mkdir -m 700 "$top/input" "$top/said" "$top/keys"
(umask 077; printf '%s\n' "$pass1" >"$top/input/1"; printf '%s\n' "$pass2" >"$top/input/2"
	printf '%s\n%s\n' "$pass1" "$pass2" >"$top/input/12"; printf '%s\n' "wrong but $pass1" >"$top/input/wrong")

test_number=0
failed=0
report()
{
	test_number=$((test_number + 1))
	if [ "$1" -eq 0 ]; then
		echo "ok $test_number - $2"
	else
		echo "not ok $test_number - $2"
		failed=1
	fi
}

# run EXPECTED-CODE INPUT ARGUMENT...: the run must do what it is for, or its silence says nothing.
run()
{
	expected=$1 input=$2
	shift 2
	n=$((test_number + 1))
	"$ks" --verbose "$@" <"$input" >"$top/said/$n.out" 2>"$top/said/$n.err"
	code=$?
	[ "$code" -eq "$expected" ] || sed 's/^/# /' "$top/said/$n.err"
	[ "$code" -eq "$expected" ]
	report $? "exit code $expected: $1 ${2##*/}"
}

f=$top/keys/keystore.ks
s=--host-secret=$top/host_secret
in=$top/input
run 0 "$in/1" create --kdf-cost 10 "$f"
run 0 /dev/null info "$f"
run 0 "$in/1" info --open "$f"
run 2 "$in/wrong" info --open "$f"
run 0 /dev/null info --open --passphrase-file="$in/1" "$f"
run 0 "$in/1" --enable-auto-open "$s" "$f"
run 2 "$in/wrong" auto-open enable "$s" "$f"
run 0 /dev/null auto-open status "$s" "$f"
run 0 "$in/12" passwd --kdf-cost 10 "$f"
run 2 "$in/12" passwd --kdf-cost 10 "$f"
run 0 /dev/null passwd --kdf-cost 10 --passphrase-file="$in/2" --new-passphrase-file="$in/1" "$f"
# Slots, the life of keys, and what lies beside the file; both passphrases open from here on.
run 0 "$in/12" slot add --kdf-cost 10 --label two "$f"
run 2 "$in/wrong" slot label --slot 2 --label three "$f"
run 0 "$in/2" slot label --slot 2 --label three "$f"
run 0 /dev/null slot list "$f"
run 0 "$in/2" keys "$f"
run 2 "$in/wrong" keys "$f"
run 0 "$in/2" rotate "$f"
run 2 "$in/wrong" rotate "$f"
run 0 "$in/1" destroy --force 1 "$f"
run 2 "$in/wrong" rekey "$s" "$f"
run 0 "$in/12" rekey "$s" "$f"
run 0 "$in/1" backup --open --to "$top/backups" "$f"
run 0 "$in/1" verify --open "$s" "$f"
run 0 "$in/1" get-key --purpose l_secrets --key-id 2 "$f"
run 2 "$in/wrong" get-key --purpose l_secrets --key-id 2 "$f"
run 0 /dev/null slot change --slot 2 --kdf-cost 10 --passphrase-file="$in/1" --new-passphrase-file="$in/2" "$f"
run 0 "$in/1" slot remove --slot 2 "$f"
run 0 /dev/null copy --from "$f" --to "$top/copy"
run 1 /dev/null copy --from "$f" --to "$top/keys"
run 0 "$f" receive "$top/received"
run 1 "$in/1" receive "$top/none"
run 0 /dev/null auto-open disable "$s" "$f"
# The pg_ctl shim with a wrong and a right passphrase, with stand-ins for the server and the real pg_ctl.
mkdir "$top/bin"
printf '#!/bin/sh\necho "%s"\n' "$top/keys" >"$top/bin/postgres"
printf '#!/bin/sh\necho "$@"; cat /proc/$$/environ /proc/$$/cmdline\n' >"$top/bin/pg_ctl"
chmod 755 "$top/bin/postgres" "$top/bin/pg_ctl"
if [ "$(id -u)" -ne 0 ]; then
	for n in 1 wrong; do
		PATH=$top/bin:$PATH "$builddir/bin/pg_ctl/pg_ctl" -D "$top" --keystore-passphrase start \
			<"$in/$n" >"$top/said/pg_ctl.$n.out" 2>"$top/said/pg_ctl.$n.err"
		code=$?
		[ "$code" -eq "$([ "$n" = 1 ] && echo 0 || echo 2)" ]
		report $? "exit code $code: pg_ctl, passphrase $n"
	done
else
	echo "ok $((test_number + 1)) - pg_ctl # SKIP refuses root"
	test_number=$((test_number + 1))
fi

# The checks must be able to find something.
rm -rf "$top/probe"
mkdir "$top/probe"
printf 'x%sx' "$pass1" >"$top/probe/plain"

hex() { printf %s "$1" | od -An -v -tx1 | tr -d ' \n'; }
# Base64 depends on where in its groups of three the text begins: $2 is what stands before it.  The first and
# last characters can be another text's, so they are left out.
base64_core() { printf '%s%s' "$2" "$1" | base64 | tr -d '\n=' | cut -c 5-24; }
for pass in "$pass1" "$pass2"; do
	for form in "$pass" "$(hex "$pass")" "$(base64_core "$pass" '')" "$(base64_core "$pass" x)" \
		"$(base64_core "$pass" xx)"; do
		found=$(grep -rliFa -e "$form" "$top/said" "$top/keys" "$top/copy" "$top/received" "$top/backups")
		[ -z "$found" ]
		report $? "no \"$form\" in what was said or written${found:+: $found}"
	done
done
grep -rqiFa -e "$pass1" "$top/probe"
report $? "the search finds what is there"

# The former file is a keystore too; and no core file came.
[ -f "$f.prev" ]
report $? "a former keystore was looked through"
[ -z "$(find "$top" -name 'core*')" ]
report $? "no core file"
echo "1..$test_number"
exit $failed
