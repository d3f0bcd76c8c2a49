// fsdm for Node, with nothing but its own library and flock(1): Node cannot lock, but a descriptor that it shares with
// flock(1) is one open file description, so the lock stays with it when flock(1) has ended.
//
//   FSDM_DATA_DIR=data node fsdm.mjs want FILE|-
//   FSDM_DATA_DIR=data node fsdm.mjs register [--exclusive] FILE|-
//   FSDM_DATA_DIR=data node fsdm.mjs delete ID
//   FSDM_DATA_DIR=data node fsdm.mjs list
//   FSDM_DATA_DIR=data node fsdm.mjs find DATASET BLOCK
//   FSDM_DATA_DIR=data node fsdm.mjs hold DATASET BLOCK -- CMD…
//   FSDM_DATA_DIR=data node fsdm.mjs acquire [--timeout S] ID|DATASET BLOCK -- CMD…
//
// Exit codes: 1 the chunk cannot be fetched, or is registered already (--exclusive), 2 wrong usage or input, 3 no such
// chunk is available (acquire: or registered), 4 it has not come in time, 6 the data directory cannot be used; that of
// CMD.
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  closeSync, constants, fstatSync, futimesSync, linkSync, lstatSync, openSync, readFileSync, readSync, readdirSync,
  realpathSync, renameSync, rmSync, writeSync,
} from "node:fs";
import { constants as os } from "node:os";

const { O_RDONLY, O_WRONLY, O_CREAT, O_EXCL, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK } = constants;
const WANT_MAX_BYTES = 1 << 20;
const U64_MAX = 2n ** 64n - 1n;

class Failure extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

const stands = (path) => lstatSync(path, { throwIfNoEntry: false }) !== undefined;
const idOf = (place) => place.slice(-64); // of DATASET/START-END-ID
const isId = (text) => typeof text === "string" && /^[0-9a-f]{64}$/.test(text);

/** Whether flock(1) has taken this lock on what the descriptor `fd` is of. */
function flock(fd, ...how) {
  const { status, error } = spawnSync("flock", [...how, "3"], { stdio: ["ignore", "ignore", "inherit", fd] });
  if (error) throw new Failure(1, `flock: ${error.message}`);
  return status === 0;
}

// ----------------------------------------------------------------------------------------------------------- asking

/** A new dotfile of a directory of markers, that is to become a marker, and its descriptor; the text stands in it. */
function temporary(data, kind, id, text) {
  const path = `${data}/${kind}/.${id}.${randomBytes(4).toString("hex")}`;
  const fd = openSync(path, O_WRONLY | O_CREAT | O_EXCL, 0o664);
  for (let rest = Buffer.from(text); rest.length; rest = rest.subarray(writeSync(fd, rest)));
  return [path, fd];
}

/** The marker appears whole, by a rename (or by a link, where none stands), under the lock of intents. Then those go
 *  that it overrules: in this order, so that a crash in between never leaves neither. */
function place(data, kind, exclusive, id, text, ...overruled) {
  const [path, fd] = temporary(data, kind, id, text);
  closeSync(fd);
  const lock = openSync(`${data}/want`, O_RDONLY | O_DIRECTORY);
  flock(lock, "-w", "0.005"); // somebody sits on it: on without, and as exact as `touch` is
  try {
    (exclusive ? linkSync : renameSync)(path, `${data}/${kind}/${id}`);
  } catch (error) {
    if (exclusive && error.code === "EEXIST") throw new Failure(1, `chunk ${id} is registered already`);
    throw error;
  } finally {
    rmSync(path, { force: true });
  }
  for (const opposite of overruled.map((other) => `${data}/${other}/${id}`))
    if (!lstatSync(opposite, { throwIfNoEntry: false })?.isDirectory()) rmSync(opposite, { force: true });
  closeSync(lock);
}

/** Place the document in a file. */
function ask(data, kind, exclusive, name, ...overruled) {
  let id, text;
  try {
    text = head(name === "-" ? 0 : openSync(name), WANT_MAX_BYTES + 1);
    if (text.length <= WANT_MAX_BYTES) id = JSON.parse(text)?.id;
  } catch (error) {
    throw new Failure(2, `${name}: ${error.message}`);
  }
  if (!isId(id)) throw new Failure(2, "the want has more than 1 MiB, or no id of 64 lower-case hex digits");
  place(data, kind, exclusive, id, text, ...overruled);
}

/** At most so many bytes of a file or pipe. */
function head(fd, limit) {
  const buffer = Buffer.alloc(limit);
  let size = 0;
  let count;
  do {
    count = readSync(fd, buffer, size, limit - size, null);
    size += count;
  } while (count > 0 && size < limit);
  return buffer.subarray(0, size);
}

// ---------------------------------------------------------------------------------------------------------- reading

function names(directory) {
  try {
    return readdirSync(directory).sort();
  } catch (error) {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return [];
    throw error;
  }
}

/** The [START, END) in a chunk directory's name, or null. Not as numbers: those are exact up to 2^53 only. */
function rangeOf(name) {
  const parts = /^([0-9]{20})-([0-9]{20})-[0-9a-f]{64}$/.exec(name);
  if (parts === null) return null;
  const [start, end] = [BigInt(parts[1]), BigInt(parts[2])];
  return start < end && end <= U64_MAX ? [start, end] : null;
}

function list(data) {
  for (const dataset of names(`${data}/chunks`).filter(isId))
    for (const name of names(`${data}/chunks/${dataset}`).filter(rangeOf)) {
      const [path, id] = [`${data}/chunks/${dataset}/${name}`, name.slice(42)];
      const isDirectory = lstatSync(path, { throwIfNoEntry: false })?.isDirectory();
      if (isDirectory && stands(`${path}/READY`) && !stands(`${data}/delete/${id}`)) console.log(id);
    }
}

/** Those that hold the block, the responsible one first: the greatest start, then the smallest end, then the smallest
 *  id. */
function candidates(data, dataset, block) {
  return names(`${data}/chunks/${dataset}`) // sorted: so it is by end and id already
    .filter((name) => rangeOf(name)?.[0] <= block && block < rangeOf(name)[1])
    .sort((a, b) => (a.slice(0, 20) < b.slice(0, 20)) - (a.slice(0, 20) > b.slice(0, 20)));
}

/** A ref: a descriptor of the chunk's directory, with a shared lock on it until it is closed; or null. */
function take(data, place) {
  const [path, deleted] = [`${data}/chunks/${place}`, `${data}/delete/${idOf(place)}`];
  if (stands(deleted)) return null;
  let fd;
  try {
    // Before the lock as well, for fairness: who keeps asking must not keep the reconciler from its claim.
    if (!stands(`${path}/READY`)) return null;
    fd = openSync(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  } catch {
    return null;
  }
  // The order is the whole safety argument: lock, then READY through the descriptor, then the marker.
  if (flock(fd, "-s", "-n") && stands(`/proc/self/fd/${fd}/READY`) && !stands(deleted)) return fd;
  closeSync(fd);
  return null;
}

/** A block of a dataset, as a number. */
function position(dataset, number) {
  if (!isId(dataset)) throw new Failure(2, `${dataset} is not an id of 64 lower-case hex digits`);
  if (!/^[0-9]+$/.test(number) || BigInt(number) > U64_MAX)
    throw new Failure(2, `${number} is not a block number within 0 … 2^64-1`);
  return BigInt(number);
}

/** Calls `use` with a ref to the responsible chunk, and its place. */
function withChunk(data, dataset, number, use) {
  for (const name of candidates(data, dataset, position(dataset, number))) {
    const ref = take(data, `${dataset}/${name}`);
    if (ref !== null) return use(ref, `${dataset}/${name}`);
  }
  throw new Failure(3, `no available chunk of ${dataset} holds block ${number}`);
}

/** Runs CMD, which inherits the ref as descriptor 3: so the chunk is held for as long as CMD, or a child of it, runs,
 *  also where this process is killed. */
function run(data, ref, place, [command, ...rest]) {
  const env = { ...process.env, FSDM_CHUNK_PATH: `${data}/chunks/${place}/data`, FSDM_CHUNK_ID: idOf(place) };
  const done = spawnSync(command, rest, { env, stdio: ["inherit", "inherit", "inherit", ref] });
  if (done.error) throw new Failure(done.error.code === "ENOENT" ? 127 : 126, `${command}: ${done.error.message}`);
  return done.status ?? 128 + os.signals[done.signal];
}

// -------------------------------------------------------------------------------------------------------- acquiring

/** Where the chunk of an id has READY, or null. */
function here(data, id) {
  for (const dataset of names(`${data}/chunks`).filter(isId))
    for (const name of names(`${data}/chunks/${dataset}`))
      if (name.endsWith(`-${id}`) && rangeOf(name) && stands(`${data}/chunks/${dataset}/${name}/READY`))
        return `${dataset}/${name}`;
  return null;
}

/** What a file of ours says; null where it is none. Numbers stay text: they are exact up to 2^53 only. */
function read(path) {
  let fd;
  try {
    fd = openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    const numbers = /("(?:[^"\\]|\\.)*")|-?[0-9][0-9.eE+-]*/g;
    return JSON.parse(readFileSync(fd, "utf8").replace(numbers, (it, string) => string ?? `"${it}"`));
  } catch {
    return null;
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

/** The place of the chunk that want/ID or known/ID describes, or null. */
function described(data, kind, id) {
  const document = read(`${data}/${kind}/${id}`);
  const [start, end] = ["start", "end"].map((it) => String(document?.block_range?.[it]).padStart(20, "0"));
  const name = `${start}-${end}-${id}`;
  if (!isId(document?.dataset_id) || (document.id ?? id) !== id || rangeOf(name) === null) return null;
  return `${document.dataset_id}/${name}`;
}

/** Where a chunk is, or else what want/ID or known/ID says, or null. */
const where = (data, id) => here(data, id) ?? described(data, "want", id) ?? described(data, "known", id);

/** The place of the chunk that is responsible for a block, of those that are available, and those that are registered;
 *  or null. */
function responsible(data, dataset, block) {
  const available = (place) => stands(`${data}/chunks/${place}/READY`) && !stands(`${data}/delete/${idOf(place)}`);
  const places = candidates(data, dataset, block).map((name) => `${dataset}/${name}`).filter(available);
  for (const id of names(`${data}/known`).filter(isId)) {
    const place = described(data, "known", id);
    if (!place?.startsWith(dataset)) continue;
    const [start, end] = rangeOf(place.slice(65));
    const there = here(data, id);
    if (start <= block && block < end && !(there && available(there))) places.push(place);
  }
  const by = (a, b) => (a < b) - (a > b);
  return places.sort((a, b) => by(a.slice(0, 85), b.slice(0, 85)) || by(b, a))[0] ?? null;
}

/** A share in acquire/ID. */
class Asking {
  constructor(data, id) {
    [this.path, this.data, this.id, this.fd] = [`${data}/acquire/${id}`, data, id, null];
  }

  isJoined() {
    const there = lstatSync(this.path, { throwIfNoEntry: false, bigint: true });
    return this.fd !== null && fstatSync(this.fd, { bigint: true }).ino === there?.ino;
  }

  /** Have a share in the marker that stands there now; whether that was possible. */
  join() {
    if (this.isJoined()) return true;
    this.leave();
    try {
      this.fd = openSync(this.path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    } catch (error) {
      if (error.code !== "ENOENT") throw error;
      this.put();
    }
    if (!fstatSync(this.fd).isFile()) throw new Failure(6, `${this.path} is in the way`);
    if (flock(this.fd, "-s", "-n") && this.isJoined()) {
      this.since = Date.now() / 1000; // before the touch, so that no failure in between is missed
      touch(this.fd);
      return true;
    }
    this.leave(); // it is on its way out, or is just being looked at
    return false;
  }

  /** Put a marker there that is locked before it is there. */
  put() {
    const [path, fd] = temporary(this.data, "acquire", this.id, "held\n");
    this.fd = fd;
    flock(fd, "-s", "-n");
    try {
      linkSync(path, this.path);
    } catch (error) {
      if (error.code !== "EEXIST") throw error; // else another one has come meanwhile
    } finally {
      rmSync(path, { force: true });
    }
  }

  leave() {
    if (this.fd !== null) closeSync(this.fd);
    this.fd = null;
  }

  /** The error in failed/ID, if it is of this attempt: one that waits for room is none. */
  failure() {
    const { kind, error, last_at: at } = read(`${this.data}/failed/${this.id}`) ?? { kind: "room" };
    return kind !== "room" && Number(at) >= this.since ? error : null;
  }
}

/** Sets the times of a file to now, as fine as it is, so that it is another one than it had; where this user may. */
function touch(fd) {
  const now = (performance.timeOrigin + performance.now()) / 1000;
  try {
    futimesSync(fd, now, now);
  } catch (error) {
    if (error.code !== "EPERM") throw error;
  }
}

/** A use is noted about once a minute, where the chunk may be evicted: by a touch of acquire/ID. */
function noteUse(data, place) {
  const [cached, want, known] = [`chunks/${place}/CACHED`, `chunks/${place}/WANT`, `known/${idOf(place)}`].map((name) =>
    lstatSync(`${data}/${name}`, { throwIfNoEntry: false, bigint: true }),
  );
  if (cached ? Date.now() - Number(cached.mtimeMs) < 60_000 : !want || !known) return;
  // wanted, and not registered since
  if (!cached && (known.mtimeNs <= want.mtimeNs || known.ctimeNs <= want.mtimeNs)) return;
  const fd = openSync(`${data}/acquire/${idOf(place)}`, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o664);
  touch(fd);
  closeSync(fd);
}

function acquire(data, place, timeout, command) {
  if (place === null) throw new Failure(3, "that chunk is neither here nor registered");
  const [id, late] = [idOf(place), performance.now() + timeout * 1000];
  const asking = new Asking(data, id);
  let ref;
  while ((ref = take(data, place)) === null) {
    if (!stands(`${data}/want/${id}`) && !stands(`${data}/known/${id}`))
      throw new Failure(3, `${id} is neither here nor registered`);
    place = where(data, id) ?? place;
    const error = asking.join() ? asking.failure() : null;
    if (error !== null) throw new Failure(1, `${id} cannot be fetched: ${error}`);
    if (performance.now() >= late) throw new Failure(4, `${id} has not come in time`);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50); // a sleep
  }
  noteUse(data, place);
  asking.leave(); // not before the ref is taken: until then it is not evicted
  return run(data, ref, place, command);
}

// ---------------------------------------------------------------------------------------------------------- the verbs

/** The real path of the data directory. */
function opened() {
  const root = process.env.FSDM_DATA_DIR;
  if (!root) throw new Failure(2, "which data directory? Set FSDM_DATA_DIR");
  try {
    lstatSync(`${root}/delete/.`); // who may not search it could not see that a chunk is deleted
    if (JSON.parse(readFileSync(`${root}/fsdm.json`)).format === 1) return realpathSync(root);
  } catch (error) {
    throw new Failure(6, `${root} is not a data directory: ${error.message}`);
  }
  throw new Failure(6, `${root} is not a data directory of format 1`);
}

function main([verb, ...rest]) {
  const data = opened();
  const exclusive = verb === "register" && rest.length === 2 && rest[0] === "--exclusive" && rest.shift();
  let timeout = Infinity;
  if (verb === "acquire" && rest.length > 2 && rest[0] === "--timeout") {
    if (!/^[0-9]+(\.[0-9]+)?$/.test(rest[1])) throw new Failure(2, `${rest[1]} is no number of seconds`);
    timeout = Number(rest.splice(0, 2)[1]);
  }
  if (verb === "want" && rest.length === 1) ask(data, "want", false, rest[0], "delete");
  else if (verb === "register" && rest.length === 1) ask(data, "known", exclusive, rest[0], "delete", "want");
  else if (verb === "delete" && rest.length === 1 && isId(rest[0]))
    place(data, "delete", false, rest[0], "", "want", "known");
  else if (verb === "list" && rest.length === 0) list(data);
  else if (verb === "find" && rest.length === 2)
    withChunk(data, rest[0], rest[1], (_, place) => console.log(`${data}/chunks/${place}/data`));
  else if (verb === "hold" && rest.length > 3 && rest[2] === "--")
    return withChunk(data, rest[0], rest[1], (ref, place) => run(data, ref, place, rest.slice(3)));
  else if (verb === "acquire" && rest.length > 2 && rest[1] === "--" && isId(rest[0]))
    return acquire(data, where(data, rest[0]), timeout, rest.slice(2));
  else if (verb === "acquire" && rest.length > 3 && rest[2] === "--")
    return acquire(data, responsible(data, rest[0], position(rest[0], rest[1])), timeout, rest.slice(3));
  else throw new Failure(2, "see the head of fsdm.mjs for how it is called");
  return 0;
}

try {
  process.exitCode = main(process.argv.slice(2));
} catch (error) {
  console.error(`fsdm.mjs: ${error.message}`);
  process.exitCode = error instanceof Failure ? error.code : error.syscall ? 6 : 1;
}
