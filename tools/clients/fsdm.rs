//! fsdm for Rust 1.70 and later, with nothing but std and two functions of libc:  rustc -O --edition 2021 fsdm.rs
//! (From Rust 1.89 on, `File::try_lock_shared` is the same flock(2).)
//!
//!     FSDM_DATA_DIR=data fsdm want FILE|-
//!     FSDM_DATA_DIR=data fsdm delete ID
//!     FSDM_DATA_DIR=data fsdm list
//!     FSDM_DATA_DIR=data fsdm find DATASET BLOCK
//!     FSDM_DATA_DIR=data fsdm hold DATASET BLOCK -- CMD…
//!
//! Exit codes: 2 wrong usage or input, 3 no such chunk is available, 6 the data directory cannot be used; that of CMD.
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{exit, Command};
use std::time::Duration;

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
const DIRECTORY_NOFOLLOW: i32 = 0o200000 | 0o400000;
#[cfg(any(target_arch = "arm", target_arch = "aarch64", target_arch = "powerpc64"))]
const DIRECTORY_NOFOLLOW: i32 = 0o040000 | 0o100000;

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

/// The value of a key of the outermost object of a JSON text, to the text's end; of several, the last.
fn member<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let (mut found, mut depth, mut rest) = (None, 0, text);
    while let Some(at) = rest.find(['{', '[', '}', ']', '"']) {
        let mark = rest.as_bytes()[at];
        rest = &rest[at + 1..];
        match mark {
            b'{' | b'[' => depth += 1,
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
    found
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

    /// The marker appears whole, by a rename, under the lock of intents. Then the opposite one goes: in this order, so
    /// that a crash in between never leaves neither.
    fn place(&self, kind: &str, opposite: &str, id: &str, text: &[u8]) {
        let mut random = [0; 4];
        let source = Path::new("/dev/urandom");
        usable(File::open(source).and_then(|mut file| file.read_exact(&mut random)), source);
        let temporary = self.marker(kind, &format!(".{id}.{:08x}", u32::from_ne_bytes(random)));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o664).open(&temporary);
        usable(file.and_then(|mut file| file.write_all(text)), &temporary);

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
        if let Err(e) = fs::rename(&temporary, &marker) {
            let _ = fs::remove_file(&temporary);
            fail(6, format!("{}: {e}", marker.display()));
        }
        let other = self.marker(opposite, id);
        match fs::remove_file(&other) {
            Err(e) if e.kind() != ErrorKind::NotFound && e.raw_os_error() != Some(EISDIR) => usable(Err(e), &other),
            _ => (),
        }
    }

    fn want(&self, name: &str) {
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
        let id = std::str::from_utf8(&text).ok().and_then(|text| member(text, "id"));
        match id.and_then(|value| value.strip_prefix('"')?.split('"').next()).filter(|id| is_id(id)) {
            Some(id) => self.place("want", "delete", id, &text),
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

    /// A ref: the chunk's directory, with a shared lock on it until it is closed.
    fn take(&self, path: &Path, id: &str) -> Option<File> {
        // Before the lock as well, for fairness: who keeps asking must not keep the reconciler from its claim.
        if self.deleted(id) || !stands(path.join("READY")) {
            return None;
        }
        let directory = OpenOptions::new().read(true).custom_flags(DIRECTORY_NOFOLLOW).open(path).ok()?;
        let fd = directory.as_raw_fd();
        // The order is the whole safety argument: lock, then READY through the descriptor, then the marker.
        let locked = unsafe { flock(fd, LOCK_SH | LOCK_NB) } == 0;
        (locked && stands(format!("/proc/self/fd/{fd}/READY")) && !self.deleted(id)).then_some(directory)
    }

    /// Becomes the command, which inherits the ref: the chunk is held for as long as it, or a child of it, runs.
    /// Without a command: prints the path.
    fn hold(&self, dataset: &str, number: &str, command: &[OsString]) {
        let block = number.bytes().all(|b| b.is_ascii_digit()).then(|| number.parse().ok()).flatten();
        let (true, Some(block)) = (is_id(dataset), block) else {
            fail(2, format!("not an id, or not a block number within 0 … 2^64-1: {dataset} {number}"));
        };
        let directory = self.0.join("chunks").join(dataset);
        for name in candidates(&directory, block) {
            let (path, id) = (directory.join(&name), &name[42..]);
            let Some(found) = self.take(&path, id) else { continue };
            let data = path.join("data");
            let [program, rest @ ..] = command else {
                return usable(io::stdout().write_all(&[data.as_os_str().as_bytes(), b"\n"].concat()), &data);
            };
            unsafe { dup(found.as_raw_fd()) }; // the same lock, on a descriptor that stays open over exec
            let error =
                Command::new(program).args(rest).env("FSDM_CHUNK_PATH", data).env("FSDM_CHUNK_ID", id).exec();
            let code = if error.kind() == ErrorKind::NotFound { 127 } else { 126 };
            fail(code, format!("{}: {error}", program.to_string_lossy()));
        }
        fail(3, format!("no available chunk of {dataset} holds block {number}"));
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

/// Those that hold the block, the responsible one first: the greatest start, then the smallest end, the smallest id.
fn candidates(directory: &Path, block: u64) -> Vec<String> {
    let mut found = names(directory); // sorted: so by end and id already
    found.retain(|name| range_of(name).is_some_and(|range| range.contains(&block)));
    found.sort_by(|a, b| b[..20].cmp(&a[..20]));
    found
}

fn main() {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let data = Data::open();
    match arguments.iter().map(|word| word.to_str().unwrap_or_default()).collect::<Vec<_>>()[..] {
        ["want", name] => data.want(name),
        ["delete", id] if is_id(id) => data.place("delete", "want", id, b""),
        ["list"] => data.list(),
        ["find", dataset, block] => data.hold(dataset, block, &[]),
        ["hold", dataset, block, "--", _, ..] => data.hold(dataset, block, &arguments[4..]),
        _ => fail(2, "want FILE|-, delete ID, list, find DATASET BLOCK, or hold DATASET BLOCK -- CMD…"),
    }
}
