// fsdm for Java 15 and later, with nothing but its own library, sh and flock(1):  javac Fsdm.java && java Fsdm ...
//
//   FSDM_DATA_DIR=data java Fsdm want FILE|-
//   FSDM_DATA_DIR=data java Fsdm register [--exclusive] FILE|-
//   FSDM_DATA_DIR=data java Fsdm delete ID
//   FSDM_DATA_DIR=data java Fsdm list
//   FSDM_DATA_DIR=data java Fsdm find DATASET BLOCK
//   FSDM_DATA_DIR=data java Fsdm hold DATASET BLOCK -- CMD...
//   FSDM_DATA_DIR=data java Fsdm acquire [--timeout S] ID|DATASET BLOCK -- CMD...
//
// Java's FileChannel.lock() is an fcntl lock: it excludes no flock, so it protects NOTHING here; and no descriptor of a
// JVM's reaches a child. So the lock is taken in front of the program that reads: a shell opens the directory, has
// flock(1) lock that descriptor, looks, and becomes CMD, which inherits it. A program in Java reads in the same way:
//
//   java Fsdm hold DATASET BLOCK -- java MyReader
//
// Exit codes: 1 the chunk cannot be fetched, or is registered already (--exclusive), 2 wrong usage or input, 3 no such
// chunk is available (acquire: or registered), 4 it has not come in time, 6 the data directory cannot be used; that of
// CMD.
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.FileTime;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.concurrent.ThreadLocalRandom;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.Stream;

public final class Fsdm {
    static final int WANT_MAX_BYTES = 1 << 20;
    static final BigInteger U64_MAX = BigInteger.TWO.pow(64).subtract(BigInteger.ONE);
    static final Pattern ID = Pattern.compile("[0-9a-f]{64}");
    static final Pattern CHUNK_DIR = Pattern.compile("([0-9]{20})-([0-9]{20})-[0-9a-f]{64}");
    static final Pattern TOKEN = Pattern.compile("\"(?:[^\"\\\\]|\\\\.)*+\"|[\\[\\]{}:,]|[^\\[\\]{}:,\"\\s]+");

    /** $1 is removed once the chunk is held: only then is the exit code that of CMD. $4 is the process that asks for the
     * chunk: not before the ref is taken it ends, for until then the chunk is not evicted. $5 is touched, to note a use. */
    static final String HOLD = """
        held=$1 directory=$2 deleted=$3 asks=$4 used=$5
        shift 5
        exec 9<"$directory" || exit
        # The order is the whole safety argument: lock, then READY through the descriptor, then the marker.
        [ "$(readlink /proc/self/fd/9)" = "$directory" ] && flock -s -n 9 &&
            [ -e /proc/self/fd/9/READY ] && [ ! -e "$deleted" ] && [ ! -L "$deleted" ] || exit
        [ -z "$used" ] || touch -- "$used" 2>/dev/null
        if [ -n "$asks" ]; then
            kill "$asks" 2>/dev/null
            while kill -0 "$asks" 2>/dev/null; do sleep 0.01; done
        fi
        rm -- "$held" && exec "$@"
        """;

    /** Under the lock of intents the marker appears whole, by a rename (or by a link, where none stands). Then those go
     * that it overrules: in this order, so that a crash in between never leaves neither. */
    static final String PLACE = """
        new=$2 marker=$3 exclusive=$4
        exec 9<"$1" || exit
        shift 4
        flock -w 0.005 9 || : # somebody sits on it: on without, and as exact as `touch` is
        if [ -n "$exclusive" ]; then ln -T -- "$new" "$marker" || exit 1; else mv -fT -- "$new" "$marker" || exit 6; fi
        for overruled; do [ -d "$overruled" ] || rm -f -- "$overruled"; done
        """;

    /** Has a share in the marker $1 for as long as its standard input is open, so not longer than this JVM lives; says
     * which inode that is, and since when a failure is that of this attempt. */
    static final String ASK = """
        if [ ! -e "$1" ] && [ ! -L "$1" ]; then
            (set -C; echo held >"$2") || exit 6
            exec 8<"$2"
            flock -s 8 # it was locked before it is there
            ln -T -- "$2" "$1" 2>/dev/null || : # another one has come meanwhile
            rm -f -- "$2"
        elif [ -d "$1" ] || [ -L "$1" ]; then
            exit 6
        else
            { [ -f "$1" ] && command exec 8<"$1"; } 2>/dev/null && flock -s -n 8 || exit 1
        fi
        # It may be on its way out: only the one that stands there now counts.
        [ "$1" -ef /proc/self/fd/8 ] || exit 1
        stat -L -c %i /proc/self/fd/8
        since=$(date +%s.%N) # before the touch, so that no failure in between is missed
        # As fine as it is, and so another time than it had. Another user's refuses it.
        touch -c -d "@$since" /proc/self/fd/8 2>/dev/null
        echo "$since"
        read -r until_the_end
        """;

    static final class Failure extends Exception {
        static final long serialVersionUID = 1;
        final int code;

        Failure(int code, String message) {
            super(message);
            this.code = code;
        }
    }

    final Path data;

    /** Opens the data directory; its real path. */
    Fsdm(String root) throws Failure {
        if (root == null || root.isEmpty()) throw new Failure(2, "which data directory? Set FSDM_DATA_DIR");
        try {
            data = Path.of(root).toRealPath();
            if (!"1".equals(member(Files.readString(data.resolve("fsdm.json")), "format")))
                throw new Failure(6, root + " is not a data directory of format 1");
        } catch (IOException e) {
            throw new Failure(6, "not a data directory: " + e);
        }
        if (!stands(data.resolve("delete/.")))
            throw new Failure(6, data + "/delete may not be searched: nobody could see there that a chunk is deleted");
    }

    static boolean stands(Path path) {
        return Files.exists(path, LinkOption.NOFOLLOW_LINKS);
    }

    static boolean isId(String text) {
        return text != null && ID.matcher(text).matches();
    }

    /** The value of a key of the outermost object of a JSON text, or of a key of an object in there, and so on; a string
     * in its quotes; of several, the last. Null where there is none, or the text does not end. */
    static String member(String text, String... keys) {
        String found = null, last = "", before = "";
        int depth = 0, inside = 0;
        for (Matcher token = TOKEN.matcher(text); token.find(); before = last, last = token.group()) {
            boolean named = last.equals(":") && depth == inside + 1 && inside < keys.length
                && before.equals('"' + keys[inside] + '"');
            if (named && inside == keys.length - 1) found = token.group();
            if (token.group().matches("[\\[{]")) depth++;
            if (named && token.group().equals("{")) inside++;
            if (!token.group().matches("[\\]}]")) continue;
            if (--depth == 0) return found;
            if (depth == inside) inside--;
        }
        return null;
    }

    /** The string that a value is. */
    static String string(String value) {
        return value == null ? "" : value.replace("\"", "");
    }

    static String idOf(String place) { // DATASET/START-END-ID
        return place.substring(place.length() - 64);
    }

    // --------------------------------------------------------------------------------------------------------- asking

    Path temporary(String kind, String id) {
        return data.resolve(kind + "/." + id + "." + String.format("%08x", ThreadLocalRandom.current().nextInt()));
    }

    void place(String kind, boolean exclusive, String id, byte[] text, String... overruled)
            throws Failure, IOException, InterruptedException {
        Path temporary = temporary(kind, id), marker = data.resolve(kind + "/" + id);
        Files.write(temporary, text, StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE);
        ProcessBuilder process = run(PLACE, data.resolve("want"), temporary, marker, exclusive ? "exclusive" : "");
        for (String other : overruled) process.command().add(data.resolve(other + "/" + id).toString());
        int code = process.start().waitFor();
        Files.deleteIfExists(temporary);
        if (code != 0) throw new Failure(code == 1 ? 1 : 6, marker + (code == 1 ? " stands" : " cannot be placed"));
    }

    /** Place the document in a file. */
    void ask(String kind, boolean exclusive, String name, String... overruled)
            throws Failure, IOException, InterruptedException {
        byte[] text;
        try (InputStream file = name.equals("-") ? System.in : Files.newInputStream(Path.of(name))) {
            text = file.readNBytes(WANT_MAX_BYTES + 1);
        } catch (IOException e) {
            throw new Failure(2, name + " cannot be read: " + e);
        }
        String id = text.length > WANT_MAX_BYTES ? null : member(new String(text, StandardCharsets.UTF_8), "id");
        if (!isId(string(id)))
            throw new Failure(2, "the want has more than 1 MiB, or no id of 64 lower-case hex digits");
        place(kind, exclusive, string(id), text, overruled);
    }

    // -------------------------------------------------------------------------------------------------------- reading

    /** The names in a directory, sorted; none where there is no directory. */
    static List<String> names(Path directory) throws IOException {
        if (!Files.isDirectory(directory)) return List.of();
        try (Stream<Path> entries = Files.list(directory)) {
            return entries.map(entry -> entry.getFileName().toString()).sorted().collect(Collectors.toList());
        } catch (NoSuchFileException e) { // gone since
            return List.of();
        }
    }

    /** START and END of a chunk directory's name, or null. */
    static BigInteger[] rangeOf(String name) {
        Matcher parts = CHUNK_DIR.matcher(name);
        if (!parts.matches()) return null;
        BigInteger start = new BigInteger(parts.group(1)), end = new BigInteger(parts.group(2));
        return start.compareTo(end) < 0 && end.compareTo(U64_MAX) <= 0 ? new BigInteger[] {start, end} : null;
    }

    boolean deleted(String id) {
        return stands(data.resolve("delete/" + id));
    }

    void list() throws IOException {
        for (String dataset : names(data.resolve("chunks"))) {
            if (!isId(dataset)) continue;
            for (String name : names(data.resolve("chunks/" + dataset))) {
                if (rangeOf(name) == null) continue;
                Path path = data.resolve("chunks/" + dataset + "/" + name);
                boolean isDirectory = Files.isDirectory(path, LinkOption.NOFOLLOW_LINKS);
                String id = name.substring(42);
                if (isDirectory && stands(path.resolve("READY")) && !deleted(id)) System.out.println(id);
            }
        }
    }

    /** Those that hold the block, the responsible one first: the greatest start, then the smallest end, the smallest
     * id. */
    List<String> candidates(String dataset, BigInteger block) throws IOException {
        List<String> found = new ArrayList<>(names(data.resolve("chunks/" + dataset)));
        found.removeIf(name -> {
            BigInteger[] range = rangeOf(name);
            return range == null || range[0].compareTo(block) > 0 || block.compareTo(range[1]) >= 0;
        });
        found.sort(Comparator.comparing((String name) -> name.substring(0, 20)).reversed()
            .thenComparing(Comparator.naturalOrder()));
        return found;
    }

    static BigInteger position(String dataset, String number) throws Failure {
        if (!isId(dataset)) throw new Failure(2, dataset + " is not an id of 64 lower-case hex digits");
        if (!number.matches("[0-9]+") || new BigInteger(number).compareTo(U64_MAX) > 0)
            throw new Failure(2, number + " is not a block number within 0 ... 2^64-1");
        return new BigInteger(number);
    }

    /** Runs CMD while the chunk is held; its exit code, or null where the chunk is not available. `asks` and `used` are
     * as HOLD takes them. */
    Integer become(String place, String asks, String used, List<String> command)
            throws IOException, InterruptedException {
        Path directory = data.resolve("chunks/" + place);
        // Before the lock as well, for fairness: who keeps asking must not keep the reconciler from its claim.
        if (deleted(idOf(place)) || !stands(directory.resolve("READY"))) return null;
        Path held = Files.createTempFile("fsdm", null);
        ProcessBuilder process = run(HOLD, held, directory, data.resolve("delete/" + idOf(place)), asks, used);
        process.command().addAll(command);
        process.environment().put("FSDM_CHUNK_PATH", directory + "/data");
        process.environment().put("FSDM_CHUNK_ID", idOf(place));
        int code = process.start().waitFor();
        return Files.deleteIfExists(held) ? null : code;
    }

    int hold(String dataset, String number, List<String> command) throws Failure, IOException, InterruptedException {
        for (String name : candidates(dataset, position(dataset, number))) {
            Integer code = become(dataset + "/" + name, "", "", command);
            if (code != null) return code;
        }
        throw new Failure(3, "no available chunk of " + dataset + " holds block " + number);
    }

    // ------------------------------------------------------------------------------------------------------ acquiring

    boolean available(String place) {
        return place != null && stands(data.resolve("chunks/" + place + "/READY")) && !deleted(idOf(place));
    }

    /** Where the chunk of an id has READY, or null. */
    String here(String id) throws IOException {
        for (String dataset : names(data.resolve("chunks")))
            for (String name : isId(dataset) ? names(data.resolve("chunks/" + dataset)) : List.<String>of())
                if (name.endsWith("-" + id) && rangeOf(name) != null
                        && stands(data.resolve("chunks/" + dataset + "/" + name + "/READY")))
                    return dataset + "/" + name;
        return null;
    }

    /** What a file of ours says; nothing where it is none. */
    String read(String name) {
        try {
            Path file = data.resolve(name);
            return Files.isRegularFile(file, LinkOption.NOFOLLOW_LINKS) ? Files.readString(file) : "";
        } catch (IOException e) {
            return ""; // gone since, not to be read, or no text
        }
    }

    /** The place of the chunk that want/ID or known/ID describes, or null. */
    String described(String kind, String id) {
        String text = read(kind + "/" + id), own = member(text, "id"), dataset = string(member(text, "dataset_id"));
        StringBuilder name = new StringBuilder();
        for (String end : List.of("start", "end")) {
            String number = String.valueOf(member(text, "block_range", end));
            if (!number.matches("[0-9]{1,20}")) return null;
            name.append("0".repeat(20 - number.length())).append(number).append("-");
        }
        boolean taken = isId(dataset) && (own == null || string(own).equals(id)) && rangeOf(name + id) != null;
        return taken ? dataset + "/" + name + id : null;
    }

    /** Where a chunk is, or else what want/ID or known/ID says, or null. */
    String where(String id) throws IOException {
        String here = here(id), wanted = here == null ? described("want", id) : here;
        return wanted == null ? described("known", id) : wanted;
    }

    /** The place of the chunk that is responsible for a block, of those that are available, and those that are
     * registered; or null. */
    String responsible(String dataset, BigInteger block) throws IOException {
        List<String> places = new ArrayList<>();
        for (String name : candidates(dataset, block))
            if (available(dataset + "/" + name)) places.add(dataset + "/" + name);
        for (String id : names(data.resolve("known"))) {
            String place = isId(id) ? described("known", id) : null;
            if (place == null || !place.startsWith(dataset)) continue;
            BigInteger[] range = rangeOf(place.substring(65));
            if (range[0].compareTo(block) <= 0 && block.compareTo(range[1]) < 0 && !available(here(id)))
                places.add(place);
        }
        places.sort(Comparator.comparing((String place) -> place.substring(0, 85)).reversed()
            .thenComparing(Comparator.naturalOrder()));
        return places.isEmpty() ? null : places.get(0);
    }

    /** A share in acquire/ID, which a process of its own has, for Java cannot. */
    final class Asking {
        final String id;
        Process process;
        String inode;
        double since;

        Asking(String id) {
            this.id = id;
        }

        /** Have a share in the marker that stands there now; whether that was possible. */
        boolean join() throws Failure, IOException, InterruptedException {
            Path path = data.resolve("acquire/" + id);
            if (process != null && stands(path) && inode.equals(Files.getAttribute(path, "unix:ino",
                    LinkOption.NOFOLLOW_LINKS).toString()))
                return true;
            leave();
            process = run(ASK, path, temporary("acquire", id)).redirectInput(ProcessBuilder.Redirect.PIPE)
                .redirectOutput(ProcessBuilder.Redirect.PIPE).start();
            BufferedReader says = process.inputReader();
            inode = says.readLine();
            String time = says.readLine();
            if (time == null) {
                boolean inTheWay = process.waitFor() == 6;
                process = null; // the marker is on its way out, or is just being looked at
                if (inTheWay) throw new Failure(6, path + " is in the way");
                return false;
            }
            since = Double.parseDouble(time);
            return true;
        }

        void leave() throws IOException, InterruptedException {
            if (process == null) return;
            process.getOutputStream().close();
            process.waitFor();
            process = null;
        }

        /** Ends where failed/ID tells that this attempt has failed: one that waits for room has not. */
        void endIfFailed() throws Failure {
            String text = read("failed/" + id), at = member(text, "last_at");
            if (at != null && !string(member(text, "kind")).equals("room") && Double.parseDouble(at) >= since)
                throw new Failure(1, id + " cannot be fetched: " + string(member(text, "error")));
        }
    }

    static Instant time(Path path, String which) throws IOException {
        return ((FileTime) Files.getAttribute(path, "unix:" + which, LinkOption.NOFOLLOW_LINKS)).toInstant();
    }

    /** What is to be touched to note a use: once a minute, where the chunk may be evicted; else nothing. */
    String toNote(String place) throws IOException {
        Path cached = data.resolve("chunks/" + place + "/CACHED"), want = data.resolve("chunks/" + place + "/WANT");
        Path known = data.resolve("known/" + idOf(place));
        boolean noted;
        if (stands(cached)) noted = time(cached, "lastModifiedTime").plusSeconds(60).isAfter(Instant.now());
        else if (!stands(want) || !stands(known)) noted = true;
        else { // was it registered since it was wanted?
            Instant wanted = time(want, "lastModifiedTime");
            noted = !time(known, "lastModifiedTime").isAfter(wanted) || !time(known, "ctime").isAfter(wanted);
        }
        return noted ? "" : data.resolve("acquire/" + idOf(place)).toString();
    }

    int acquire(String place, Duration timeout, List<String> command)
            throws Failure, IOException, InterruptedException {
        if (place == null) throw new Failure(3, "that chunk is neither here nor registered");
        long began = System.nanoTime();
        Asking asking = new Asking(idOf(place));
        try {
            while (true) {
                String asks = asking.process == null ? "" : Long.toString(asking.process.pid());
                Integer code = become(place, asks, toNote(place), command);
                if (code != null) return code;
                if (!stands(data.resolve("want/" + asking.id)) && !stands(data.resolve("known/" + asking.id)))
                    throw new Failure(3, asking.id + " is neither here nor registered");
                String byNow = where(asking.id);
                if (byNow != null) place = byNow;
                if (asking.join()) asking.endIfFailed();
                if (timeout != null && System.nanoTime() - began >= timeout.toNanos())
                    throw new Failure(4, asking.id + " has not come in time");
                Thread.sleep(50);
            }
        } finally {
            asking.leave();
        }
    }

    static Duration seconds(String text) throws Failure {
        if (!text.matches("[0-9]{1,9}(\\.[0-9]+)?")) throw new Failure(2, text + " is no number of seconds");
        return Duration.ofNanos((long) (Double.parseDouble(text) * 1e9));
    }

    static ProcessBuilder run(String script, Object... arguments) {
        List<String> command = new ArrayList<>(List.of("sh", "-c", script, "sh"));
        for (Object argument : arguments) command.add(argument.toString());
        return new ProcessBuilder(command).inheritIO();
    }

    // ------------------------------------------------------------------------------------------------------ the verbs

    int call(List<String> words) throws Failure, IOException, InterruptedException {
        String verb = words.isEmpty() ? "" : words.get(0);
        List<String> rest = new ArrayList<>(words.subList(Math.min(1, words.size()), words.size()));
        boolean exclusive = verb.equals("register") && rest.size() == 2 && rest.get(0).equals("--exclusive");
        if (exclusive) rest.remove(0);
        Duration timeout = null;
        if (verb.equals("acquire") && rest.size() > 2 && rest.get(0).equals("--timeout")) {
            timeout = seconds(rest.get(1));
            rest.subList(0, 2).clear();
        }
        int before = rest.indexOf("--");
        List<String> command = before < 0 ? List.of() : rest.subList(before + 1, rest.size());
        boolean runs = (verb.equals("hold") || verb.equals("acquire")) && !command.isEmpty();
        if (verb.equals("want") && rest.size() == 1) ask("want", false, rest.get(0), "delete");
        else if (verb.equals("register") && rest.size() == 1) ask("known", exclusive, rest.get(0), "delete", "want");
        else if (verb.equals("delete") && rest.size() == 1 && isId(rest.get(0)))
            place("delete", false, rest.get(0), new byte[0], "want", "known");
        else if (verb.equals("list") && rest.isEmpty()) list();
        else if (verb.equals("find") && rest.size() == 2)
            return hold(rest.get(0), rest.get(1), List.of("printenv", "FSDM_CHUNK_PATH"));
        else if (verb.equals("hold") && runs && before == 2) return hold(rest.get(0), rest.get(1), command);
        else if (verb.equals("acquire") && runs && before == 1 && isId(rest.get(0)))
            return acquire(where(rest.get(0)), timeout, command);
        else if (verb.equals("acquire") && runs && before == 2)
            return acquire(responsible(rest.get(0), position(rest.get(0), rest.get(1))), timeout, command);
        else throw new Failure(2, "see the head of Fsdm.java for how it is called");
        return 0;
    }

    public static void main(String[] arguments) throws InterruptedException {
        int code;
        try {
            code = new Fsdm(System.getenv("FSDM_DATA_DIR")).call(List.of(arguments));
        } catch (Failure e) {
            System.err.println("fsdm: " + e.getMessage());
            code = e.code;
        } catch (IOException e) {
            System.err.println("fsdm: " + e);
            code = 6;
        }
        System.exit(code);
    }
}
