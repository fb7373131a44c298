#!/bin/sh
# No way of the server round the I/O layer: every function of libc by which the postgres binary could
# move a file's bytes is either in the I/O layer's own list of exports, or below with the reason
# why nothing that must be encrypted goes that way.  A new one in a new version fails here first.
set -u

: "${srcdir:=$(dirname "$0")/../..}"
bindir=${1:-$(sed -n 's/^PG_BINDIR = //p' Makefile)}
nm=$(sed -n 's/^NM = //p' Makefile)
map=$srcdir/contrib/pgx_tde/io/pgx_tde_io.map

if [ -z "$bindir" ] || [ ! -x "$bindir/postgres" ]; then
	echo "1..0 # SKIP there is no postgres in \"$bindir\""
	exit 0
fi

# Everything that reads, writes, copies, maps or opens, under each of the names that headers turn it into.
watched='open open64 openat openat64 __open_2 __open64_2 __openat_2 __openat64_2 creat creat64
open_by_handle_at close close_range closefrom dup dup2 dup3
read __read_chk pread pread64 __pread_chk __pread64_chk readv preadv preadv64 preadv2 preadv64v2
write pwrite pwrite64 writev pwritev pwritev64 pwritev2 pwritev64v2
sendfile sendfile64 copy_file_range splice vmsplice tee readahead
fsync fdatasync sync_file_range rename renameat renameat2 link linkat unlink unlinkat
ftruncate ftruncate64 truncate truncate64 fallocate fallocate64 posix_fallocate posix_fallocate64
mmap mmap64 mremap process_vm_readv process_vm_writev
aio_read aio_read64 aio_write aio_write64 lio_listio lio_listio64
io_submit io_uring_queue_init io_uring_queue_init_mem io_uring_queue_init_params io_uring_setup io_uring_enter
io_uring_submit io_uring_submit_and_wait
fopen fopen64 fdopen freopen freopen64 fread __fread_chk fread_unlocked fwrite fwrite_unlocked
fgets __fgets_chk fgetc getc fputc putc fputs getline getdelim
mkstemp mkstemp64 tmpfile tmpfile64 shm_open memfd_create ioctl syscall'

# NAME: reason.  Line by line; a name that is not imported does no harm here.
harmless='dup: of standard error only, to count free descriptors
dup2: puts /dev/null or a log pipe on the standard descriptors
fopen: configuration, authentication, timeline history, backup_label, COPY files, exported snapshots, statistics, the relation cache of system catalogs; and pg_read_file(), which so gets ciphertext, as pg_rewind needs it
freopen: standard output and error, in a process with -r FILE
fread: streams of fopen
fwrite: streams of fopen, and log lines
fgets: streams of fopen
fgetc: streams of fopen
getc: standard input, and the scanners of configuration and bootstrap files
fputc: streams of fopen, and log lines
mmap: shared memory; a data file is mapped only to be flushed, and no byte of it is looked at
shm_open: dynamic shared memory, outside the data directory
io_uring_queue_init: the server is not started with io_method = io_uring
io_uring_queue_init_mem: the server is not started with io_method = io_uring
io_uring_submit: the server is not started with io_method = io_uring
posix_fallocate: dynamic shared memory; and, from 16 on, relations are extended with zeros, which are zeros on disk
sync_file_range: a hint for relation files; a file of WAL is synced by fsync and fdatasync
truncate: to length 0, when a relation is dropped'

# NM may have options.
# shellcheck disable=SC2086
imported=$($nm -D --undefined-only "$bindir/postgres" | awk '{ sub(/@.*/, "", $NF); print $NF }')
handled=$(sed -n '/global:/,/local:/p' "$map" | sed 's/global:\|local://g' | tr -s ';[:space:]' '\n')
n=0
failed=0
for name in $watched; do
	echo "$imported" | grep -qx "$name" || continue
	n=$((n + 1))
	if echo "$handled" | grep -qx "$name"; then
		echo "ok $n - $name is handled by the I/O layer"
	elif reason=$(echo "$harmless" | grep "^$name: "); then
		echo "ok $n - $reason"
	else
		echo "not ok $n - $name is imported by $("$bindir/postgres" --version) and not handled"
		failed=1
	fi
done

# Were nm's output empty or in another form, all of the above would be silent.
for name in open close read write pread pwrite fsync fdatasync rename unlink; do
	n=$((n + 1))
	if echo "$imported" | grep -qx "$name" && echo "$handled" | grep -qx "$name"; then
		echo "ok $n - $name is imported and handled"
	else
		echo "not ok $n - $name is not imported, or not handled"
		failed=1
	fi
done
echo "1..$n"
exit $failed
