# PgxPages.pm
#		Looking at the pages of a cluster as they are on disk, by means of its own: what a
#		plain page must look like, whatever a key would make of it.

package PgxPages;

use strict;
use warnings;

use Exporter 'import';
use PgxTde;
use Test::More;

our @EXPORT = qw(PAGE_SIZE relation_files plain_files plain_wal is_all_encrypted);

use constant PAGE_SIZE => 8192;

# What access methods leave at the end of a page: nothing, or a few bytes.
my %special = map { $_ => 1 } PAGE_SIZE, PAGE_SIZE - 8, PAGE_SIZE - 16;

# Does a page have the plain fields that encryption hides?  Ciphertext looks so once in a milliard pages.
sub is_plain_page
{
	my ($page) = @_;
	my ($special, $size_version) = unpack 'x16 S S', $page;
	return $special{$special} && $size_version == (PAGE_SIZE | 4);
}

# The files of relations in a data directory, tablespaces included.
sub relation_files
{
	my ($data) = @_;
	return sort grep {
		m{/(?:t\d+_)?\d+(?:_(?:fsm|vm|init))?(?:\.\d+)?$} && m{/(?:base|global|pg_tblspc)/}
	} files_below("$data/base", "$data/global", "$data/pg_tblspc");
}

# Of these files, those that hold a page in the clear; and how many pages were not empty.
sub plain_files
{
	my (@files) = @_;
	my ($pages, @plain) = (0);

	foreach my $file (@files)
	{
		my $content = slurp_raw($file) // next;
		my $plain = 0;
		for (my $at = 0; $at + PAGE_SIZE <= length $content; $at += PAGE_SIZE)
		{
			my $page = substr $content, $at, PAGE_SIZE;
			next if $page !~ /[^\0]/;
			$pages++;
			$plain ||= is_plain_page($page);
		}
		push @plain, $file if $plain;
	}
	return ($pages, @plain);
}

# Segments with a page of WAL whose header names no epoch; and how many pages there were.
sub plain_wal
{
	my ($dir) = @_;
	my ($pages, @plain) = (0);

	foreach my $file (sort grep { m{/[0-9A-F]{24}(?:\.partial)?$} } files_below($dir))
	{
		my $content = slurp_raw($file) // next;
		my $plain = 0;
		for (my $at = 0; $at < length $content; $at += PAGE_SIZE)
		{
			my ($magic, $epoch) = unpack 'S x18 L', substr $content, $at, 24;
			next if $magic == 0;
			$pages++;
			$plain ||= $epoch == 0;
		}
		push @plain, $file if $plain;
	}
	return ($pages, @plain);
}

# No page of a relation or of WAL is in the clear, and there were some.
sub is_all_encrypted
{
	my ($data, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($pages, @plain) = plain_files(relation_files($data));
	my ($wal_pages, @plain_wal) = plain_wal("$data/pg_wal");

	my $ok = is_deeply([ @plain, @plain_wal ], [], "$name: no page in the clear");
	return cmp_ok($pages, '>', 500, "$name: of $pages pages of relations")
	  && cmp_ok($wal_pages, '>', 0, "$name: and $wal_pages pages of WAL") && $ok;
}

1;
