#!/usr/bin/perl
# fsdm for Perl, with nothing but what comes with it. Perl's flock is flock(2) wherever the system has it, and takes a
# directory's handle.
#
#   FSDM_DATA_DIR=data perl fsdm.pl want FILE|-
#   FSDM_DATA_DIR=data perl fsdm.pl register [--exclusive] FILE|-
#   FSDM_DATA_DIR=data perl fsdm.pl delete ID
#   FSDM_DATA_DIR=data perl fsdm.pl list
#   FSDM_DATA_DIR=data perl fsdm.pl find DATASET BLOCK
#   FSDM_DATA_DIR=data perl fsdm.pl hold DATASET BLOCK -- CMD…
#   FSDM_DATA_DIR=data perl fsdm.pl acquire [--timeout S] ID|DATASET BLOCK -- CMD…
#
# Exit codes: 1 the chunk cannot be fetched, or is registered already (--exclusive), 2 wrong usage or input, 3 no such
# chunk is available (acquire: or registered), 4 it has not come in time, 6 the data directory cannot be used; that of
# CMD.
use strict;
use warnings;
use Cwd qw(realpath);
use Errno;
use Fcntl qw(:flock :mode F_SETFD O_CREAT O_DIRECTORY O_EXCL O_NOFOLLOW O_NONBLOCK O_RDONLY O_WRONLY);
use JSON::PP ();
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC lstat sleep stat time utime);

my $U64_MAX = '18446744073709551615';
my $WANT_MAX_BYTES = 1 << 20;
my $data;

sub fail { my ($code, $message) = @_; print STDERR "fsdm.pl: $message\n"; exit $code }
sub stands { return !!lstat $_[0] }
sub is_id { return $_[0] =~ /\A[0-9a-f]{64}\z/ }

# ------------------------------------------------------------------------------------------------------------- asking

# A new dotfile of a directory of markers, that is to become a marker; and the text that stands in it.
sub temporary {
    my ($kind, $id, $text) = @_;
    my $path = sprintf '%s/%s/.%s.%08x', $data, $kind, $id, rand 2**32;
    sysopen my $file, $path, O_WRONLY | O_CREAT | O_EXCL, 0664 or fail(6, "$path: $!");
    (defined syswrite $file, $text) or fail(6, "$path: $!");
    return ($file, $path);
}

# The marker appears whole, by a rename (or by a link, where none stands), under the lock of intents. Then those go that
# it overrules: in this order, so that a crash in between never leaves neither.
sub place {
    my ($kind, $exclusive, $id, $text, @overruled) = @_;
    my ($file, $temporary) = temporary($kind, $id, $text);
    close $file or fail(6, "$temporary: $!");
    sysopen my $lock, "$data/want", O_RDONLY | O_DIRECTORY or fail(6, "$data/want: $!");
    for (1 .. 10) { # somebody may sit on it: after 5 ms on without, and as exact as `touch` is
        last if flock $lock, LOCK_EX | LOCK_NB;
        sleep 0.0005;
    }
    my $marker = "$data/$kind/$id";
    my $why = ($exclusive ? link $temporary, $marker : rename $temporary, $marker) ? 0 : $! + 0;
    unlink $temporary if $exclusive || $why;
    if ($why) {
        $! = $why;
        fail($exclusive && $!{EEXIST} ? 1 : 6, "$marker: $!");
    }
    for (map { "$data/$_/$id" } @overruled) {
        unlink $_ or $!{ENOENT} or $!{EISDIR} or fail(6, "$_: $!");
    }
}

# Place the document in a file.
sub ask {
    my ($kind, $exclusive, $name, @overruled) = @_;
    my $file = \*STDIN;
    $name eq '-' or open $file, '<', $name or fail(2, "$name: $!");
    binmode $file;
    defined read $file, my $text, $WANT_MAX_BYTES + 1 or fail(2, "$name: $!");
    length $text <= $WANT_MAX_BYTES or fail(2, 'the want has more than 1 MiB');
    my $document = eval { JSON::PP->new->utf8->decode($text) };
    ref $document eq 'HASH' && is_id($document->{id} // '')
        or fail(2, 'the want has no id of 64 lower-case hex digits');
    place($kind, $exclusive, $document->{id}, $text, @overruled);
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
    my ($place) = @_; # DATASET/START-END-ID
    my ($path, $id) = ("$data/chunks/$place", substr $place, -64);
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
sub become {
    my ($ref, $place, @command) = @_;
    local @ENV{qw(FSDM_CHUNK_PATH FSDM_CHUNK_ID)} = ("$data/chunks/$place/data", substr $place, -64);
    if (!@command) { print "$ENV{FSDM_CHUNK_PATH}\n"; exit 0 }
    fcntl $ref, F_SETFD, 0 or fail(1, "fcntl: $!"); # no close-on-exec
    no warnings 'exec';
    exec { $command[0] } @command or fail($!{ENOENT} ? 127 : 126, "$command[0]: $!");
}

# A block as 20 digits.
sub position {
    my ($dataset, $number) = @_;
    is_id($dataset) or fail(2, "$dataset is not an id of 64 lower-case hex digits");
    my $block = padded($number) or fail(2, "$number is not a block number within 0 ... 2^64-1");
    return $block;
}

sub padded {
    my ($digits) = $_[0] =~ /\A0*([0-9]{1,20})\z/ or return;
    my $padded = ('0' x (20 - length $digits)) . $digits;
    return $padded le $U64_MAX ? $padded : undef;
}

sub hold {
    my ($dataset, $number, @command) = @_;
    for my $place (map { "$dataset/$_" } candidates($dataset, position($dataset, $number))) {
        my $ref = take($place) or next;
        become($ref, $place, @command);
    }
    fail(3, "no available chunk of $dataset holds block $number");
}

# ---------------------------------------------------------------------------------------------------------- acquiring

# Where the chunk of an id has READY, or nothing.
sub here {
    my ($id) = @_;
    for my $dataset (grep { is_id($_) } names("$data/chunks")) {
        for my $name (grep { range_of($_) && substr($_, 42) eq $id } names("$data/chunks/$dataset")) {
            return "$dataset/$name" if stands("$data/chunks/$dataset/$name/READY");
        }
    }
    return;
}

# What a file of ours says, or nothing.
sub document {
    my ($path) = @_;
    sysopen my $file, $path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK or return;
    my $document = eval { JSON::PP->new->utf8->allow_bignum->decode(do { local $/; <$file> }) };
    return ref $document eq 'HASH' ? $document : undef;
}

# The place of the chunk that want/ID or known/ID describes, or nothing.
sub described {
    my ($kind, $id) = @_;
    my $is = document("$data/$kind/$id") or return;
    my $blocks = ref $is->{block_range} eq 'HASH' ? $is->{block_range} : {};
    my ($start, $end) = map { padded($blocks->{$_} // '') // '' } qw(start end);
    return if ($is->{id} // $id) ne $id || !is_id($is->{dataset_id} // '') || !range_of("$start-$end-$id");
    return "$is->{dataset_id}/$start-$end-$id";
}

# Where a chunk is, or else what want/ID or known/ID says, or nothing.
sub where { return here($_[0]) // described('want', $_[0]) // described('known', $_[0]) }

# The place of the chunk that is responsible for a block, of those that are available, and those that are registered.
sub responsible {
    my ($dataset, $block) = @_;
    my $available = sub { stands("$data/chunks/$_[0]/READY") && !stands("$data/delete/" . substr $_[0], -64) };
    my @places = grep { $available->($_) } map { "$dataset/$_" } candidates($dataset, $block);
    for my $id (grep { is_id($_) } names("$data/known")) {
        my $place = described('known', $id) or next;
        my ($start, $end) = range_of(substr $place, 65);
        next if $place !~ /\A$dataset/ || $start gt $block || $block ge $end;
        my $here = here($id);
        push @places, $place if !defined $here || !$available->($here);
    }
    return (sort { substr($b, 0, 85) cmp substr($a, 0, 85) || $a cmp $b } @places)[0];
}

my ($asking, $since); # acquire/ID, with a shared lock; from then on a failure is that of this attempt

sub is_joined {
    my ($path) = @_;
    my @mine = $asking ? stat $asking : ();
    my @there = lstat $path;
    return @mine && @there && $mine[1] == $there[1];
}

# Have a share in acquire/ID; whether that was possible.
sub join_marker {
    my ($id) = @_;
    my $path = "$data/acquire/$id";
    return 1 if is_joined($path);
    undef $asking;
    if (!sysopen $asking, $path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK) {
        $!{ENOENT} or fail(6, "$path: $!");
        ($asking, my $temporary) = temporary('acquire', $id, "held\n");
        flock $asking, LOCK_SH | LOCK_NB; # it was locked before it is there
        link $temporary, $path or $!{EEXIST} or fail(6, "$path: $!");
        unlink $temporary;
    }
    -f $asking or fail(6, "$path is in the way");
    if (flock($asking, LOCK_SH | LOCK_NB) && is_joined($path)) {
        $since = time; # before the touch, so that no failure in between is missed
        utime time, time, $asking; # as fine as it is, so it is another one; another user's refuses it
        return 1;
    }
    undef $asking; # it is on its way out, or is just being looked at
    return 0;
}

# A use is noted about once a minute, where the chunk may be evicted: by a touch of acquire/ID.
sub note_use {
    my ($place) = @_;
    my $id = substr $place, -64;
    my @cached = lstat "$data/chunks/$place/CACHED";
    if (@cached) {
        return if time - $cached[9] < 60;
    }
    else { # was it registered since it was wanted?
        my @want = lstat "$data/chunks/$place/WANT" or return;
        my @known = lstat "$data/known/$id" or return;
        return if $known[9] <= $want[9] || $known[10] <= $want[9];
    }
    sysopen my $marker, "$data/acquire/$id", O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0664 or return;
    utime time, time, $marker;
}

sub acquire {
    my ($place, $timeout, @command) = @_;
    my $late = clock_gettime(CLOCK_MONOTONIC) + ($timeout // 0);
    $place or fail(3, 'that chunk is neither here nor registered');
    my ($id, $ref) = substr $place, -64;
    until ($ref = take($place)) {
        stands("$data/want/$id") || stands("$data/known/$id") or fail(3, "$id is neither here nor registered");
        $place = where($id) // $place;
        if (join_marker($id) && (my $failure = document("$data/failed/$id"))) {
            $failure->{kind} eq 'room' || $failure->{last_at} < $since
                or fail(1, "$id cannot be fetched: $failure->{error}");
        }
        !defined $timeout || clock_gettime(CLOCK_MONOTONIC) < $late or fail(4, "$id has not come in time");
        sleep 0.05;
    }
    note_use($place);
    undef $asking; # not before the ref is taken: until then it is not evicted
    become($ref, $place, @command);
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

my ($verb, @rest) = (@ARGV, '');
pop @rest if @ARGV;
my ($exclusive, $timeout);
if ($verb eq 'register' && @rest == 2 && $rest[0] eq '--exclusive') { $exclusive = shift @rest }
if ($verb eq 'acquire' && @rest > 2 && $rest[0] eq '--timeout') {
    (undef, $timeout) = splice @rest, 0, 2;
    $timeout =~ /\A[0-9]+(\.[0-9]+)?\z/ or fail(2, "$timeout is no number of seconds");
}
if ($verb eq 'want' && @rest == 1) { ask('want', 0, @rest, 'delete') }
elsif ($verb eq 'register' && @rest == 1) { ask('known', $exclusive, @rest, 'delete', 'want') }
elsif ($verb eq 'delete' && @rest == 1) {
    is_id($rest[0]) or fail(2, "$rest[0] is not an id of 64 lower-case hex digits");
    place('delete', 0, $rest[0], '', 'want', 'known');
}
elsif ($verb eq 'list' && !@rest) { list() }
elsif ($verb eq 'find' && @rest == 2) { hold(@rest) }
elsif ($verb eq 'hold' && @rest > 3 && $rest[2] eq '--') { hold(@rest[0, 1], @rest[3 .. $#rest]) }
elsif ($verb eq 'acquire' && @rest > 2 && $rest[1] eq '--') {
    is_id($rest[0]) or fail(2, "$rest[0] is not an id of 64 lower-case hex digits");
    acquire(scalar where($rest[0]), $timeout, @rest[2 .. $#rest]);
}
elsif ($verb eq 'acquire' && @rest > 3 && $rest[2] eq '--') {
    acquire(scalar responsible($rest[0], position(@rest[0, 1])), $timeout, @rest[3 .. $#rest]);
}
else { fail(2, "see the head of $0 for how it is called") }
