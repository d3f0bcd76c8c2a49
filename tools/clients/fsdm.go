// fsdm for Go, with nothing but its own library:  go build fsdm.go
//
//	FSDM_DATA_DIR=data fsdm want FILE|-
//	FSDM_DATA_DIR=data fsdm delete ID
//	FSDM_DATA_DIR=data fsdm list
//	FSDM_DATA_DIR=data fsdm find DATASET BLOCK
//	FSDM_DATA_DIR=data fsdm hold DATASET BLOCK -- CMD…
//
// Exit codes: 2 wrong usage or input, 3 no such chunk is available, 6 the data directory cannot be used; that of CMD.
package main

import (
	"crypto/rand"
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
	"syscall"
	"time"
)

const wantMaxBytes = 1 << 20

var (
	data     string // the real path of the data directory
	idForm   = regexp.MustCompile(`^[0-9a-f]{64}$`)
	nameForm = regexp.MustCompile(`^([0-9]{20})-([0-9]{20})-[0-9a-f]{64}$`)
	digits   = regexp.MustCompile(`^[0-9]+$`)
)

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

// The marker appears whole, by a rename, under the lock of intents. Then the opposite one goes: in this order, so that
// a crash in between never leaves neither.
func place(kind, opposite, id string, text []byte) {
	random := make([]byte, 4)
	if _, err := rand.Read(random); err != nil {
		fail(1, "%v", err)
	}
	temporary := fmt.Sprintf("%s/%s/.%s.%x", data, kind, id, random)
	file, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o664)
	if err == nil {
		if _, err = file.Write(text); err == nil {
			err = file.Close()
		}
	}
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
	if err := os.Rename(temporary, data+"/"+kind+"/"+id); err != nil {
		os.Remove(temporary)
		fail(6, "%v", err)
	}
	err = syscall.Unlink(data + "/" + opposite + "/" + id)
	if err != nil && err != syscall.ENOENT && err != syscall.EISDIR {
		fail(6, "%s/%s/%s: %v", data, opposite, id, err)
	}
}

func want(name string) {
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
	place("want", "delete", id, text)
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
func take(path, id string) (ref int, ok bool) {
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
func hold(dataset, number string, command []string) {
	block, err := strconv.ParseUint(number, 10, 64)
	if !idForm.MatchString(dataset) || !digits.MatchString(number) || err != nil {
		fail(2, "not an id, or not a block number within 0 … 2^64-1: %s %s", dataset, number)
	}
	for _, name := range candidates(dataset, block) {
		path, id := data+"/chunks/"+dataset+"/"+name, name[42:]
		ref, ok := take(path, id)
		if !ok {
			continue
		}
		if command == nil {
			fmt.Println(path + "/data")
			return
		}
		program, err := exec.LookPath(command[0])
		if err == nil {
			os.Setenv("FSDM_CHUNK_PATH", path+"/data")
			os.Setenv("FSDM_CHUNK_ID", id)
			syscall.Dup(ref) // the same lock, on a descriptor that stays open over exec
			err = syscall.Exec(program, command, os.Environ())
		}
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
			fail(127, "%v", err)
		}
		fail(126, "%s: %v", command[0], err)
	}
	fail(3, "no available chunk of %s holds block %s", dataset, number)
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
	arguments := os.Args[1:]
	switch verb := append(arguments, "")[0]; {
	case verb == "want" && len(arguments) == 2:
		want(arguments[1])
	case verb == "delete" && len(arguments) == 2 && idForm.MatchString(arguments[1]):
		place("delete", "want", arguments[1], nil)
	case verb == "list" && len(arguments) == 1:
		list()
	case verb == "find" && len(arguments) == 3:
		hold(arguments[1], arguments[2], nil)
	case verb == "hold" && len(arguments) > 4 && arguments[3] == "--":
		hold(arguments[1], arguments[2], arguments[4:])
	default:
		fail(2, "want FILE|-, delete ID, list, find DATASET BLOCK, or hold DATASET BLOCK -- CMD…")
	}
}
