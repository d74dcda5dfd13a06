/* DHCP load: machines that boot, as whole frames; every reply is checked. Prints one JSON object.
 *
 * load --packets DIRECTORY --device IF --server A --server-mac M --files NAME,NAME --kind KIND
 *      KIND bios, uefi (DISCOVERs on 67), uefi-4011, ipxe-4011 (REQUESTs on 4011):
 *        [--outstanding N] [--bursts] [--devices N] [--seconds S] [--warmup S] [--count N] [--patience MS] [--limit S]
 *      KIND replay: [--machines N] [--spread S] [--collect MS] [--size BYTES] [--limit S]
 *
 * A time box (--seconds, counted after --warmup), or --count replies. What is lost, late or wrong counts always. */
#include "load.h"
#include <arpa/inet.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct settings settings = {.devices = MOST_DEVICES, .outstanding = 1, .machines = 1000, .collect_ms = 3800,
                            .limit = 60, .spread = 1, .patience_ns = 1000000000ll, .files = "", .kind = ""};
struct counts counts;

int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

/* The first thing that went wrong is told. */
void remember(const char *text) {
    if (!counts.error[0]) snprintf(counts.error, sizeof counts.error, "%s", text);
}

void complain(const char *text) {
    counts.bad++;
    remember(text);
}

static const struct option known[] = {
    {"packets", 1, 0, 'p'},  {"device", 1, 0, 'd'},  {"server", 1, 0, 's'},      {"server-mac", 1, 0, 'm'},
    {"files", 1, 0, 'f'},    {"kind", 1, 0, 'k'},    {"outstanding", 1, 0, 'o'}, {"devices", 1, 0, 'n'},
    {"seconds", 1, 0, 'S'},  {"warmup", 1, 0, 'W'},  {"count", 1, 0, 'c'},       {"patience", 1, 0, 'P'},
    {"limit", 1, 0, 'L'},    {"machines", 1, 0, 'M'}, {"spread", 1, 0, 'r'},     {"collect", 1, 0, 'C'},
    {"size", 1, 0, 'z'},     {"bursts", 0, 0, 'b'},  {0}};

static int read_mac(const char *text, unsigned char *mac) {
    return sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", mac, mac + 1, mac + 2, mac + 3, mac + 4, mac + 5) == 6;
}

static int read_option(int letter) {
    struct in_addr address;
    switch (letter) {
    case 'p': settings.packets = optarg; return 1;
    case 'd': settings.device = optarg; return 1;
    case 's':
        if (inet_pton(AF_INET, optarg, &address) != 1) return 0;
        settings.server = ntohl(address.s_addr);
        return 1;
    case 'm': return read_mac(optarg, settings.server_mac);
    case 'f': settings.files = optarg; return 1;
    case 'k': settings.kind = optarg; return 1;
    case 'o': settings.outstanding = atoi(optarg); return settings.outstanding >= 1;
    case 'n': settings.devices = atoi(optarg); return settings.devices >= 1 && settings.devices <= MOST_DEVICES;
    case 'S': settings.seconds = atof(optarg); return 1;
    case 'W': settings.warmup = atof(optarg); return 1;
    case 'c': settings.count = strtoull(optarg, 0, 10); return 1;
    case 'P': settings.patience_ns = atoll(optarg) * 1000000ll; return 1;
    case 'L': settings.limit = atof(optarg); return 1;
    case 'M': settings.machines = atoi(optarg); return settings.machines >= 1 && settings.machines <= MOST_DEVICES;
    case 'r': settings.spread = atof(optarg); return 1;
    case 'C': settings.collect_ms = atoi(optarg); return 1;
    case 'z': settings.size = strtoull(optarg, 0, 10); return 1;
    case 'b': settings.bursts = 1; return 1;
    default: return 0;
    }
}

static void print(int replay) {
    counts.overrun = wire_overrun();
    printf("{\"asked\": %llu, \"all_replies\": %llu, \"all_bytes\": %llu, \"lost\": %llu, \"late\": %llu, "
           "\"strays\": %llu, \"bad\": %llu, \"failed\": %llu, \"unfinished\": %llu, \"unsent\": %llu, "
           "\"overrun\": %llu, \"named_file\": %llu, \"without_43\": %llu, \"menus\": %llu, \"error\": \"%s\"",
           (unsigned long long)counts.asked, (unsigned long long)counts.all_replies,
           (unsigned long long)counts.all_bytes, (unsigned long long)counts.lost, (unsigned long long)counts.late,
           (unsigned long long)counts.strays, (unsigned long long)counts.bad, (unsigned long long)counts.failed,
           (unsigned long long)counts.unfinished, (unsigned long long)counts.unsent,
           (unsigned long long)counts.overrun, (unsigned long long)counts.named_file,
           (unsigned long long)counts.without_43, (unsigned long long)counts.menus, counts.error);
    if (replay) machines_print();
    else offers_print();
    printf("}\n");
}

int main(int argc, char **argv) {
    static const struct { const char *name; enum packet packet; } kinds[] = {
        {"bios", BIOS_DISCOVER}, {"uefi", UEFI_DISCOVER}, {"uefi-4011", UEFI_BOOT}, {"ipxe-4011", IPXE_BOOT}};
    for (int letter; (letter = getopt_long(argc, argv, "", known, NULL)) != -1;)
        if (!read_option(letter)) {
            fprintf(stderr, "load: an option is unknown or its value is unusable; see the top of main.c\n");
            return 2;
        }
    if (!settings.packets || !settings.device || !settings.server || settings.outstanding > settings.devices) return 2;
    frame_open();
    wire_open();
    if (!strcmp(settings.kind, "replay")) {
        machines_run();
        print(1);
        return 0;
    }
    for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(settings.kind, kinds[i].name)) {
            offers_run(kinds[i].packet);
            print(0);
            return 0;
        }
    fprintf(stderr, "load: no kind %s\n", settings.kind);
    return 2;
}
