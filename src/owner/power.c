/* Counters of energy; see power.h. On a yen's journey: where the bill for electricity begins. */
#include "owner/power.h"

#include <dirent.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_COUNTERS = 64 };

typedef void *nvml_device;

struct counter {
    char path[400];       /* of RAPL; "": of a card */
    nvml_device device;   /* of NVML */
    uint64_t last, range; /* as read, in the counter's unit; range: where it wraps, 0: never */
};

struct power {
    struct counter counter[MOST_COUNTERS];
    int counters;
    int64_t microjoules;
    void *nvml;
    int (*nvml_energy)(nvml_device device, unsigned long long *millijoules);
};

static bool read_number(const char *path, uint64_t *out) {
    unsigned long long value;
    FILE *f = fopen(path, "re");
    bool ok = f != NULL && fscanf(f, "%llu", &value) == 1;
    if (f != NULL)
        fclose(f);
    if (ok)
        *out = value;
    return ok;
}

static bool read_counter(const struct power *p, const struct counter *c, uint64_t *out) {
    unsigned long long millijoules = 0;
    if (c->device == NULL || p->nvml_energy == NULL)
        return read_number(c->path, out);
    bool ok = p->nvml_energy(c->device, &millijoules) == 0;
    *out = millijoules;
    return ok;
}

static void add(struct power *p, struct counter *c) {
    if (p->counters < MOST_COUNTERS && read_counter(p, c, &c->last))
        p->counter[p->counters++] = *c;
}

/* A processor's package and the memory beside it. Cores and the like are parts of a package, "psys" holds packages again. */
static bool counts(const char *folder) {
    char path[400], name[32] = "";
    snprintf(path, sizeof path, "%s/name", folder);
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return false;
    bool ok = fscanf(f, "%31s", name) == 1;
    fclose(f);
    return ok && (strncmp(name, "package", 7) == 0 || strcmp(name, "dram") == 0);
}

static void find_rapl(struct power *p, const char *root) {
    DIR *folder = opendir(root);
    for (const struct dirent *d; folder != NULL && (d = readdir(folder)) != NULL;) {
        struct counter c = {.device = NULL};
        char path[300];
        /* "intel-rapl-mmio:0" counts the same package another time. */
        if (strncmp(d->d_name, "intel-rapl:", 11) != 0 ||
            snprintf(path, sizeof path, "%s/%s", root, d->d_name) >= (int)sizeof path || !counts(path))
            continue;
        snprintf(c.path, sizeof c.path, "%s/max_energy_range_uj", path);
        if (!read_number(c.path, &c.range))
            continue;
        snprintf(c.path, sizeof c.path, "%s/energy_uj", path);
        add(p, &c);
    }
    if (folder != NULL)
        closedir(folder);
}

static void find_cards(struct power *p, const char *library) {
    int (*init)(void), (*count)(unsigned *), (*device)(unsigned, nvml_device *);
    unsigned n = 0;
    p->nvml = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (p->nvml == NULL)
        return;
    *(void **)&init = dlsym(p->nvml, "nvmlInit_v2");
    *(void **)&count = dlsym(p->nvml, "nvmlDeviceGetCount_v2");
    *(void **)&device = dlsym(p->nvml, "nvmlDeviceGetHandleByIndex_v2");
    *(void **)&p->nvml_energy = dlsym(p->nvml, "nvmlDeviceGetTotalEnergyConsumption");
    if (init == NULL || count == NULL || device == NULL || p->nvml_energy == NULL || init() != 0 ||
        count(&n) != 0)
        return;
    for (unsigned i = 0; i < n; i++) {
        struct counter c = {.range = 0};
        if (device(i, &c.device) == 0 && c.device != NULL)
            add(p, &c);
    }
}

struct power *power_open(const char *rapl, const char *nvml) {
    struct power *p = calloc(1, sizeof *p);
    if (p == NULL)
        return NULL;
    find_rapl(p, rapl != NULL ? rapl : "/sys/class/powercap");
    find_cards(p, nvml != NULL ? nvml : "libnvidia-ml.so.1");
    if (p->counters > 0)
        return p;
    power_close(p);
    return NULL;
}

/* The library stays: it has threads of its own, and ends with the program. */
void power_close(struct power *p) {
    free(p);
}

int power_counters(const struct power *p) {
    return p->counters;
}

bool power_read(struct power *p, int64_t *microjoules) {
    bool all = true;
    for (int i = 0; i < p->counters; i++) {
        struct counter *c = &p->counter[i];
        uint64_t now;
        if (!read_counter(p, c, &now)) {
            all = false;
            continue;
        }
        uint64_t more = now >= c->last ? now - c->last : now + (c->range > c->last ? c->range - c->last : 0);
        p->microjoules += (int64_t)(c->device != NULL ? more * 1000 : more);
        c->last = now;
    }
    *microjoules = p->microjoules;
    return all;
}
