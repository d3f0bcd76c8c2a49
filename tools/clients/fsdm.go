// fsdm for Go, with nothing but its own library:  go build fsdm.go
//
//	FSDM_DATA_DIR=data fsdm want FILE|-
//	FSDM_DATA_DIR=data fsdm register [--exclusive] FILE|-
//	FSDM_DATA_DIR=data fsdm delete ID
//	FSDM_DATA_DIR=data fsdm list
//	FSDM_DATA_DIR=data fsdm find DATASET BLOCK
//	FSDM_DATA_DIR=data fsdm find --key NAME HEX|TEXT
//	FSDM_DATA_DIR=data fsdm hold DATASET BLOCK -- CMD…
//	FSDM_DATA_DIR=data fsdm acquire [--timeout S] ID|DATASET BLOCK -- CMD…
//
// Exit codes: 1 the chunk cannot be fetched, or is registered already (--exclusive), 2 wrong usage or input, 3 no such
// chunk is available (acquire: or registered), 4 it has not come in time, 6 the data directory cannot be used; that of
// CMD.
package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const wantMaxBytes = 1 << 20

var (
	data     string // the real path of the data directory
	idForm   = regexp.MustCompile(`^[0-9a-f]{64}$`)
	nameForm = regexp.MustCompile(`^([0-9]{20})-([0-9]{20})-[0-9a-f]{64}$`)
	digits   = regexp.MustCompile(`^[0-9]+$`)
	runForm  = regexp.MustCompile(`^run-[0-9a-f]{16}$`)
	nameOf   = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,63}$`) // of an index
)

// A chunk's place is DATASET/START-END-ID.
func idOf(place string) string { return place[len(place)-64:] }

func fail(code int, format string, rest ...any) {
	fmt.Fprintf(os.Stderr, "fsdm: "+format+"\n", rest...)
	os.Exit(code)
}

func stands(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func deleted(id string) bool { return stands(data + "/delete/" + id) }

// ------------------------------------------------------------------------------------------------------------- asking

// A new dotfile of a directory of markers, that is to become a marker; and the text that stands in it.
func temporary(kind, id string, text []byte) *os.File {
	random := make([]byte, 4)
	if _, err := rand.Read(random); err != nil {
		fail(1, "%v", err)
	}
	name := fmt.Sprintf("%s/%s/.%s.%x", data, kind, id, random)
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o664)
	if err == nil {
		_, err = file.Write(text)
	}
	if err != nil {
		fail(6, "%v", err)
	}
	return file
}

// The marker appears whole, by a rename (or by a link, where none stands), under the lock of intents. Then those go
// that it overrules: in this order, so that a crash in between never leaves neither.
func place(kind string, exclusive bool, id string, text []byte, overruled ...string) {
	file := temporary(kind, id, text)
	err := file.Close()
	if err != nil {
		fail(6, "%v", err)
	}
	lock, err := os.Open(data + "/want")
	if err != nil {
		fail(6, "%v", err)
	}
	defer lock.Close()
	for tries := 0; tries < 10 && syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil; tries++ {
		time.Sleep(500 * time.Microsecond) // somebody may sit on it: after 5 ms on without, as exact as `touch` is
	}
	marker := data + "/" + kind + "/" + id
	if exclusive {
		err = os.Link(file.Name(), marker)
	} else {
		err = os.Rename(file.Name(), marker)
	}
	if exclusive || err != nil {
		os.Remove(file.Name())
	}
	if errors.Is(err, os.ErrExist) && exclusive {
		fail(1, "chunk %s is registered already", id)
	} else if err != nil {
		fail(6, "%v", err)
	}
	for _, opposite := range overruled {
		err := syscall.Unlink(data + "/" + opposite + "/" + id)
		if err != nil && err != syscall.ENOENT && err != syscall.EISDIR {
			fail(6, "%s/%s/%s: %v", data, opposite, id, err)
		}
	}
}

// Place the document in a file.
func ask(kind string, exclusive bool, name string, overruled ...string) {
	file := os.Stdin
	if name != "-" {
		var err error
		if file, err = os.Open(name); err != nil {
			fail(2, "%v", err)
		}
	}
	text, err := io.ReadAll(io.LimitReader(file, wantMaxBytes+1))
	if err != nil || len(text) > wantMaxBytes {
		fail(2, "%s cannot be read, or has more than 1 MiB", name)
	}
	id := ""
	if json.Unmarshal(member(text, "id"), &id) != nil || !idForm.MatchString(id) {
		fail(2, "the want has no id of 64 lower-case hex digits")
	}
	place(kind, exclusive, id, text, overruled...)
}

// The value of a key of a JSON object, or nothing. Into a map: for a struct, Go would take "ID" as well.
func member(text []byte, key string) json.RawMessage {
	document := map[string]json.RawMessage{}
	if json.Unmarshal(text, &document) != nil {
		return nil
	}
	return document[key]
}

// ------------------------------------------------------------------------------------------------------------ reading

// The names in a directory, sorted; none where there is no directory.
func names(path string) (found []string) {
	entries, err := os.ReadDir(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		fail(6, "%v", err)
	}
	for _, entry := range entries {
		found = append(found, entry.Name())
	}
	return found
}

func rangeOf(name string) (start, end uint64, ok bool) {
	parts := nameForm.FindStringSubmatch(name)
	if parts == nil {
		return 0, 0, false
	}
	start, _ = strconv.ParseUint(parts[1], 10, 64)
	end, err := strconv.ParseUint(parts[2], 10, 64)
	return start, end, err == nil && start < end
}

func list() {
	for _, dataset := range names(data + "/chunks") {
		if !idForm.MatchString(dataset) {
			continue
		}
		for _, name := range names(data + "/chunks/" + dataset) {
			path := data + "/chunks/" + dataset + "/" + name
			_, _, ok := rangeOf(name)
			found, err := os.Lstat(path)
			if ok && err == nil && found.IsDir() && stands(path+"/READY") && !deleted(name[42:]) {
				fmt.Println(name[42:])
			}
		}
	}
}

// Those that hold the block, the responsible one first: the greatest start, then the smallest end, the smallest id.
func candidates(dataset string, block uint64) (found []string) {
	for _, name := range names(data + "/chunks/" + dataset) { // sorted: so by end and id already
		if start, end, ok := rangeOf(name); ok && start <= block && block < end {
			found = append(found, name)
		}
	}
	sort.SliceStable(found, func(i, j int) bool { return found[i][:20] > found[j][:20] })
	return found
}

// A ref: a descriptor of the chunk's directory, with a shared lock on it until it is closed.
func take(place string) (ref int, ok bool) {
	path, id := data+"/chunks/"+place, idOf(place)
	// Before the lock as well, for fairness: who keeps asking must not keep the reconciler from its claim.
	if deleted(id) || !stands(path+"/READY") {
		return -1, false
	}
	ref, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return -1, false
	}
	// The order is the whole safety argument: lock, then READY through the descriptor, then the marker.
	if syscall.Flock(ref, syscall.LOCK_SH|syscall.LOCK_NB) == nil &&
		stands(fmt.Sprintf("/proc/self/fd/%d/READY", ref)) && !deleted(id) {
		return ref, true
	}
	syscall.Close(ref)
	return -1, false
}

// Becomes the command, which inherits the ref: the chunk is held for as long as it, or a child of it, runs. Without a
// command: prints the path.
func become(ref int, place string, command []string) {
	path := data + "/chunks/" + place + "/data"
	if command == nil {
		fmt.Println(path)
		return
	}
	program, err := exec.LookPath(command[0])
	if err == nil {
		os.Setenv("FSDM_CHUNK_PATH", path)
		os.Setenv("FSDM_CHUNK_ID", idOf(place))
		syscall.Dup(ref) // the same lock, on a descriptor that stays open over exec
		err = syscall.Exec(program, command, os.Environ())
	}
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		fail(127, "%v", err)
	}
	fail(126, "%s: %v", command[0], err)
}

func position(dataset, number string) uint64 {
	block, err := strconv.ParseUint(number, 10, 64)
	if !idForm.MatchString(dataset) || !digits.MatchString(number) || err != nil {
		fail(2, "not an id, or not a block number within 0 … 2^64-1: %s %s", dataset, number)
	}
	return block
}

func hold(dataset, number string, command []string) {
	for _, name := range candidates(dataset, position(dataset, number)) {
		if ref, ok := take(dataset + "/" + name); ok {
			become(ref, dataset+"/"+name, command)
			return
		}
	}
	fail(3, "no available chunk of %s holds block %s", dataset, number)
}

// ---------------------------------------------------------------------------------------------------------- acquiring

// Where the chunk of an id has READY.
func here(id string) string {
	for _, dataset := range names(data + "/chunks") {
		for _, name := range names(data + "/chunks/" + dataset) {
			if _, _, ok := rangeOf(name); ok && name[42:] == id && stands(data+"/chunks/"+dataset+"/"+name+"/READY") {
				return dataset + "/" + name
			}
		}
	}
	return ""
}

// The place of the chunk that want/ID or known/ID describes, or nothing.
func described(kind, id string) string {
	file, err := os.OpenFile(data+"/"+kind+"/"+id, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, wantMaxBytes+1))
	blocks, dataset, own := member(text, "block_range"), "", id
	var start, end uint64
	for _, err := range []error{
		err,
		json.Unmarshal(member(blocks, "start"), &start),
		json.Unmarshal(member(blocks, "end"), &end),
		json.Unmarshal(member(text, "dataset_id"), &dataset),
	} {
		if err != nil {
			return ""
		}
	}
	if given := member(text, "id"); given != nil && (json.Unmarshal(given, &own) != nil || own != id) {
		return ""
	}
	if !idForm.MatchString(dataset) || start >= end {
		return ""
	}
	return fmt.Sprintf("%s/%020d-%020d-%s", dataset, start, end, id)
}

// Where a chunk is, or else what want/ID or known/ID says, or nothing.
func where(id string) string {
	for _, place := range []string{here(id), described("want", id), described("known", id)} {
		if place != "" {
			return place
		}
	}
	return ""
}

// The place of the chunk that is responsible for a block, of those that are available, and those that are registered.
func responsible(dataset string, block uint64) (best string) {
	consider := func(place string) {
		if start, end, ok := rangeOf(place[65:]); ok && start <= block && block < end {
			if best == "" || place[:85] > best[:85] || (place[:85] == best[:85] && place < best) {
				best = place
			}
		}
	}
	for _, name := range candidates(dataset, block) {
		if !deleted(name[42:]) && stands(data+"/chunks/"+dataset+"/"+name+"/READY") {
			consider(dataset + "/" + name)
		}
	}
	for _, id := range names(data + "/known") {
		if !idForm.MatchString(id) || (!deleted(id) && here(id) != "") {
			continue
		}
		if place := described("known", id); strings.HasPrefix(place, dataset) {
			consider(place)
		}
	}
	return best
}

// A share in acquire/ID.
type asking struct {
	marker *os.File // with a shared lock
	since  float64  // from then on a failure is that of this attempt
}

func (it *asking) isJoined(path string) bool {
	if it.marker == nil {
		return false
	}
	mine, err := it.marker.Stat()
	there, missing := os.Lstat(path)
	return err == nil && missing == nil && os.SameFile(mine, there)
}

// Have a share in the marker that stands there now; whether that was possible.
func (it *asking) join(id string) bool {
	path := data + "/acquire/" + id
	if it.isJoined(path) {
		return true
	}
	it.leave()
	marker, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		marker = temporary("acquire", id, []byte("held\n"))
		syscall.Flock(int(marker.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
		err = os.Link(marker.Name(), path) // it was locked before it is there
		os.Remove(marker.Name())
		if errors.Is(err, os.ErrExist) {
			err = nil
		}
	}
	if err != nil {
		fail(6, "%v", err)
	}
	if found, err := marker.Stat(); err != nil || !found.Mode().IsRegular() {
		fail(6, "%s is in the way", path)
	}
	it.marker = marker
	if syscall.Flock(int(marker.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) == nil && it.isJoined(path) {
		it.since = float64(time.Now().UnixNano()) / 1e9 // before the touch, so that no failure in between is missed
		touch(marker)                                   // another user's may refuse it
		return true
	}
	it.leave() // it is on its way out, or is just being looked at
	return false
}

func (it *asking) leave() {
	it.marker.Close()
	it.marker = nil
}

// Give a file the time of now, as fine as it is: so it is another one than it had.
func touch(file *os.File) {
	path := fmt.Sprintf("/proc/self/fd/%d", file.Fd())
	now := time.Now()
	os.Chtimes(path, now, now)
}

// Ends where failed/ID tells that this attempt has failed: one that waits for room has not.
func (it *asking) endIfFailed(id string) {
	text, err := os.ReadFile(data + "/failed/" + id)
	failure := struct {
		Kind, Error string
		At          float64 `json:"last_at"`
	}{}
	if err == nil && json.Unmarshal(text, &failure) == nil && failure.Kind != "room" && failure.At >= it.since {
		fail(1, "%s cannot be fetched: %s", id, failure.Error)
	}
}

// A use is noted about once a minute, where the chunk may be evicted: by a touch of acquire/ID.
func noteUse(place string) {
	if cached, err := os.Lstat(data + "/chunks/" + place + "/CACHED"); err == nil {
		if time.Since(cached.ModTime()) < time.Minute {
			return
		}
	} else { // was it registered since it was wanted?
		want, missing := os.Lstat(data + "/chunks/" + place + "/WANT")
		known, gone := os.Lstat(data + "/known/" + idOf(place))
		if missing != nil || gone != nil || !known.ModTime().After(want.ModTime()) ||
			!time.Unix(known.Sys().(*syscall.Stat_t).Ctim.Unix()).After(want.ModTime()) {
			return
		}
	}
	flags := os.O_WRONLY | os.O_CREATE | syscall.O_NOFOLLOW | syscall.O_NONBLOCK
	if file, err := os.OpenFile(data+"/acquire/"+idOf(place), flags, 0o664); err == nil {
		touch(file)
	}
}

func acquire(place string, late time.Time, command []string) {
	if place == "" {
		fail(3, "that chunk is neither here nor registered")
	}
	it, id := asking{}, idOf(place)
	for {
		if ref, ok := take(place); ok {
			noteUse(place)
			it.leave() // not before the ref is taken: until then it is not evicted
			become(ref, place, command)
		}
		if !stands(data+"/want/"+id) && !stands(data+"/known/"+id) {
			fail(3, "%s is neither here nor registered", id)
		}
		if byNow := where(id); byNow != "" {
			place = byNow
		}
		if it.join(id) {
			it.endIfFailed(id)
		}
		if !late.IsZero() && time.Now().After(late) {
			fail(4, "%s has not come in time", id)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// ------------------------------------------------------------------------------------------------------------ indexes

// An index of a chunk, or a run over all chunks, mapped.
type index struct {
	bytes             []byte
	count, bits, rest uint64
}

func u64(bytes []byte, at uint64) uint64 { return binary.LittleEndian.Uint64(bytes[at:]) }

// Map an index; nothing where there is none that is whole.
func openIndex(path, magic string) *index {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer file.Close()
	found, err := file.Stat()
	if err != nil || !found.Mode().IsRegular() || found.Size() < 160 {
		return nil
	}
	all, err := syscall.Mmap(int(file.Fd()), 0, int(found.Size()), syscall.PROT_READ, syscall.MAP_PRIVATE)
	if err != nil {
		fail(6, "%s: %v", path, err)
	}
	check := sha256.Sum256(all[:144])
	if string(all[:8]) != magic || u64(all, 24) != uint64(len(all)) || !bytes.Equal(check[:16], all[144:160]) {
		return nil
	}
	it := index{bytes: all, count: u64(all, 8), bits: u64(all, 16)}
	it.rest = 160 + 20*it.count + 8*(1<<it.bits+1)
	return &it
}

// The numbers of the records with this hash.
func (it *index) numbers(hash []byte) (found []uint64) {
	bounds := 160 + 20*it.count + 8*(binary.BigEndian.Uint64(hash)>>(64-it.bits))
	for n := u64(it.bytes, bounds); n < u64(it.bytes, bounds+8); n++ {
		if record := it.bytes[160+20*n : 180+20*n]; bytes.Equal(record[:16], hash) {
			found = append(found, uint64(binary.LittleEndian.Uint32(record[16:])))
		}
	}
	return found
}

// The key of an entry of a chunk's index.
func (it *index) key(n uint64) []byte {
	begin, entry := uint64(0), it.rest+32*n
	if n > 0 {
		begin = u64(it.bytes, entry-32)
	}
	return it.bytes[it.rest+32*it.count:][begin:u64(it.bytes, entry)]
}

// The chunks that have a hash, by the runs of an index: their places, and the SHA-256 of READY behind each.
func hits(name string, hash []byte) (found []string) {
	for _, run := range names(data + "/index/" + name) {
		if !runForm.MatchString(run) {
			continue
		}
		it := openIndex(data+"/index/"+name+"/"+run, "fsdmrun1")
		if it == nil {
			if !stands(data + "/index/" + name + "/" + run) {
				return hits(name, hash) // it has gone since it was listed: another has what it had
			}
			continue
		}
		for _, n := range it.numbers(hash) {
			if n < u64(it.bytes, 32) {
				row := it.bytes[it.rest+112*n:][:112]
				place := fmt.Sprintf("%x/%020d-%020d-%x", row[:32], u64(row, 64), u64(row, 72), row[32:64])
				found = append(found, place+string(row[80:]))
			}
		}
	}
	sort.Strings(found)
	return found
}

// Whether a chunk has a key, by its own index, where that is whole and of its READY; else by what the run says.
func holds(place, name string, key []byte, identity string) bool {
	ready, err := os.ReadFile(data + "/chunks/" + place + "/READY")
	digest := sha256.Sum256(ready)
	own := openIndex(data+"/chunks/"+place+"/index/"+name, "fsdmidx1")
	if err != nil || own == nil || !bytes.Equal(own.bytes[48:80], digest[:]) {
		return err == nil && identity == string(digest[:])
	}
	hash := sha256.Sum256(key)
	for _, n := range own.numbers(hash[:16]) {
		if bytes.Equal(own.key(n), key) {
			return true
		}
	}
	return false
}

// Prints the paths of the available chunks that hold a key; how many.
func findKey(name string, key []byte) (printed int) {
	hash, last := sha256.Sum256(key), ""
	for _, hit := range hits(name, hash[:16]) {
		place := hit[:len(hit)-32]
		if hit == last {
			continue
		}
		last = hit
		if ref, ok := take(place); ok {
			if holds(place, name, key, hit[len(place):]) {
				fmt.Println(data + "/chunks/" + place + "/data")
				printed++
			}
			syscall.Close(ref)
		}
	}
	return printed
}

// A key is taken for bytes where it is hex digits, and for text where no chunk holds these.
func findKeys(name, text string) {
	if !nameOf.MatchString(name) || !stands(data+"/index/"+name) || text == "" {
		fail(2, "an empty key, or there is no index %s over all chunks", name)
	}
	key, err := hex.DecodeString(strings.TrimPrefix(text, "0x"))
	if (err != nil || len(key) == 0 || findKey(name, key) == 0) && findKey(name, []byte(text)) == 0 {
		fail(3, "no available chunk holds that key of index %s", name)
	}
}

func main() {
	root := os.Getenv("FSDM_DATA_DIR")
	if root == "" {
		fail(2, "which data directory? Set FSDM_DATA_DIR")
	}
	absolute, err := filepath.Abs(root)
	if err == nil {
		data, err = filepath.EvalSymlinks(absolute)
	}
	if err != nil {
		fail(6, "%v", err)
	}
	text, err := os.ReadFile(data + "/fsdm.json")
	if err != nil || string(member(text, "format")) != "1" {
		fail(6, "%s is not a data directory of format 1", data)
	}
	if !stands(data + "/delete/.") {
		fail(6, "%s/delete may not be searched: nobody could see there that a chunk is deleted", data)
	}
	arguments, exclusive, late := os.Args[1:], false, time.Time{}
	verb := append(arguments, "")[0]
	if verb == "register" && len(arguments) > 1 && arguments[1] == "--exclusive" {
		arguments, exclusive = arguments[1:], true
	}
	if verb == "acquire" && len(arguments) > 3 && arguments[1] == "--timeout" {
		seconds, err := strconv.ParseFloat(arguments[2], 64)
		if err != nil || !(seconds >= 0) {
			fail(2, "%s is no number of seconds", arguments[2])
		}
		late = time.Now().Add(time.Duration(seconds * 1e9))
		arguments = arguments[2:]
	}
	switch {
	case verb == "want" && len(arguments) == 2:
		ask("want", false, arguments[1], "delete")
	case verb == "register" && len(arguments) == 2:
		ask("known", exclusive, arguments[1], "delete", "want")
	case verb == "delete" && len(arguments) == 2 && idForm.MatchString(arguments[1]):
		place("delete", false, arguments[1], nil, "want", "known")
	case verb == "list" && len(arguments) == 1:
		list()
	case verb == "find" && len(arguments) == 3:
		hold(arguments[1], arguments[2], nil)
	case verb == "find" && len(arguments) == 4 && arguments[1] == "--key":
		findKeys(arguments[2], arguments[3])
	case verb == "hold" && len(arguments) > 4 && arguments[3] == "--":
		hold(arguments[1], arguments[2], arguments[4:])
	case verb == "acquire" && len(arguments) > 3 && arguments[2] == "--" && idForm.MatchString(arguments[1]):
		acquire(where(arguments[1]), late, arguments[3:])
	case verb == "acquire" && len(arguments) > 4 && arguments[3] == "--":
		acquire(responsible(arguments[1], position(arguments[1], arguments[2])), late, arguments[4:])
	default:
		fail(2, "see the head of fsdm.go for how it is called")
	}
}
