// fsdm for Node, with nothing but its own library and flock(1): Node cannot lock, but a descriptor that it shares with
// flock(1) is one open file description, so the lock stays with it when flock(1) has ended.
//
//   FSDM_DATA_DIR=data node fsdm.mjs want FILE|-
//   FSDM_DATA_DIR=data node fsdm.mjs delete ID
//   FSDM_DATA_DIR=data node fsdm.mjs list
//   FSDM_DATA_DIR=data node fsdm.mjs find DATASET BLOCK
//   FSDM_DATA_DIR=data node fsdm.mjs hold DATASET BLOCK -- CMD…
//
// Exit codes: 2 wrong usage or input, 3 no such chunk is available, 6 the data directory cannot be used; that of CMD.
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  closeSync, constants, lstatSync, openSync, readFileSync, readSync, readdirSync, realpathSync, renameSync, rmSync,
  writeFileSync,
} from "node:fs";
import { constants as os } from "node:os";

const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW } = constants;
const WANT_MAX_BYTES = 1 << 20;
const U64_MAX = 2n ** 64n - 1n;

class Failure extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

const stands = (path) => lstatSync(path, { throwIfNoEntry: false }) !== undefined;
const isId = (text) => typeof text === "string" && /^[0-9a-f]{64}$/.test(text);

/** Whether flock(1) has taken this lock on what the descriptor `fd` is of. */
function flock(fd, ...how) {
  const { status, error } = spawnSync("flock", [...how, "3"], { stdio: ["ignore", "ignore", "inherit", fd] });
  if (error) throw new Failure(1, `flock: ${error.message}`);
  return status === 0;
}

// ----------------------------------------------------------------------------------------------------------- asking

/** The marker appears whole, by a rename, under the lock of intents. Then the opposite one goes: in this order, so that
 *  a crash in between never leaves neither. */
function place(data, kind, id, text) {
  const opposite = kind === "want" ? "delete" : "want";
  const temporary = `${data}/${kind}/.${id}.${randomBytes(4).toString("hex")}`;
  writeFileSync(temporary, text, { flag: "wx", mode: 0o664 });
  const lock = openSync(`${data}/want`, O_RDONLY | O_DIRECTORY);
  flock(lock, "-w", "0.005"); // somebody sits on it: on without, and as exact as `touch` is
  try {
    renameSync(temporary, `${data}/${kind}/${id}`);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
  if (!lstatSync(`${data}/${opposite}/${id}`, { throwIfNoEntry: false })?.isDirectory())
    rmSync(`${data}/${opposite}/${id}`, { force: true });
  closeSync(lock);
}

function want(data, name) {
  let id, text;
  try {
    text = head(name === "-" ? 0 : openSync(name), WANT_MAX_BYTES + 1);
    if (text.length <= WANT_MAX_BYTES) id = JSON.parse(text)?.id;
  } catch (error) {
    throw new Failure(2, `${name}: ${error.message}`);
  }
  if (!isId(id)) throw new Failure(2, "the want has more than 1 MiB, or no id of 64 lower-case hex digits");
  place(data, "want", id, text);
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
function take(data, path, id) {
  const deleted = `${data}/delete/${id}`;
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

/** Calls `use` with a ref to the responsible chunk, and the path of its files. */
function withChunk(data, dataset, number, use) {
  if (!isId(dataset)) throw new Failure(2, `${dataset} is not an id of 64 lower-case hex digits`);
  if (!/^[0-9]+$/.test(number) || BigInt(number) > U64_MAX)
    throw new Failure(2, `${number} is not a block number within 0 … 2^64-1`);
  for (const name of candidates(data, dataset, BigInt(number))) {
    const path = `${data}/chunks/${dataset}/${name}`;
    const ref = take(data, path, name.slice(42));
    if (ref !== null) return use(ref, `${path}/data`, name.slice(42));
  }
  throw new Failure(3, `no available chunk of ${dataset} holds block ${number}`);
}

/** Runs CMD, which inherits the ref as descriptor 3: so the chunk is held for as long as CMD, or a child of it, runs,
 *  also where this process is killed. */
function run(ref, path, id, [command, ...rest]) {
  const env = { ...process.env, FSDM_CHUNK_PATH: path, FSDM_CHUNK_ID: id };
  const done = spawnSync(command, rest, { env, stdio: ["inherit", "inherit", "inherit", ref] });
  if (done.error) throw new Failure(done.error.code === "ENOENT" ? 127 : 126, `${command}: ${done.error.message}`);
  return done.status ?? 128 + os.signals[done.signal];
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
  if (verb === "want" && rest.length === 1) want(data, rest[0]);
  else if (verb === "delete" && rest.length === 1 && isId(rest[0])) place(data, "delete", rest[0], "");
  else if (verb === "list" && rest.length === 0) list(data);
  else if (verb === "find" && rest.length === 2)
    withChunk(data, rest[0], rest[1], (_, path) => console.log(path));
  else if (verb === "hold" && rest.length > 3 && rest[2] === "--")
    return withChunk(data, rest[0], rest[1], (ref, path, id) => run(ref, path, id, rest.slice(3)));
  else throw new Failure(2, "want FILE|-, delete ID, list, find DATASET BLOCK, or hold DATASET BLOCK -- CMD…");
  return 0;
}

try {
  process.exitCode = main(process.argv.slice(2));
} catch (error) {
  console.error(`fsdm.mjs: ${error.message}`);
  process.exitCode = error instanceof Failure ? error.code : error.syscall ? 6 : 1;
}
