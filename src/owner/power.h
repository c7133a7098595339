/* Energy that this machine has used, where it measures that itself: RAPL counters of processors and their memory (Linux powercap; root reads them), NVIDIA's of their
 * cards (NVML, looked for when the program runs). What else the machine draws (board, disks, fans, power supplies) no counter knows. */
#ifndef OWNER_POWER_H
#define OWNER_POWER_H

#include <stdbool.h>
#include <stdint.h>

struct power;

/* rapl: the folder of the counters (NULL: /sys/class/powercap); nvml: the library (NULL: libnvidia-ml.so.1). NULL when nothing here can be measured. */
struct power *power_open(const char *rapl, const char *nvml);
void power_close(struct power *p);
int power_counters(const struct power *p);
/* Microjoules since power_open, all counters together. Called at least each minute: RAPL's counters wrap. False: one could not be read. */
bool power_read(struct power *p, int64_t *microjoules);

#endif
