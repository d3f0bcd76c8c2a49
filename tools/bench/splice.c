/* What moving the bytes costs at the least: PORT DIRECTORY THREADS LIST, where LIST has a path of the server a line.
 * Each thread takes the next path and moves the body through a pipe into DIRECTORY; connections are kept. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_PATHS = 100000, HEAD = 8192, PIPE = 1 << 20 };
static char *paths[MAX_PATHS];
static int count, port;
static const char *directory;
static atomic_int next_path;

static void must(int ok, const char *what) {
    if (!ok) { perror(what); exit(1); }
}

static long long head(int sock, const char *path) { /* asks, and reads the answer up to its body */
    char text[HEAD], *end = NULL, *length;
    int size = snprintf(text, sizeof text, "GET /%s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", path);
    must(send(sock, text, size, MSG_NOSIGNAL) == size, "send");
    while (end == NULL) {
        ssize_t seen = recv(sock, text, HEAD - 1, MSG_PEEK);
        must(seen > 0, "recv");
        text[seen] = 0;
        end = strstr(text, "\r\n\r\n");
    }
    must(recv(sock, text, end + 4 - text, 0) == end + 4 - text, "recv");
    length = strstr(text, "Content-Length: ");
    must(strncmp(text, "HTTP/1.1 200", 12) == 0 && length != NULL, path);
    return atoll(length + 16);
}

static void *work(void *unused) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int sock = socket(AF_INET, SOCK_STREAM, 0), ends[2];
    must(connect(sock, (struct sockaddr *)&to, sizeof to) == 0, "connect");
    must(pipe(ends) == 0, "pipe");
    fcntl(ends[1], F_SETPIPE_SZ, PIPE);
    for (int at; (at = atomic_fetch_add(&next_path, 1)) < count;) {
        char name[HEAD];
        snprintf(name, sizeof name, "%s/%s", directory, paths[at]);
        int file = open(name, O_WRONLY | O_CREAT | O_EXCL, 0644);
        must(file >= 0, name);
        for (long long left = head(sock, paths[at]); left > 0;) {
            ssize_t came = splice(sock, NULL, ends[1], NULL, left < PIPE ? left : PIPE, SPLICE_F_MOVE);
            must(came > 0, "splice");
            left -= came;
            while (came > 0) {
                ssize_t went = splice(ends[0], NULL, file, NULL, came, SPLICE_F_MOVE);
                must(went > 0, "splice");
                came -= went;
            }
        }
        close(file);
    }
    return unused;
}

int main(int argc, char **argv) {
    must(argc == 5, "PORT DIRECTORY THREADS LIST");
    port = atoi(argv[1]);
    directory = argv[2];
    int threads = atoi(argv[3]);
    FILE *list = fopen(argv[4], "r");
    must(list != NULL && threads > 0 && threads <= 64, argv[4]);
    char line[HEAD];
    while (count < MAX_PATHS && fgets(line, sizeof line, list)) {
        line[strcspn(line, "\n")] = 0;
        paths[count++] = strdup(line);
    }
    pthread_t running[64];
    for (int i = 0; i < threads; i++) must(pthread_create(&running[i], NULL, work, NULL) == 0, "pthread_create");
    for (int i = 0; i < threads; i++) pthread_join(running[i], NULL);
    return 0;
}
