// fsdm for Java 15 and later, with nothing but its own library, sh and flock(1):  javac Fsdm.java && java Fsdm ...
//
//   FSDM_DATA_DIR=data java Fsdm want FILE|-
//   FSDM_DATA_DIR=data java Fsdm delete ID
//   FSDM_DATA_DIR=data java Fsdm list
//   FSDM_DATA_DIR=data java Fsdm find DATASET BLOCK
//   FSDM_DATA_DIR=data java Fsdm hold DATASET BLOCK -- CMD...
//
// Java's FileChannel.lock() is an fcntl lock: it excludes no flock, so it protects NOTHING here; and no descriptor of a
// JVM's reaches a child. So the lock is taken in front of the program that reads: a shell opens the directory, has
// flock(1) lock that descriptor, looks, and becomes CMD, which inherits it. A program in Java reads in the same way:
//
//   java Fsdm hold DATASET BLOCK -- java MyReader
//
// Exit codes: 2 wrong usage or input, 3 no such chunk is available, 6 the data directory cannot be used; that of CMD.
import java.io.IOException;
import java.io.InputStream;
import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
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

    /** $1 is removed once the chunk is held: only then is the exit code that of CMD. */
    static final String HOLD = """
        held=$1 directory=$2 deleted=$3
        shift 3
        exec 9<"$directory" || exit
        # The order is the whole safety argument: lock, then READY through the descriptor, then the marker.
        [ "$(readlink /proc/self/fd/9)" = "$directory" ] && flock -s -n 9 &&
            [ -e /proc/self/fd/9/READY ] && [ ! -e "$deleted" ] && [ ! -L "$deleted" ] &&
            rm -- "$held" && exec "$@"
        """;

    /** Under the lock of intents the marker appears whole, by a rename. Then the opposite one goes: in this order, so
     * that a crash in between never leaves neither. */
    static final String PLACE = """
        exec 9<"$1" || exit
        flock -w 0.005 9 || : # somebody sits on it: on without, and as exact as `touch` is
        mv -fT -- "$2" "$3" && { [ -d "$4" ] || rm -f -- "$4"; }
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

    /** The value of a key of the outermost object of a JSON text, a string in its quotes; of several, the last. */
    static String member(String text, String key) {
        String found = null, last = "", before = "";
        int depth = 0;
        for (Matcher token = TOKEN.matcher(text); token.find(); before = last, last = token.group()) {
            if (depth == 1 && last.equals(":") && before.equals('"' + key + '"')) found = token.group();
            if (token.group().matches("[\\[{]")) depth++;
            if (token.group().matches("[\\]}]")) depth--;
        }
        return found;
    }

    // --------------------------------------------------------------------------------------------------------- asking

    void place(String kind, String opposite, String id, byte[] text) throws Failure, IOException, InterruptedException {
        String number = String.format("%08x", ThreadLocalRandom.current().nextInt());
        Path temporary = data.resolve(kind + "/." + id + "." + number);
        Files.write(temporary, text, StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE);
        Path marker = data.resolve(kind + "/" + id), other = data.resolve(opposite + "/" + id);
        int code = run(PLACE, data.resolve("want"), temporary, marker, other).start().waitFor();
        Files.deleteIfExists(temporary);
        if (code != 0) throw new Failure(6, marker + " cannot be placed");
    }

    void want(String name) throws Failure, IOException, InterruptedException {
        byte[] text;
        try (InputStream file = name.equals("-") ? System.in : Files.newInputStream(Path.of(name))) {
            text = file.readNBytes(WANT_MAX_BYTES + 1);
        } catch (IOException e) {
            throw new Failure(2, name + " cannot be read: " + e);
        }
        String id = text.length > WANT_MAX_BYTES ? null : member(new String(text, StandardCharsets.UTF_8), "id");
        if (id == null || !isId(id.replace("\"", "")))
            throw new Failure(2, "the want has more than 1 MiB, or no id of 64 lower-case hex digits");
        place("want", "delete", id.replace("\"", ""), text);
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

    /** Runs CMD while the chunk is held; its exit code. */
    int hold(String dataset, String number, List<String> command) throws Failure, IOException, InterruptedException {
        if (!isId(dataset)) throw new Failure(2, dataset + " is not an id of 64 lower-case hex digits");
        if (!number.matches("[0-9]+") || new BigInteger(number).compareTo(U64_MAX) > 0)
            throw new Failure(2, number + " is not a block number within 0 ... 2^64-1");
        for (String name : candidates(dataset, new BigInteger(number))) {
            Path directory = data.resolve("chunks/" + dataset + "/" + name);
            String id = name.substring(42);
            // Before the lock as well, for fairness: who keeps asking must not keep the reconciler from its claim.
            if (deleted(id) || !stands(directory.resolve("READY"))) continue;
            Path held = Files.createTempFile("fsdm", null);
            ProcessBuilder process = run(HOLD, held, directory, data.resolve("delete/" + id));
            process.command().addAll(command);
            process.environment().put("FSDM_CHUNK_PATH", directory + "/data");
            process.environment().put("FSDM_CHUNK_ID", id);
            int code = process.start().waitFor();
            if (!Files.deleteIfExists(held)) return code;
        }
        throw new Failure(3, "no available chunk of " + dataset + " holds block " + number);
    }

    static ProcessBuilder run(String script, Path... arguments) {
        List<String> command = new ArrayList<>(List.of("sh", "-c", script, "sh"));
        for (Path argument : arguments) command.add(argument.toString());
        return new ProcessBuilder(command).inheritIO();
    }

    // ------------------------------------------------------------------------------------------------------ the verbs

    int call(List<String> words) throws Failure, IOException, InterruptedException {
        String verb = words.isEmpty() ? "" : words.get(0);
        if (verb.equals("want") && words.size() == 2) want(words.get(1));
        else if (verb.equals("delete") && words.size() == 2 && isId(words.get(1)))
            place("delete", "want", words.get(1), new byte[0]);
        else if (verb.equals("list") && words.size() == 1) list();
        else if (verb.equals("find") && words.size() == 3)
            return hold(words.get(1), words.get(2), List.of("printenv", "FSDM_CHUNK_PATH"));
        else if (verb.equals("hold") && words.size() > 4 && words.get(3).equals("--"))
            return hold(words.get(1), words.get(2), words.subList(4, words.size()));
        else
            throw new Failure(2, "want FILE|-, delete ID, list, find DATASET BLOCK, or hold DATASET BLOCK -- CMD...");
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
