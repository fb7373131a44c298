#!/bin/sh
# Each header of lib/ compiles on its own, and a second time in the same file.  The installed one does
# so without config.h, as C99 and as C++ too.
set -u

: "${srcdir:=$(dirname "$0")/../..}"
cc=$(sed -n 's/^CC = //p' Makefile)
cxx=$(command -v c++ || command -v g++ || command -v clang++ || true)
includes="-I. -I$srcdir/lib/keystore -I$srcdir/lib/tde"
warnings="-Wall -Wextra -Wundef -Wstrict-prototypes -Werror -fsyntax-only"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
n=0
failed=0

# result STATUS NAME: one line of TAP; what the compiler said goes along as comments
result()
{
	n=$((n + 1))
	if [ "$1" -eq 0 ]; then
		echo "ok $n - $2"
	else
		echo "not ok $n - $2"
		sed 's/^/# /' "$work/log"
		failed=1
	fi
}

for header in "$srcdir"/lib/*/*.h; do
	name=${header#"$srcdir"/}
	case $name in
		lib/keystore/keystore.h) : >"$work/t.c" ;;
		*) echo '#include <config.h>' >"$work/t.c" ;;
	esac
	echo "#include \"$header\"" >>"$work/t.c"
	echo "#include \"$header\"" >>"$work/t.c"
	# shellcheck disable=SC2086
	$cc -std=gnu11 $warnings $includes "$work/t.c" >"$work/log" 2>&1
	result $? "$name on its own"
done

echo '#include <keystore.h>' >"$work/t.c"
# shellcheck disable=SC2086
$cc -std=c99 -pedantic $warnings -I"$srcdir/lib/keystore" "$work/t.c" >"$work/log" 2>&1
result $? "lib/keystore/keystore.h as C99"
if [ -n "$cxx" ]; then
	cp "$work/t.c" "$work/t.cc"
	"$cxx" -std=c++11 -pedantic -Wall -Wextra -Werror -fsyntax-only -I"$srcdir/lib/keystore" \
		"$work/t.cc" >"$work/log" 2>&1
	result $? "lib/keystore/keystore.h as C++"
fi

echo "1..$n"
exit $failed
