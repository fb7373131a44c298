#!/bin/sh
# What libkeystore exports is written down four times: in keystore.h, in the version script, in the built
# library's symbol table and in libkeystore(3).  They must be the same list.
set -u

: "${srcdir:=$(dirname "$0")/../..}"
header=$srcdir/lib/keystore/keystore.h
map=$srcdir/lib/keystore/libkeystore.map
page=$srcdir/man/libkeystore.3
library=lib/keystore/.libs/libkeystore.so
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
n=0
failed=0

# same NAME FILE: compare the list with the header's
same()
{
	n=$((n + 1))
	if diff "$work/header" "$2" >"$work/diff" 2>&1; then
		echo "ok $n - $1"
	else
		echo "not ok $n - $1 (< keystore.h, > $1)"
		sed 's/^/# /' "$work/diff"
		failed=1
	fi
}

# Prototypes begin with "extern"; the name is what stands before the first parenthesis.
sed -n 's/^extern [^(]*[ *]\(keystore_[a-z0-9_]*\)(.*/\1/p' "$header" | sort >"$work/header"
sed -n 's/^[[:space:]]*\([A-Za-z0-9_]*\);.*/\1/p' "$map" | sort >"$work/map"
nm -D --defined-only "$library" | awk '$2 == "T" || $2 == "D" || $2 == "B" || $2 == "R" {
	sub(/@.*/, "", $3); print $3 }' | sort >"$work/library"
sed -n 's/^\.Fo \([a-z0-9_]*\).*/\1/p' "$page" | sort >"$work/page"

echo 1..5
n=$((n + 1))
if [ "$(wc -l <"$work/header")" -ge 40 ] && [ -z "$(uniq -d "$work/header")" ] &&
	! grep -v '^keystore_[a-z0-9_]*$' "$work/header"; then
	echo "ok $n - keystore.h declares $(wc -l <"$work/header") functions, each once"
else
	echo "not ok $n - keystore.h declares its functions in a form that this check does not read"
	failed=1
fi
same libkeystore.map "$work/map"
same libkeystore.so "$work/library"
same "libkeystore(3)" "$work/page"

# Everything exported belongs to a node: without the version script all would be in none.
n=$((n + 1))
if nm -D --defined-only "$library" | grep ' T ' | grep -qv '@@LIBKEYSTORE_[0-9.]*$'; then
	echo "not ok $n - every symbol has a version"
	nm -D --defined-only "$library" | grep ' T ' | grep -v '@@LIBKEYSTORE_' | sed 's/^/# /'
	failed=1
else
	echo "ok $n - every symbol has a version"
fi
exit $failed
