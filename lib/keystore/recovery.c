/*
 * recovery.c
 *		The text of a recovery key: 160 random bits as somebody can read them aloud,
 *		write them down and type them in again.
 *
 * Eight groups of five characters.  Four of them carry 20 bits, the fifth a checksum over GF(32)
 * with a different factor for each place and a different constant for each group: one wrong
 * character, two that changed places, and two groups that changed places are always found, and the
 * group is named.  The digits are Crockford's: no I, L, O or U; what looks alike is read alike.
 */
#include <config.h>

#include <assert.h>
#include <string.h>

#include "ksi.h"

#define GROUPS			KEYSTORE_RECOVERY_GROUPS
#define GROUP_LEN		5
#define DATA_LEN		(GROUP_LEN - 1)
#define BITS			5
#define SECRET_LEN		(GROUPS * DATA_LEN * BITS / 8)
#define POLYNOMIAL		0x25	/* x^5 + x^2 + 1, primitive over GF(2) */

static const char digits[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/* The value of a character, or -1. */
static int
digit_value(char c)
{
	const char *found;

	if (c >= 'a' && c <= 'z')
		c = (char) (c - 'a' + 'A');
	if (c == 'O')
		c = '0';
	if (c == 'I' || c == 'L')
		c = '1';
	found = c == '\0' ? NULL : strchr(digits, c);
	return found == NULL ? -1 : (int) (found - digits);
}

/* Multiply by x in GF(32). */
static unsigned
times_x(unsigned v)
{
	v <<= 1;
	return v & 0x20 ? v ^ POLYNOMIAL : v;
}

/*
 * The fifth value of a group: group number plus x * d1 + x^2 * d2 + x^3 * d3 + x^4 * d4, by
 * Horner's rule.
 */
static unsigned
group_check(int group, const unsigned values[DATA_LEN])
{
	unsigned	sum = 0;

	for (int i = DATA_LEN - 1; i >= 0; i--)
		sum = times_x(sum ^ values[i]);
	return sum ^ (unsigned) (group + 1);
}

static bool
is_separator(char c)
{
	return c == '-' || c == ' ' || c == '\t';
}

/* Check a text of exactly GROUPS * GROUP_LEN digits; the number of the first bad group, or -1. */
static int
check_groups(const char *canonical)
{
	for (int group = 0; group < GROUPS; group++)
	{
		unsigned	values[GROUP_LEN];

		for (int i = 0; i < GROUP_LEN; i++)
			values[i] = (unsigned) digit_value(canonical[group * GROUP_LEN + i]);
		if (values[DATA_LEN] != group_check(group, values))
			return group + 1;
	}
	return -1;
}

/*
 * A text that was typed in groups, but not all of them have five digits: which one is wrong?
 * 0 if there are not eight of them, or more than one is wrong: then it is just some passphrase.
 */
static int
odd_group(const char *text, size_t len)
{
	int			group = 0;
	int			bad = 0;
	size_t		i = 0;

	while (i < len)
	{
		int			chars = 0;
		bool		sound = true;

		while (i < len && is_separator(text[i]))
			i++;
		if (i == len)
			break;
		for (; i < len && !is_separator(text[i]); i++, chars++)
			sound = sound && digit_value(text[i]) >= 0;
		group++;
		if (sound && chars == GROUP_LEN)
			continue;
		if (bad != 0)
			return 0;
		bad = group;
	}
	return group == GROUPS ? bad : 0;
}

/*
 * -1: a recovery key, and ret_canonical is what its slot was made from.  0: not one.  Else: one in
 * which the group of this number is mistyped.
 */
int
ksi_recovery_parse(const char *text, size_t len, char ret_canonical[KSI_RECOVERY_LEN])
{
	size_t		count = 0;

	static_assert(KSI_RECOVERY_LEN == GROUPS * GROUP_LEN, "canonical form has no separators");
	for (size_t i = 0; i < len; i++)
	{
		int			value = digit_value(text[i]);

		if (is_separator(text[i]))
			continue;
		if (value < 0 || count == KSI_RECOVERY_LEN)
			return odd_group(text, len);
		ret_canonical[count++] = digits[value];
	}
	return count == KSI_RECOVERY_LEN ? check_groups(ret_canonical) : odd_group(text, len);
}

int
keystore_recovery_check(const char *text, size_t len)
{
	char		canonical[KSI_RECOVERY_LEN];
	int			result = ksi_recovery_parse(text, len, canonical);

	keystore_wipe(canonical, sizeof(canonical));
	return result;
}

/* A new one, for people and for the KDF.  False if there are no random bytes. */
bool
ksi_recovery_make(char ret_text[KEYSTORE_RECOVERY_STRLEN + 1],
				  char ret_canonical[KSI_RECOVERY_LEN])
{
	uint8_t		secret[SECRET_LEN];
	char	   *p = ret_text;
	bool		ok = ksi_random(secret, sizeof(secret));

	static_assert(KEYSTORE_RECOVERY_STRLEN == GROUPS * GROUP_LEN + GROUPS - 1, "dashes between");
	for (int group = 0; ok && group < GROUPS; group++)
	{
		unsigned	values[GROUP_LEN];

		for (int i = 0; i < DATA_LEN; i++)
		{
			unsigned	bit = (unsigned) (group * DATA_LEN + i) * BITS;
			unsigned	two = (unsigned) secret[bit / 8] << 8;

			if (bit / 8 + 1 < SECRET_LEN)
				two |= secret[bit / 8 + 1];
			values[i] = two >> (16 - BITS - bit % 8) & 0x1f;
		}
		values[DATA_LEN] = group_check(group, values);
		if (group > 0)
			*p++ = '-';
		for (int i = 0; i < GROUP_LEN; i++)
		{
			*p++ = digits[values[i]];
			ret_canonical[group * GROUP_LEN + i] = digits[values[i]];
		}
		keystore_wipe(values, sizeof(values));
	}
	*p = '\0';
	keystore_wipe(secret, sizeof(secret));
	return ok;
}
