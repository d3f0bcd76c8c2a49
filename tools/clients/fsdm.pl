#!/usr/bin/perl
# fsdm for Perl, with nothing but what comes with it. Perl's flock is flock(2) wherever the system has it, and takes a
# directory's handle.
#
#   FSDM_DATA_DIR=data perl fsdm.pl want FILE|-
#   FSDM_DATA_DIR=data perl fsdm.pl delete ID
#   FSDM_DATA_DIR=data perl fsdm.pl list
#   FSDM_DATA_DIR=data perl fsdm.pl find DATASET BLOCK
#   FSDM_DATA_DIR=data perl fsdm.pl hold DATASET BLOCK -- CMD…
#
# Exit codes: 2 wrong usage or input, 3 no such chunk is available, 6 the data directory cannot be used; that of CMD.
use strict;
use warnings;
use Cwd qw(realpath);
use Errno;
use Fcntl qw(:flock :mode F_SETFD O_CREAT O_DIRECTORY O_EXCL O_NOFOLLOW O_RDONLY O_WRONLY);
use JSON::PP ();
use Time::HiRes qw(sleep);

my $U64_MAX = '18446744073709551615';
my $WANT_MAX_BYTES = 1 << 20;
my $data;

sub fail { my ($code, $message) = @_; print STDERR "fsdm.pl: $message\n"; exit $code }
sub stands { return !!lstat $_[0] }
sub is_id { return $_[0] =~ /\A[0-9a-f]{64}\z/ }

# ------------------------------------------------------------------------------------------------------------- asking

# The marker appears whole, by a rename, under the lock of intents. Then the opposite one goes: in this order, so that a
# crash in between never leaves neither.
sub place {
    my ($kind, $id, $text) = @_;
    my $opposite = $kind eq 'want' ? 'delete' : 'want';
    my $temporary = sprintf '%s/%s/.%s.%08x', $data, $kind, $id, rand 2**32;
    sysopen my $file, $temporary, O_WRONLY | O_CREAT | O_EXCL, 0664 or fail(6, "$temporary: $!");
    (print {$file} $text) && close $file or fail(6, "$temporary: $!");
    sysopen my $lock, "$data/want", O_RDONLY | O_DIRECTORY or fail(6, "$data/want: $!");
    for (1 .. 10) { # somebody may sit on it: after 5 ms on without, and as exact as `touch` is
        last if flock $lock, LOCK_EX | LOCK_NB;
        sleep 0.0005;
    }
    if (!rename $temporary, "$data/$kind/$id") {
        my $why = $!;
        unlink $temporary;
        fail(6, "$data/$kind/$id: $why");
    }
    unlink "$data/$opposite/$id" or $!{ENOENT} or $!{EISDIR} or fail(6, "$data/$opposite/$id: $!");
}

sub want {
    my ($name) = @_;
    my $file = \*STDIN;
    $name eq '-' or open $file, '<', $name or fail(2, "$name: $!");
    binmode $file;
    defined read $file, my $text, $WANT_MAX_BYTES + 1 or fail(2, "$name: $!");
    length $text <= $WANT_MAX_BYTES or fail(2, 'the want has more than 1 MiB');
    my $document = eval { JSON::PP->new->utf8->decode($text) };
    ref $document eq 'HASH' && is_id($document->{id} // '')
        or fail(2, 'the want has no id of 64 lower-case hex digits');
    place('want', $document->{id}, $text);
}

# ------------------------------------------------------------------------------------------------------------ reading

sub names {
    my ($path) = @_;
    my $found = opendir(my $directory, $path);
    $found or $!{ENOENT} or $!{ENOTDIR} or fail(6, "$path: $!");
    return if !$found;
    return sort { $a cmp $b } readdir $directory;
}

# START and END of a chunk directory's name, or nothing. Being 20 digits each, they compare as text.
sub range_of {
    my ($start, $end) = $_[0] =~ /\A([0-9]{20})-([0-9]{20})-[0-9a-f]{64}\z/ or return;
    return $start lt $end && $end le $U64_MAX ? ($start, $end) : ();
}

sub list {
    for my $dataset (grep { is_id($_) } names("$data/chunks")) {
        for my $name (grep { range_of($_) } names("$data/chunks/$dataset")) {
            my ($path, $id) = ("$data/chunks/$dataset/$name", substr $name, 42);
            print "$id\n" if !-l $path && stands("$path/READY") && !stands("$data/delete/$id");
        }
    }
}

# Those that hold the block, the responsible one first: the greatest start, then the smallest end, then the smallest id.
sub candidates {
    my ($dataset, $block) = @_;
    my $holds = sub { my ($start, $end) = range_of($_[0]) or return; return $start le $block && $block lt $end };
    return sort { substr($b, 0, 20) cmp substr($a, 0, 20) || $a cmp $b }
        grep { $holds->($_) } names("$data/chunks/$dataset");
}

# A ref: the handle of the chunk's directory, with a shared lock on it until it is closed; or nothing.
sub take {
    my ($path, $id) = @_;
    # Before the lock as well, for fairness: who keeps asking must not keep the reconciler from its claim.
    return if stands("$data/delete/$id") || !stands("$path/READY");
    sysopen my $ref, $path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW or return;
    # The order is the whole safety argument: lock, then READY through the descriptor, then the marker.
    return if !flock $ref, LOCK_SH | LOCK_NB;
    return if !stands('/proc/self/fd/' . fileno($ref) . '/READY');
    return if stands("$data/delete/$id");
    return $ref;
}

# Becomes CMD, which inherits the ref: the chunk is held for as long as CMD, or a child of it, runs. Or prints its path.
sub hold {
    my ($dataset, $number, @command) = @_;
    is_id($dataset) or fail(2, "$dataset is not an id of 64 lower-case hex digits");
    my ($digits) = $number =~ /\A0*([0-9]{1,20})\z/ or fail(2, "$number is not a block number");
    my $block = ('0' x (20 - length $digits)) . $digits;
    $block le $U64_MAX or fail(2, "$number is greater than 2^64-1");
    for my $name (candidates($dataset, $block)) {
        my $id = substr $name, 42;
        my $ref = take("$data/chunks/$dataset/$name", $id) or next;
        local @ENV{qw(FSDM_CHUNK_PATH FSDM_CHUNK_ID)} = ("$data/chunks/$dataset/$name/data", $id);
        if (!@command) { print "$ENV{FSDM_CHUNK_PATH}\n"; return }
        fcntl $ref, F_SETFD, 0 or fail(1, "fcntl: $!"); # no close-on-exec
        no warnings 'exec';
        exec { $command[0] } @command or fail($!{ENOENT} ? 127 : 126, "$command[0]: $!");
    }
    fail(3, "no available chunk of $dataset holds block $number");
}

my $root = $ENV{FSDM_DATA_DIR} or fail(2, 'which data directory? Set FSDM_DATA_DIR');
$data = -d $root ? realpath($root) : fail(6, "$root is not a directory");
my $format = eval {
    open my $file, '<', "$data/fsdm.json" or die;
    JSON::PP->new->utf8->decode(do { local $/; <$file> })->{format};
};
($format // '') eq '1' && JSON::PP->new->allow_nonref->encode($format) eq '1' # a number, not "1"
    or fail(6, "$data is not a data directory of format 1");
stands("$data/delete/.") or fail(6, "$data/delete may not be searched: nobody could see there that a chunk is deleted");

my ($verb, @rest) = @ARGV;
if (@ARGV == 2 && $verb eq 'want') { want(@rest) }
elsif (@ARGV == 2 && $verb eq 'delete') {
    is_id($rest[0]) or fail(2, "$rest[0] is not an id of 64 lower-case hex digits");
    place('delete', $rest[0], '');
}
elsif (@ARGV == 1 && $verb eq 'list') { list() }
elsif (@ARGV == 3 && $verb eq 'find') { hold(@rest) }
elsif (@ARGV > 4 && $verb eq 'hold' && $rest[2] eq '--') { hold(@rest[0, 1], @rest[3 .. $#rest]) }
else { fail(2, 'want FILE|-, delete ID, list, find DATASET BLOCK, or hold DATASET BLOCK -- CMD…') }
