/* Drives an echo server: as many connections as asked for, each sending a line of SIZE bytes and waiting for it to come
 * back, over and over, until COUNT have. One thread and one epoll: in C, so that it is not what limits the server.
 *
 * echo_load PORT CONNECTIONS SIZE COUNT: prints one line of JSON, {"cpu": share of a core, "value": requests a second,
 * "p99": seconds}, and leaves a last connection on which it has sent "quit" and how many seconds it took. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static double cpu(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int dial(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1, sock = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (sock < 0 || connect(sock, (struct sockaddr *)&address, sizeof address) < 0)
        fail("connect");
    setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return sock;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct connection {
    int sock;
    int received;
    double sent;
};

static char *line;
static int size;

static void ask(struct connection *c)
{
    c->received = 0;
    c->sent = now();
    if (send(c->sock, line, size, MSG_NOSIGNAL) != size)
        fail("send");
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    int port = atoi(argv[1]), connections = atoi(argv[2]);
    long count = atol(argv[4]), asked = 0, answered = 0;
    size = atoi(argv[3]);
    line = malloc(size);
    memset(line, 'x', size);
    line[size - 1] = '\n';
    struct connection *all = calloc(connections, sizeof *all);
    double *times = calloc(count, sizeof *times);
    int epoll = epoll_create1(0);
    for (int i = 0; i < connections; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
        all[i].sock = dial(port);
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, all[i].sock, &event) < 0)
            fail("epoll_ctl");
    }
    double start = now(), used = cpu();
    for (int i = 0; i < connections && asked < count; i++, asked++)
        ask(&all[i]);
    while (answered < count) {
        struct epoll_event ready[256];
        int n = epoll_wait(epoll, ready, 256, 20000);
        if (n <= 0)
            fail("epoll_wait");
        for (int i = 0; i < n; i++) {
            struct connection *c = ready[i].data.ptr;
            char buffer[65536];
            ssize_t got = recv(c->sock, buffer, sizeof buffer, 0);
            if (got <= 0)
                fail("recv");
            c->received += got;
            if (c->received < size)
                continue;
            times[answered++] = now() - c->sent;
            if (asked < count) {
                asked++;
                ask(c);
            }
        }
    }
    double seconds = now() - start;
    used = cpu() - used;
    int last = dial(port);
    char quit[32];
    int length = snprintf(quit, sizeof quit, "quit %.6f\n", seconds);
    if (send(last, quit, length, MSG_NOSIGNAL) != length)
        fail("send");
    qsort(times, count, sizeof *times, compare);
    printf("{\"cpu\": %f, \"value\": %f, \"p99\": %f}\n", used / seconds, count / seconds, times[count * 99 / 100]);
    return 0;
}
