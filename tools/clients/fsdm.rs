//! fsdm for Rust 1.75 and later, with nothing but std and two functions of libc:  rustc -O --edition 2021 fsdm.rs
//! (From Rust 1.89 on, `File::try_lock_shared` is the same flock(2).)
//!
//!     FSDM_DATA_DIR=data fsdm want FILE|-
//!     FSDM_DATA_DIR=data fsdm register [--exclusive] FILE|-
//!     FSDM_DATA_DIR=data fsdm delete ID
//!     FSDM_DATA_DIR=data fsdm list
//!     FSDM_DATA_DIR=data fsdm find DATASET BLOCK
//!     FSDM_DATA_DIR=data fsdm hold DATASET BLOCK -- CMD…
//!     FSDM_DATA_DIR=data fsdm acquire [--timeout S] ID|DATASET BLOCK -- CMD…
//!
//! Exit codes: 1 the chunk cannot be fetched, or is registered already (--exclusive), 2 wrong usage or input, 3 no such
//! chunk is available (acquire: or registered), 4 it has not come in time, 6 the data directory cannot be used; that of
//! CMD.
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{exit, Command};
use std::time::{Duration, Instant, SystemTime};

extern "C" {
    fn flock(fd: i32, operation: i32) -> i32;
    fn dup(fd: i32) -> i32;
}
const LOCK_SH: i32 = 1;
const LOCK_EX: i32 = 2;
const LOCK_NB: i32 = 4;
const ENOENT: i32 = 2;
const ENOTDIR: i32 = 20;
const EISDIR: i32 = 21;
#[cfg(not(any(target_arch = "arm", target_arch = "aarch64", target_arch = "powerpc64")))]
mod flags {
    pub const DIRECTORY: i32 = 0o200000;
    pub const NOFOLLOW: i32 = 0o400000;
}
#[cfg(any(target_arch = "arm", target_arch = "aarch64", target_arch = "powerpc64"))]
mod flags {
    pub const DIRECTORY: i32 = 0o040000;
    pub const NOFOLLOW: i32 = 0o100000;
}

use flags::{DIRECTORY, NOFOLLOW};
const NONBLOCK: i32 = 0o4000;

const WANT_MAX_BYTES: u64 = 1 << 20;

fn fail(code: i32, message: impl std::fmt::Display) -> ! {
    eprintln!("fsdm: {message}");
    exit(code)
}

/// What it is, or the end: the data directory cannot be used.
fn usable<T>(result: io::Result<T>, path: &Path) -> T {
    result.unwrap_or_else(|e| fail(6, format!("{}: {e}", path.display())))
}

fn stands(path: impl AsRef<Path>) -> bool {
    fs::symlink_metadata(path).is_ok()
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The value of a key of the outermost object of a JSON text, to the text's end; of several, the last. None where that
/// object does not end.
fn member<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let (mut found, mut depth, mut rest) = (None, 0, text);
    while let Some(at) = rest.find(['{', '[', '}', ']', '"']) {
        let mark = rest.as_bytes()[at];
        rest = &rest[at + 1..];
        match mark {
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 1 => return found,
            b'}' | b']' => depth -= 1,
            _ => {
                let mut escaped = false;
                let end = rest.find(|c| {
                    let ends = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    ends
                })?;
                let string = &rest[..end];
                rest = &rest[end + 1..];
                if depth == 1 && string == key {
                    found = rest.trim_start().strip_prefix(':').map(str::trim_start).or(found);
                }
            }
        }
    }
    None
}

/// The string that a value is, as it is written.
fn string(value: Option<&str>) -> Option<&str> {
    value?.strip_prefix('"')?.split('"').next()
}

/// The number that a value is.
fn number(value: Option<&str>) -> Option<u64> {
    value?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// What a file of ours says.
fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    let file = OpenOptions::new().read(true).custom_flags(NOFOLLOW | NONBLOCK).open(path).ok()?;
    file.take(WANT_MAX_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The id in a chunk's place, DATASET/START-END-ID.
fn id_of(place: &str) -> &str {
    &place[place.len() - 64..]
}

/// Gives a file the time of now, as fine as it is: so it is another one than it had.
fn touch(file: &File) {
    let _ = file.set_modified(SystemTime::now()); // another user's refuses it
}

struct Data(PathBuf);

impl Data {
    /// The data directory; its real path.
    fn open() -> Data {
        let root = std::env::var_os("FSDM_DATA_DIR").filter(|root| !root.is_empty());
        let root = PathBuf::from(root.unwrap_or_else(|| fail(2, "which data directory? Set FSDM_DATA_DIR")));
        let data = usable(fs::canonicalize(&root), &root);
        let text = usable(fs::read_to_string(data.join("fsdm.json")), &root);
        match member(&text, "format").and_then(|value| value.split([',', '}', ' ', '\t', '\r', '\n']).next()) {
            Some("1") if stands(data.join("delete/.")) => Data(data),
            Some("1") => fail(6, "delete/ may not be searched: nobody could see there that a chunk is deleted"),
            _ => fail(6, format!("{} is not a data directory of format 1", root.display())),
        }
    }

    fn marker(&self, kind: &str, id: &str) -> PathBuf {
        self.0.join(kind).join(id)
    }

    // ------------------------------------------------------------------------------------------------------- asking

    /// A new dotfile of a directory of markers, that is to become a marker; the text stands in it.
    fn temporary(&self, kind: &str, id: &str, text: &[u8]) -> (PathBuf, File) {
        let mut random = [0; 4];
        let source = Path::new("/dev/urandom");
        usable(File::open(source).and_then(|mut file| file.read_exact(&mut random)), source);
        let path = self.marker(kind, &format!(".{id}.{:08x}", u32::from_ne_bytes(random)));
        let mut file = usable(OpenOptions::new().write(true).create_new(true).mode(0o664).open(&path), &path);
        usable(file.write_all(text), &path);
        (path, file)
    }

    /// The marker appears whole, by a rename (or by a link, where none stands), under the lock of intents. Then those go
    /// that it overrules: in this order, so that a crash in between never leaves neither.
    fn place(&self, kind: &str, exclusive: bool, id: &str, text: &[u8], overruled: &[&str]) {
        let (temporary, _) = self.temporary(kind, id, text);
        let want = self.0.join("want");
        let lock = usable(File::open(&want), &want);
        for _ in 0..10 {
            if unsafe { flock(lock.as_raw_fd(), LOCK_EX | LOCK_NB) } == 0 {
                break;
            }
            // somebody may sit on it: after 5 ms on without, and as exact as `touch` is
            std::thread::sleep(Duration::from_micros(500));
        }
        let marker = self.marker(kind, id);
        let placed =
            if exclusive { fs::hard_link(&temporary, &marker) } else { fs::rename(&temporary, &marker) };
        if exclusive || placed.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        if let Err(e) = placed {
            let code = if exclusive && e.kind() == ErrorKind::AlreadyExists { 1 } else { 6 };
            fail(code, format!("{}: {e}", marker.display()));
        }
        for other in overruled.iter().map(|kind| self.marker(kind, id)) {
            match fs::remove_file(&other) {
                Err(e) if e.kind() != ErrorKind::NotFound && e.raw_os_error() != Some(EISDIR) => usable(Err(e), &other),
                _ => (),
            }
        }
    }

    /// Place the document in a file.
    fn ask(&self, kind: &str, exclusive: bool, name: &str, overruled: &[&str]) {
        let mut text = Vec::new();
        let file: io::Result<Box<dyn Read>> = match name {
            "-" => Ok(Box::new(io::stdin())),
            _ => File::open(name).map(|file| Box::new(file) as Box<dyn Read>),
        };
        if let Err(e) = file.and_then(|file| file.take(WANT_MAX_BYTES + 1).read_to_end(&mut text)) {
            fail(2, format!("{name}: {e}"));
        }
        if text.len() as u64 > WANT_MAX_BYTES {
            fail(2, "the want has more than 1 MiB");
        }
        let id = std::str::from_utf8(&text).ok().and_then(|text| string(member(text, "id")));
        match id.filter(|id| is_id(id)) {
            Some(id) => self.place(kind, exclusive, id, &text, overruled),
            None => fail(2, "the want has no id of 64 lower-case hex digits"),
        }
    }

    // ------------------------------------------------------------------------------------------------------ reading

    fn deleted(&self, id: &str) -> bool {
        stands(self.marker("delete", id))
    }

    fn list(&self) {
        let chunks = self.0.join("chunks");
        for dataset in names(&chunks).iter().filter(|name| is_id(name)) {
            for name in names(&chunks.join(dataset)).iter().filter(|name| range_of(name).is_some()) {
                let path = chunks.join(dataset).join(name);
                let is_dir = fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir());
                if is_dir && stands(path.join("READY")) && !self.deleted(&name[42..]) {
                    println!("{}", &name[42..]);
                }
            }
        }
    }

    fn path(&self, place: &str) -> PathBuf {
        self.0.join("chunks").join(place)
    }

    fn ready(&self, place: &str) -> bool {
        stands(self.path(place).join("READY"))
    }

    /// A ref: the chunk's directory, with a shared lock on it until it is closed.
    fn take(&self, place: &str) -> Option<File> {
        let (path, id) = (self.path(place), id_of(place));
        // Before the lock as well, for fairness: who keeps asking must not keep the reconciler from its claim.
        if self.deleted(id) || !self.ready(place) {
            return None;
        }
        let directory = OpenOptions::new().read(true).custom_flags(DIRECTORY | NOFOLLOW).open(path).ok()?;
        let fd = directory.as_raw_fd();
        // The order is the whole safety argument: lock, then READY through the descriptor, then the marker.
        let locked = unsafe { flock(fd, LOCK_SH | LOCK_NB) } == 0;
        (locked && stands(format!("/proc/self/fd/{fd}/READY")) && !self.deleted(id)).then_some(directory)
    }

    /// Becomes the command, which inherits the ref: the chunk is held for as long as it, or a child of it, runs.
    /// Without a command: prints the path.
    fn become_holder(&self, found: File, place: &str, command: &[OsString]) {
        let data = self.path(place).join("data");
        let [program, rest @ ..] = command else {
            return usable(io::stdout().write_all(&[data.as_os_str().as_bytes(), b"\n"].concat()), &data);
        };
        unsafe { dup(found.as_raw_fd()) }; // the same lock, on a descriptor that stays open over exec
        let error =
            Command::new(program).args(rest).env("FSDM_CHUNK_PATH", data).env("FSDM_CHUNK_ID", id_of(place)).exec();
        let code = if error.kind() == ErrorKind::NotFound { 127 } else { 126 };
        fail(code, format!("{}: {error}", program.to_string_lossy()));
    }

    fn hold(&self, dataset: &str, number: &str, command: &[OsString]) {
        for place in self.candidates(dataset, position(dataset, number)) {
            if let Some(found) = self.take(&place) {
                return self.become_holder(found, &place, command);
            }
        }
        fail(3, format!("no available chunk of {dataset} holds block {number}"));
    }

    /// Those that hold the block, the responsible one first.
    fn candidates(&self, dataset: &str, block: u64) -> Vec<String> {
        let found = names(&self.0.join("chunks").join(dataset)).into_iter();
        let has_block = |name: &String| range_of(name).is_some_and(|range| range.contains(&block));
        by_responsibility(found.filter(has_block).map(|name| format!("{dataset}/{name}")).collect())
    }

    // ---------------------------------------------------------------------------------------------------- acquiring

    /// Where the chunk of an id has READY.
    fn here(&self, id: &str) -> Option<String> {
        let chunks = self.0.join("chunks");
        let places = |dataset: String| {
            let found = names(&chunks.join(&dataset)).into_iter();
            let its = |name: &String| range_of(name).is_some() && id_of(name) == id;
            found.filter(its).map(|name| format!("{dataset}/{name}")).collect::<Vec<_>>()
        };
        names(&chunks).into_iter().filter(|name| is_id(name)).flat_map(places).find(|place| self.ready(place))
    }

    /// The place of the chunk that want/ID or known/ID describes.
    fn described(&self, kind: &str, id: &str) -> Option<String> {
        let text = read(&self.marker(kind, id))?;
        let (dataset, range) = (string(member(&text, "dataset_id"))?, member(&text, "block_range")?);
        let own = member(&text, "id");
        if !range.starts_with('{') || !is_id(dataset) || (own.is_some() && string(own) != Some(id)) {
            return None;
        }
        let (start, end) = (number(member(range, "start"))?, number(member(range, "end"))?);
        (start < end).then(|| format!("{dataset}/{start:020}-{end:020}-{id}"))
    }

    /// Where a chunk is, or else what want/ID or known/ID says.
    fn find(&self, id: &str) -> Option<String> {
        self.here(id).or_else(|| self.described("want", id)).or_else(|| self.described("known", id))
    }

    /// The place of the chunk that is responsible for a block, of those that are available, and those that are
    /// registered.
    fn responsible(&self, dataset: &str, block: u64) -> Option<String> {
        let available = |place: &String| self.ready(place) && !self.deleted(id_of(place));
        let mut places: Vec<String> = self.candidates(dataset, block).into_iter().filter(available).collect();
        for id in names(&self.0.join("known")).iter().filter(|name| is_id(name)) {
            let Some(place) = self.described("known", id) else { continue };
            let its = place.starts_with(dataset) && range_of(&place[65..]).is_some_and(|range| range.contains(&block));
            if its && !self.here(id).is_some_and(|there| available(&there)) {
                places.push(place);
            }
        }
        by_responsibility(places).into_iter().next()
    }

    /// A share in the marker that stands at acquire/ID now, if that is possible.
    fn join(&self, id: &str) -> Option<Asking> {
        let path = self.marker("acquire", id);
        let marker = match OpenOptions::new().read(true).custom_flags(NOFOLLOW | NONBLOCK).open(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let (temporary, marker) = self.temporary("acquire", id, b"held\n");
                unsafe { flock(marker.as_raw_fd(), LOCK_SH | LOCK_NB) }; // it was locked before it is there
                match fs::hard_link(&temporary, &path) {
                    Err(e) if e.kind() != ErrorKind::AlreadyExists => usable(Err(e), &path),
                    _ => (), // another one may have come meanwhile
                }
                usable(fs::remove_file(&temporary), &temporary);
                marker
            }
            opened => usable(opened, &path),
        };
        if !marker.metadata().is_ok_and(|found| found.is_file()) {
            fail(6, format!("{} is in the way", path.display()));
        }
        let locked = unsafe { flock(marker.as_raw_fd(), LOCK_SH | LOCK_NB) } == 0;
        // Before the touch, so that no failure in between is missed.
        let since = SystemTime::UNIX_EPOCH.elapsed().map_or(0.0, |time| time.as_secs_f64());
        let asking = Asking { marker, path, since };
        if !locked || !asking.stands() {
            return None; // it is on its way out, or is just being looked at
        }
        touch(&asking.marker);
        Some(asking)
    }

    /// The error in failed/ID, if it is of this attempt: one that waits for room is none.
    fn failure(&self, asking: &Asking, id: &str) -> Option<String> {
        let text = read(&self.marker("failed", id))?;
        let at: f64 = member(&text, "last_at")?.split([',', '}', ' ', '\n']).next()?.parse().ok()?;
        let is_ours = string(member(&text, "kind"))? != "room" && at >= asking.since;
        is_ours.then(|| string(member(&text, "error")).unwrap_or_default().to_owned())
    }

    /// A use is noted about once a minute, where the chunk may be evicted: by a touch of acquire/ID.
    fn note_use(&self, place: &str) {
        let found = |path: PathBuf| fs::symlink_metadata(path).ok();
        if let Some(cached) = found(self.path(place).join("CACHED")) {
            let age = cached.modified().ok().and_then(|used| used.elapsed().ok());
            if age.is_some_and(|age| age < Duration::from_secs(60)) {
                return;
            }
        } else {
            let want = found(self.path(place).join("WANT"));
            let (Some(want), Some(known)) = (want, found(self.marker("known", id_of(place)))) else { return };
            let wanted = (want.mtime(), want.mtime_nsec());
            if (known.mtime(), known.mtime_nsec()) <= wanted || (known.ctime(), known.ctime_nsec()) <= wanted {
                return; // it was wanted, and not registered since
            }
        }
        let mut options = OpenOptions::new();
        options.write(true).create(true).mode(0o664).custom_flags(NOFOLLOW | NONBLOCK);
        if let Ok(marker) = options.open(self.marker("acquire", id_of(place))) {
            touch(&marker);
        }
    }

    fn acquire(&self, place: Option<String>, timeout: Option<f64>, command: &[OsString]) {
        let late = timeout.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds));
        let mut place = place.unwrap_or_else(|| fail(3, "that chunk is neither here nor registered"));
        let id = id_of(&place).to_owned();
        let mut asking: Option<Asking> = None;
        loop {
            if let Some(found) = self.take(&place) {
                self.note_use(&place);
                drop(asking); // not before the ref is taken: until then it is not evicted
                return self.become_holder(found, &place, command);
            }
            if !stands(self.marker("want", &id)) && !stands(self.marker("known", &id)) {
                fail(3, format!("{id} is neither here nor registered"));
            }
            place = self.find(&id).unwrap_or(place);
            asking = asking.filter(Asking::stands).or_else(|| self.join(&id));
            if let Some(error) = asking.as_ref().and_then(|asking| self.failure(asking, &id)) {
                fail(1, format!("{id} cannot be fetched: {error}"));
            }
            if late.is_some_and(|late| Instant::now() >= late) {
                fail(4, format!("{id} has not come in time"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A share in acquire/ID: a shared lock. From `since` on a failure is that of this attempt.
struct Asking {
    marker: File,
    path: PathBuf,
    since: f64,
}

impl Asking {
    /// Whether the path still is this marker.
    fn stands(&self) -> bool {
        let (mine, there) = (self.marker.metadata(), fs::symlink_metadata(&self.path));
        matches!((mine, there), (Ok(mine), Ok(there)) if mine.ino() == there.ino())
    }
}

/// The names in a directory, sorted; none where there is no directory. What is not UTF-8 is no name of ours.
fn names(path: &Path) -> Vec<String> {
    let entries = match fs::read_dir(path) {
        Err(e) if matches!(e.raw_os_error(), Some(ENOENT | ENOTDIR)) => return Vec::new(),
        entries => usable(entries, path),
    };
    let name = |entry: io::Result<fs::DirEntry>| usable(entry, path).file_name().into_string().ok();
    let mut found: Vec<String> = entries.filter_map(name).collect();
    found.sort();
    found
}

/// The range in a chunk directory's name: START-END-ID, with 20 digits each.
fn range_of(name: &str) -> Option<std::ops::Range<u64>> {
    let parts: Vec<&str> = name.split('-').collect();
    let [start, end, id] = parts[..] else { return None };
    let number = |text: &str| match text.len() == 20 && text.bytes().all(|b| b.is_ascii_digit()) {
        true => text.parse::<u64>().ok(),
        false => None,
    };
    let range = number(start)?..number(end)?;
    (is_id(id) && !range.is_empty()).then_some(range)
}

/// The responsible one first: the greatest start, then the smallest end, the smallest id.
fn by_responsibility(mut places: Vec<String>) -> Vec<String> {
    places.sort_by(|a, b| b[..85].cmp(&a[..85]).then_with(|| a.cmp(b)));
    places
}

fn position(dataset: &str, number: &str) -> u64 {
    let block = number.bytes().all(|b| b.is_ascii_digit()).then(|| number.parse().ok()).flatten();
    let (true, Some(block)) = (is_id(dataset), block) else {
        fail(2, format!("not an id, or not a block number within 0 … 2^64-1: {dataset} {number}"));
    };
    block
}

fn main() {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let data = Data::open();
    let option = arguments.get(1).and_then(|word| word.to_str()).unwrap_or_default().to_owned();
    let is = |verb: &str| arguments.first().is_some_and(|word| word == verb);
    let (exclusive, timed) = (is("register") && option == "--exclusive", is("acquire") && option == "--timeout");
    let mut timeout = None;
    if timed && arguments.len() > 2 {
        timeout = arguments[2].to_str().and_then(|text| text.parse::<f64>().ok()).filter(|s| *s >= 0.0 && *s < 1e9);
        timeout.or_else(|| fail(2, format!("{:?} is no number of seconds", arguments[2])));
        arguments.drain(1..3);
    }
    if exclusive {
        arguments.remove(1);
    }
    match arguments.iter().map(|word| word.to_str().unwrap_or_default()).collect::<Vec<_>>()[..] {
        ["want", name] => data.ask("want", false, name, &["delete"]),
        ["register", name] => data.ask("known", exclusive, name, &["delete", "want"]),
        ["delete", id] if is_id(id) => data.place("delete", false, id, b"", &["want", "known"]),
        ["list"] => data.list(),
        ["find", dataset, block] => data.hold(dataset, block, &[]),
        ["hold", dataset, block, "--", _, ..] => data.hold(dataset, block, &arguments[4..]),
        ["acquire", id, "--", _, ..] if is_id(id) => data.acquire(data.find(id), timeout, &arguments[3..]),
        ["acquire", dataset, block, "--", _, ..] => {
            data.acquire(data.responsible(dataset, position(dataset, block)), timeout, &arguments[4..])
        }
        _ => fail(2, "see the head of fsdm.rs for how it is called"),
    }
}
