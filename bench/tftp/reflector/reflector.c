/* The least that a TFTP server can do: it answers each ACK with the next window out of memory, knows no client, no
 * timer and no file, and batches all system calls. What it reaches on this machine is what the load generator can
 * drive, so a figure near it would be the generator's and not the server's.
 *
 * Usage: reflector PORT PATTERN. The size stands in the name that is asked for ("f1048576"); block and window size are
 * those of the last request. No numbers beyond 65535. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { BATCH = 64, MOST_BYTES = 65507 };

static unsigned char *pattern, *file;
static uint64_t period, size = UINT64_MAX, blocks;
static unsigned block = 512, window = 1;

static struct mmsghdr in[BATCH], out[BATCH];
static struct iovec in_parts[BATCH], out_parts[BATCH];
static struct sockaddr_in from[BATCH];
static unsigned char requests[BATCH][600], replies[BATCH][64];
static _Alignas(struct cmsghdr) unsigned char control[BATCH][CMSG_SPACE(sizeof(uint16_t))];

/* The whole file, each block behind its header. */
static void lay_out(uint64_t new_size, unsigned new_block) {
    if (new_size == size && new_block == block) return;
    size = new_size;
    block = new_block;
    blocks = size / block + 1;
    file = realloc(file, size + blocks * 4);
    for (uint64_t n = 0, at = 0; n < blocks; n++) {
        uint64_t start = n * block, length = size - start < block ? size - start : block;
        memcpy(file + at, (unsigned char[]){0, 3, (n + 1) >> 8 & 255, (n + 1) & 255}, 4);
        for (uint64_t i = 0; i < length; i++) file[at + 4 + i] = pattern[(start + i) % period];
        at += 4 + length;
    }
}

static unsigned number_after(const unsigned char *data, unsigned length, const char *name, unsigned otherwise) {
    const unsigned char *found = memmem(data, length, name, strlen(name) + 1);
    return found ? (unsigned)atoi((const char *)found + strlen(name) + 1) : otherwise;
}

static unsigned accept_request(unsigned i, unsigned length) {
    unsigned char *data = requests[i], *reply = replies[i];
    data[length] = 0;
    if (data[2] != 'f') { /* the probe of who starts us */
        memcpy(reply, "\0\3\0\1x", 5);
        return 5;
    }
    window = number_after(data, length, "windowsize", 1);
    lay_out(strtoull((char *)data + 3, NULL, 10), number_after(data, length, "blksize", 512));
    if (window * (block + 4) > MOST_BYTES) window = MOST_BYTES / (block + 4);
    unsigned n = 2 + sprintf((char *)reply + 2, "blksize%c%u", 0, block) + 1;
    reply[0] = 0;
    reply[1] = 6;
    return window > 1 ? n + sprintf((char *)reply + n, "windowsize%c%u", 0, window) + 1 : n;
}

static void answer(int fd, unsigned got) {
    unsigned count = 0;
    for (unsigned i = 0; i < got; i++) {
        unsigned length = in[i].msg_len, n = count;
        struct msghdr *header = &out[n].msg_hdr;
        *header = (struct msghdr){.msg_name = &from[i], .msg_namelen = sizeof from[i], .msg_iov = &out_parts[n], .msg_iovlen = 1};
        if (length < 4 || length >= sizeof requests[i]) continue;
        if (requests[i][1] == 1) {
            out_parts[n] = (struct iovec){replies[i], accept_request(i, length)};
        } else if (requests[i][1] == 4 && file) {
            uint64_t acked = requests[i][2] << 8 | requests[i][3], stride = block + 4;
            if (acked >= blocks) continue;
            uint64_t end = acked + window < blocks ? (acked + window) * stride : size + blocks * 4;
            out_parts[n] = (struct iovec){file + acked * stride, end - acked * stride};
            if (end - acked * stride > stride) {
                header->msg_control = control[n];
                header->msg_controllen = sizeof control[n];
                struct cmsghdr *m = CMSG_FIRSTHDR(header);
                *m = (struct cmsghdr){CMSG_LEN(sizeof(uint16_t)), IPPROTO_UDP, UDP_SEGMENT};
                memcpy(CMSG_DATA(m), &(uint16_t){stride}, sizeof(uint16_t));
            }
        } else {
            continue;
        }
        count++;
    }
    for (unsigned sent = 0; sent < count;) {
        int n = sendmmsg(fd, out + sent, count - sent, 0);
        sent += n > 0 ? n : 1;
    }
}

int main(int argc, char **argv) {
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_DGRAM, 0), room = 64 << 20;
    FILE *given = argc == 3 ? fopen(argv[2], "rb") : NULL;
    if (!given) return 2;
    pattern = malloc(1 << 20);
    period = fread(pattern, 1, 1 << 20, given);
    local.sin_port = htons(atoi(argv[1]));
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
    if (!period || bind(fd, (struct sockaddr *)&local, sizeof local)) return 1;
    for (;;) {
        for (unsigned i = 0; i < BATCH; i++) {
            in_parts[i] = (struct iovec){requests[i], sizeof requests[i] - 1};
            in[i].msg_hdr = (struct msghdr){.msg_name = &from[i], .msg_namelen = sizeof from[i], .msg_iov = &in_parts[i], .msg_iovlen = 1};
        }
        int got = recvmmsg(fd, in, BATCH, MSG_WAITFORONE, NULL);
        if (got > 0) answer(fd, got);
    }
}
