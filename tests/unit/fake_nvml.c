/* What owner/power.c asks of NVIDIA's library, from two cards that are made up: each reading of the first finds a joule more, of the third two. The
 * second is too old to count. */

int nvmlInit_v2(void);
int nvmlDeviceGetCount_v2(unsigned *count);
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device);
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *out);

int nvmlInit_v2(void) {
    return 0;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = 3;
    return 0;
}

static struct card {
    int joules;
    unsigned long long millijoules;
} card[3] = {{1, 7000}, {0, 0}, {2, 9000}};

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    *device = &card[index];
    return 0;
}

int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *out) {
    struct card *c = device;
    *out = c->millijoules += 1000ull * (unsigned)c->joules;
    return c->joules == 0 ? 3 /* NVML_ERROR_NOT_SUPPORTED */ : 0;
}
