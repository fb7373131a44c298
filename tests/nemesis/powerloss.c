/*
 * powerloss.c
 *		powerloss SEED NEMESIS_DIRECTORY DIRECTORY...
 *		Make the files below the DIRECTORYs what they might be after the power
 *		failed: of what the killed server had written and nobody had synced, whole
 *		sectors fall back to what they held before.
 *
 * For each file it is drawn whether all, none or some of its unsynced sectors
 * fall back.  A sector that does is taken back through every unsynced write that
 * touched it, so it never holds a mixture that no disk could show.
 *
 * Prints: unsynced writes, sectors that they touched, sectors that fell back.
 */
#define _GNU_SOURCE
#include <config.h>

#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nemesis.h"

struct entry
{
	struct nemesis_record record;
	const uint8_t *bytes;
};

struct place
{
	uint64_t	device;
	uint64_t	inode;
	char	   *path;
};

static struct entry *entries;
static size_t entry_count;
static struct place *places;
static size_t place_count;

static void *
grown(void *p, size_t count, size_t size)
{
	/* Doubling, at each power of two. */
	if (count < 1024 ? count % 64 != 0 : (count & (count - 1)) != 0)
		return p;
	p = realloc(p, (count < 1024 ? count + 64 : 2 * count) * size);
	if (p == NULL)
		err(2, "memory");
	return p;
}

/* A log may end in the middle of a record: the server was killed there, before the write that it was for. */
static void
read_log(const char *path)
{
	struct stat st;
	int			fd = open(path, O_RDONLY);
	const uint8_t *p;
	size_t		at = 0;

	if (fd < 0 || fstat(fd, &st) != 0)
		err(2, "%s", path);
	if (st.st_size == 0)
	{
		close(fd);
		return;
	}
	p = mmap(NULL, (size_t) st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		err(2, "%s", path);
	close(fd);
	while (at + sizeof(struct nemesis_record) <= (size_t) st.st_size)
	{
		struct entry *entry;

		entries = grown(entries, entry_count, sizeof(*entries));
		entry = &entries[entry_count];
		memcpy(&entry->record, p + at, sizeof(entry->record));
		at += sizeof(entry->record);
		if (entry->record.event == NEMESIS_WRITE)
		{
			entry->bytes = p + at;
			at += entry->record.length;
			if (at > (size_t) st.st_size)
				break;
		}
		entry_count++;
	}
}

static void
read_logs(const char *directory)
{
	DIR		   *dir = opendir(directory);
	struct dirent *d;
	char		path[4096];

	if (dir == NULL)
		err(2, "%s", directory);
	while ((d = readdir(dir)) != NULL)
	{
		if (strncmp(d->d_name, "log.", 4) != 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", directory, d->d_name);
		read_log(path);
	}
	closedir(dir);
}

static int
note_place(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	if (type != FTW_F || !S_ISREG(st->st_mode))
		return 0;
	places = grown(places, place_count, sizeof(*places));
	places[place_count].device = st->st_dev;
	places[place_count].inode = st->st_ino;
	places[place_count].path = strdup(path);
	place_count++;
	return 0;
}

static int
compare_entries(const void *a, const void *b)
{
	const struct nemesis_record *x = &((const struct entry *) a)->record;
	const struct nemesis_record *y = &((const struct entry *) b)->record;

	if (x->device != y->device)
		return x->device < y->device ? -1 : 1;
	if (x->inode != y->inode)
		return x->inode < y->inode ? -1 : 1;
	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static const char *
place_of(const struct nemesis_record *record)
{
	for (size_t i = 0; i < place_count; i++)
		if (places[i].device == record->device && places[i].inode == record->inode)
			return places[i].path;
	return NULL;				/* the file is gone */
}

static uint64_t
draw(uint64_t seed, uint64_t a, uint64_t b)
{
	uint64_t	x = seed * 0x9e3779b97f4a7c15u ^ a * 0xbf58476d1ce4e5b9u ^ b * 0x94d049bb133111ebu;

	x ^= x >> 31;
	x *= 0xd6e8feb86659fd93u;
	return x ^ x >> 32;
}

/* The file's fate: 0 keeps all, 1 loses all, 2 loses each sector with even odds. */
static bool
falls_back(uint64_t seed, uint64_t inode, uint64_t sector)
{
	switch (draw(seed, inode, 0) % 4)
	{
		case 0:
			return false;
		case 1:
			return true;
		default:
			return draw(seed, inode, sector + 1) % 2 == 0;
	}
}

/*
 * The unsynced writes of one file are among first[0..count), in order.  Shorten or drop (length 0) what is
 * on disk for good: synced, truncated away, or of another file that had the number.
 */
static size_t
find_unsynced(struct entry *first, size_t count)
{
	uint64_t	synced = 0;
	uint64_t	end = UINT64_MAX;
	size_t		found = 0;

	for (size_t i = count; i-- > 0;)
	{
		struct nemesis_record *r = &first[i].record;

		if (r->event == NEMESIS_SYNC && r->seq > synced)
			synced = r->seq;
		else if (r->event == NEMESIS_TRUNCATE && r->offset < end)
			end = r->offset;
		else if (r->event == NEMESIS_CREATE)
			end = 0;
		else if (r->event == NEMESIS_WRITE)
		{
			if (r->seq < synced || r->offset >= end)
				r->length = 0;
			else if (r->length > end - r->offset)
				r->length = (uint32_t) (end - r->offset);
			found += r->length > 0;
		}
	}
	return found;
}

/* Take sectors of one file back, newest write first. */
static void
take_back(uint64_t seed, const char *path, const struct entry *first, size_t count, uint64_t *touched,
		  uint64_t *reverted)
{
	struct stat st;
	int			fd = open(path, O_WRONLY);

	if (fd < 0 || fstat(fd, &st) != 0)
		err(2, "%s", path);
	for (size_t i = count; i-- > 0;)
	{
		const struct nemesis_record *r = &first[i].record;
		uint64_t	at = r->offset;
		uint64_t	stop = r->offset + r->length;

		if (r->event != NEMESIS_WRITE)
			continue;
		if (stop > (uint64_t) st.st_size)
			stop = (uint64_t) st.st_size;
		while (at < stop)
		{
			uint64_t	sector = at / NEMESIS_SECTOR;
			uint64_t	next = (sector + 1) * NEMESIS_SECTOR;

			if (next > stop)
				next = stop;
			++*touched;
			if (falls_back(seed, r->inode, sector))
			{
				++*reverted;
				if (pwrite(fd, first[i].bytes + (at - r->offset), next - at, (off_t) at) != (ssize_t) (next - at))
					err(2, "%s", path);
			}
			at = next;
		}
	}
	close(fd);
}

int
main(int argc, char **argv)
{
	uint64_t	seed;
	uint64_t	writes = 0;
	uint64_t	touched = 0;
	uint64_t	reverted = 0;

	if (argc < 4)
		errx(2, "usage: powerloss SEED NEMESIS_DIRECTORY DIRECTORY...");
	seed = strtoull(argv[1], NULL, 10);
	read_logs(argv[2]);
	for (int i = 3; i < argc; i++)
		if (nftw(argv[i], note_place, 64, FTW_PHYS) != 0)
			err(2, "%s", argv[i]);
	if (entry_count > 0)
		qsort(entries, entry_count, sizeof(*entries), compare_entries);
	for (size_t i = 0, n; i < entry_count; i += n)
	{
		const char *path = place_of(&entries[i].record);
		size_t		unsynced;

		for (n = 1; i + n < entry_count && entries[i + n].record.device == entries[i].record.device &&
			 entries[i + n].record.inode == entries[i].record.inode; n++)
			;
		unsynced = path != NULL ? find_unsynced(entries + i, n) : 0;
		writes += unsynced;
		if (unsynced > 0)
			take_back(seed, path, entries + i, n, &touched, &reverted);
	}
	printf("%llu unsynced writes, %llu sectors, %llu fell back\n", (unsigned long long) writes,
		   (unsigned long long) touched, (unsigned long long) reverted);
	return 0;
}
