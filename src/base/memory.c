/* What /proc and the control groups say; see memory.h. */
#include "base/memory.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH = 4096 };

/* The number in a file, or that which stands behind `key` in it; SIZE_MAX: there is none ("max"). */
static size_t number_in(const char *path, const char *key) {
    char line[256];
    size_t n = SIZE_MAX;
    FILE *f = fopen(path, "re");
    while (f != NULL && n == SIZE_MAX && fgets(line, sizeof line, f) != NULL) {
        unsigned long long x;
        if (strncmp(line, key, strlen(key)) == 0 && sscanf(line + strlen(key), "%llu", &x) == 1)
            n = (size_t)x;
    }
    if (f != NULL)
        fclose(f);
    return n;
}

/* The least limit of the group and those above it. A container may see its own group as the root, under a path that it cannot see. */
static size_t group_limit(const char *root, const char *folder, char *group, const char *file) {
    size_t least = SIZE_MAX;
    for (;;) {
        char path[PATH + 64];
        if ((size_t)snprintf(path, sizeof path, "%s/sys/fs/cgroup%s%s/%s", root, folder, group, file) <
            sizeof path) {
            size_t n = number_in(path, "");
            least = n < least ? n : least;
        }
        char *slash = strrchr(group, '/');
        if (slash == NULL)
            return least;
        *slash = 0;
    }
}

/* A line of /proc/self/cgroup: number:controllers:path; v2 has number 0 and no controllers. */
static size_t line_limit(const char *root, char *line) {
    char *names = strchr(line, ':'), *group = names != NULL ? strchr(names + 1, ':') : NULL;
    if (group == NULL)
        return SIZE_MAX;
    *group++ = 0;
    group[strcspn(group, "\n")] = 0;
    if (names[1] == 0)
        return group_limit(root, "", group, "memory.max");
    for (char *save, *name = strtok_r(names + 1, ",", &save); name != NULL; name = strtok_r(NULL, ",", &save))
        if (strcmp(name, "memory") == 0)
            return group_limit(root, "/memory", group, "memory.limit_in_bytes");
    return SIZE_MAX;
}

size_t memory_allowed(const char *root) {
    char path[PATH + 64], line[PATH];
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    size_t least = number_in(path, "MemAvailable:");
    least = least > SIZE_MAX / 1024 ? SIZE_MAX : least * 1024;
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *f = fopen(path, "re");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        size_t n = line_limit(root, line);
        least = n < least ? n : least;
    }
    if (f != NULL)
        fclose(f);
    return least;
}
