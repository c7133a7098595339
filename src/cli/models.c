/* unkai models: the files in the data folder's models/. A name stands for models/NAME.gguf and cannot climb out of that folder; what is fetched is checked before it
 * gets its name. */
#include "cli/cli.h"
#include "model/model.h"

#include "base/hash.h"
#include "base/json.h"

#include <curl/curl.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_FORMATS = 16, MOST_NAME = 100 };

/* What is said about one file. */
struct listing {
    char name[MOST_NAME + 8];
    uint64_t bytes, parameters;
    struct str arch;
    struct {
        const struct format *format;
        uint64_t tensors, bytes;
    } format[MOST_FORMATS];
    size_t formats;
};

static int check_name(struct str name, struct error *e) {
    bool good = name.n > 0 && name.n <= MOST_NAME && name.p[0] != '.' && name.p[0] != '-';
    for (size_t i = 0; good && i < name.n; i++)
        good = (name.p[i] >= 'a' && name.p[i] <= 'z') || (name.p[i] >= 'A' && name.p[i] <= 'Z') ||
               (name.p[i] >= '0' && name.p[i] <= '9') || (name.p[i] != 0 && strchr("._-", name.p[i]) != NULL);
    return good ? 0
                : error_set(e, ERR_INVALID, "'%.*s' is no model name: letters, digits and . _ - only",
                            (int)(name.n < 60 ? name.n : 60), name.p);
}

static void folder_path(char *out, size_t size) {
    snprintf(out, size, "%s/models", cli_home());
}

/* ---- list and show ---- */

static void count_formats(struct listing *l, const struct gguf *g) {
    gguf_str(g, "general.architecture", &l->arch);
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        size_t f = 0;
        while (f < l->formats && l->format[f].format != t->format)
            f++;
        if (f == MOST_FORMATS)
            continue;
        l->formats += f == l->formats;
        l->format[f].format = t->format;
        l->format[f].tensors++;
        l->format[f].bytes += t->bytes;
        l->parameters += t->dim[0] * t->dim[1] * t->dim[2] * t->dim[3];
    }
}

/* The format that most of the bytes have. */
static const char *main_format(const struct listing *l) {
    size_t best = 0;
    for (size_t f = 1; f < l->formats; f++)
        if (l->format[f].bytes > l->format[best].bytes)
            best = f;
    return l->formats ? l->format[best].format->name : "-";
}

/* open: the JSON object is not closed, more members follow. */
static void print_listing(const struct listing *l, bool as_json, bool first, bool open) {
    struct buf out = {0};
    if (!as_json) {
        printf("%-40s %10.1f MiB %8.1f M parameters  %-10.*s %s\n", l->name, (double)l->bytes / (1 << 20),
               (double)l->parameters / 1e6, (int)l->arch.n, l->arch.p, main_format(l));
        return;
    }
    buf_text(&out, first ? "{\"name\":" : ",{\"name\":");
    json_write_text(&out, l->name);
    buf_printf(&out, ",\"bytes\":%llu,\"parameters\":%llu,\"format\":\"%s\",\"architecture\":",
               (unsigned long long)l->bytes, (unsigned long long)l->parameters, main_format(l));
    json_write_str(&out, l->arch);
    buf_text(&out, open ? "" : "}");
    fputs(out.p ? out.p : "", stdout);
    buf_free(&out);
}

static int list(bool as_json) {
    char folder[4100], path[4400];
    bool first = true;
    folder_path(folder, sizeof folder);
    DIR *d = opendir(folder);
    if (as_json)
        putchar('[');
    for (struct dirent *f; d != NULL && (f = readdir(d)) != NULL;) {
        struct listing l = {0};
        struct gguf *g;
        struct error e = {0};
        size_t n = strlen(f->d_name);
        if (n < 6 || n > MOST_NAME + 5 || strcmp(f->d_name + n - 5, ".gguf") != 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, f->d_name);
        snprintf(l.name, sizeof l.name, "%.*s", (int)n - 5, f->d_name);
        if (gguf_open(&g, path, &e) != 0) {
            fprintf(stderr, "unkai models: %s\n", e.text);
            continue;
        }
        l.bytes = gguf_bytes(g).n;
        count_formats(&l, g);
        print_listing(&l, as_json, first, false);
        first = false;
        gguf_close(g);
    }
    if (d != NULL)
        closedir(d);
    if (as_json)
        puts("]");
    else if (first)
        fprintf(stderr, "there is no model in %s yet; unkai models pull fetches one\n", folder);
    return 0;
}

static void print_traits(const struct traits *t, bool as_json) {
    const struct {
        const char *name;
        uint64_t value;
    } number[] = {{"layers", t->layers},     {"width", t->width},       {"heads", t->heads},
                  {"kv_heads", t->kv_heads}, {"head_dim", t->head_dim}, {"ffn_width", t->ffn_width},
                  {"vocab", t->vocab},       {"context", t->context},   {"window", t->window}};
    for (size_t i = 0; i < sizeof number / sizeof *number; i++)
        printf(as_json ? ",\"%s\":%llu" : "  %-16s %llu\n", number[i].name,
               (unsigned long long)number[i].value);
}

static int show(const char *name, bool as_json, struct error *e) {
    char path[4400], digest[HASH_HEX + 1] = "";
    struct model *m;
    struct listing l = {0};
    struct str source;
    int rc = cli_model_path(path, sizeof path, name, e);
    if (rc != 0 || (rc = model_open(&m, path, e)) != 0)
        return rc;
    snprintf(l.name, sizeof l.name, "%s", name);
    l.bytes = gguf_bytes(m->gguf).n;
    count_formats(&l, m->gguf);
    if (gguf_str(m->gguf, "tokenizer.chat_template", &source)) {
        struct hash h = hash_sha256(source);
        hash_hex(&h, digest);
    }
    print_listing(&l, as_json, true, true);
    print_traits(&m->traits, as_json);
    const char *usable = m->chat != NULL ? "usable" : digest[0] ? "broken" : "none";
    printf(as_json ? ",\"tokenizer\":\"%s\",\"pre\":\"%s\",\"template\":\"%s\",\"template_sha256\":\"%s\"}\n"
                   : "  tokenizer        %s %s\n  template         %s %s\n",
           tokenizer_kind(m->tokenizer), tokenizer_pre(m->tokenizer), usable, digest);
    for (size_t f = 0; !as_json && f < l.formats; f++)
        printf("  %-16s %llu tensors, %.1f MiB\n", l.format[f].format->name,
               (unsigned long long)l.format[f].tensors, (double)l.format[f].bytes / (1 << 20));
    model_close(m);
    return 0;
}

/* ---- pull and remove ---- */

static int progress(void *context, curl_off_t total, curl_off_t now, curl_off_t up_total, curl_off_t up) {
    if (total > 0 && isatty(STDERR_FILENO) == 1)
        fprintf(stderr, "\r%.1f of %.1f MiB", (double)now / (1 << 20), (double)total / (1 << 20));
    return 0;
}

enum { HTTP_RANGE_NOT_SATISFIABLE = 416 };

/* Fetch url to the end of the file at path: what an earlier attempt brought is kept. *again: the server sends whole files only. */
static int fetch(const char *url, const char *path, bool *again, struct error *e) {
    FILE *file = fopen(path, "ab");
    CURL *curl = curl_easy_init();
    char text[CURL_ERROR_SIZE] = "";
    int rc = 0;
    if (file == NULL || curl == NULL) {
        rc = error_set(e, ERR_IO, "cannot write %.200s: %s", path, strerror(errno));
    } else {
        fseeko(file, 0, SEEK_END);
        curl_easy_setopt(curl, CURLOPT_URL, url);
        curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https,file");
        curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, "https");
        curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L);
        curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
        curl_easy_setopt(curl, CURLOPT_RESUME_FROM_LARGE, (curl_off_t)ftello(file));
        curl_easy_setopt(curl, CURLOPT_WRITEDATA, file);
        curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
        curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, progress);
        curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, text);
        curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
        curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, 60L);
        CURLcode code = curl_easy_perform(curl);
        long status = 0;
        curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
        *again = code == CURLE_RANGE_ERROR;
        /* Nothing is behind what we have: it was all here, and check_fetched says whether it is right. */
        bool some = ftello(file) > 0;
        if (code != CURLE_OK && status != HTTP_RANGE_NOT_SATISFIABLE)
            rc = error_set(e, ERR_IO, "cannot fetch the model: %s%s",
                           text[0] ? text : curl_easy_strerror(code),
                           some ? "; the same command goes on where this one stopped" : "");
        if (rc != 0 && !some)
            unlink(path);
    }
    curl_easy_cleanup(curl);
    if (file != NULL && fclose(file) != 0 && rc == 0)
        rc = error_set(e, ERR_IO, "cannot write %.200s: %s", path, strerror(errno));
    return rc;
}

/* Nothing gets a name before it was read as a model and, when a digest is given, is the one that was meant. */
static int check_fetched(const char *path, const char *sha256, char digest[HASH_HEX + 1], struct error *e) {
    struct gguf *g;
    struct hash h;
    int rc = hash_file(&h, path, e);
    if (rc != 0)
        return rc;
    hash_hex(&h, digest);
    if (sha256 != NULL && strcmp(sha256, digest) != 0)
        rc =
            error_set(e, ERR_CORRUPT, "the file's SHA-256 is %s, not the one given; it was not kept", digest);
    else if ((rc = gguf_open(&g, path, e)) == 0)
        gguf_close(g);
    if (rc != 0)
        unlink(path);
    return rc;
}

/* The last part of the URL's path, without .gguf. */
static struct str name_of(const char *url) {
    struct str s = {url, strcspn(url, "?#")};
    for (size_t i = s.n; i > 0; i--)
        if (s.p[i - 1] == '/') {
            s = (struct str){s.p + i, s.n - i};
            break;
        }
    return s.n > 5 && memcmp(s.p + s.n - 5, ".gguf", 5) == 0 ? (struct str){s.p, s.n - 5} : s;
}

/* What comes from another address under the same name is another file's part. */
static void part_path(char *out, size_t size, const char *folder, struct str name, const char *url) {
    struct hash h = hash_sha256(str_from(url));
    char digest[HASH_HEX + 1];
    hash_hex(&h, digest);
    snprintf(out, size, "%s/%.*s.%.8s.part", folder, (int)name.n, name.p, digest);
}

static int pull(const char *url, const char *given, const char *sha256, bool as_json, struct error *e) {
    char folder[4100], part[4400], path[4400], digest[HASH_HEX + 1];
    struct str name = given != NULL ? str_from(given) : name_of(url);
    int rc = check_name(name, e);
    if (rc != 0)
        return rc;
    if (strstr(url, "://") == NULL)
        return error_set(e, ERR_INVALID, "'%.200s' is no URL; a file of this machine is file:///PATH", url);
    if (sha256 != NULL && (strlen(sha256) != HASH_HEX || strspn(sha256, "0123456789abcdef") != HASH_HEX))
        return error_set(e, ERR_INVALID, "--sha256 wants 64 small hexadecimal digits");
    folder_path(folder, sizeof folder);
    mkdir(folder, 0700);
    part_path(part, sizeof part, folder, name, url);
    snprintf(path, sizeof path, "%s/%.*s.gguf", folder, (int)name.n, name.p);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    bool again = false;
    rc = fetch(url, part, &again, e);
    if (again && unlink(part) == 0)
        rc = fetch(url, part, &again, e);
    if (rc == 0 && (rc = check_fetched(part, sha256, digest, e)) == 0 && rename(part, path) != 0)
        rc = error_set(e, ERR_IO, "cannot name the file %.200s: %s", path, strerror(errno));
    curl_global_cleanup();
    if (rc == 0) {
        if (as_json) /* a checked name needs no escapes */
            printf("{\"name\":\"%.*s\",\"sha256\":\"%s\"}\n", (int)name.n, name.p, digest);
        else
            printf("%s\n", digest);
        fprintf(stderr, "%s is here\n", path);
    }
    return rc;
}

static int remove_model(const char *name, struct error *e) {
    char folder[4100], path[4400];
    int rc = check_name(str_from(name), e);
    if (rc != 0)
        return rc;
    folder_path(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/%s.gguf", folder, name);
    return unlink(path) == 0 ? 0
                             : error_set(e, ERR_NOT_FOUND, "cannot remove %.200s: %s", path, strerror(errno));
}

int cmd_models(int argc, char **argv) {
    int args;
    bool as_json = false;
    const char *sha256 = NULL, *name = NULL;
    struct error e = {0};
    const struct option options[] = {
        {"sha256", OPTION_TEXT, &sha256, "HEX", "pull: the digest that the file must have"},
        {"name", OPTION_TEXT, &name, "NAME", "pull: what to call it (the last part of the URL)"},
        {"json", OPTION_FLAG, &as_json, NULL, "print JSON"},
        {NULL},
    };
    int rc = cli_options(argc, argv, &args, options, "[list | show NAME | pull URL | remove NAME]",
                         "Models are GGUF files in the data folder's models/. A pull that was cut off goes "
                         "on where it stopped; a\n"
                         "file that cannot be read as a model, or has another digest, is not kept.");
    if (rc != 0)
        return rc > 0 ? EXIT_OK : EXIT_USAGE;
    const char *action = args > 0 ? argv[1] : "list";
    if (strcmp(action, "list") == 0 && args <= 1)
        rc = list(as_json);
    else if (strcmp(action, "show") == 0 && args == 2)
        rc = show(argv[2], as_json, &e);
    else if (strcmp(action, "pull") == 0 && args == 2)
        rc = pull(argv[2], name, sha256, as_json, &e);
    else if (strcmp(action, "remove") == 0 && args == 2)
        rc = remove_model(argv[2], &e);
    else {
        fprintf(stderr,
                "unkai models: wants list, show NAME, pull URL or remove NAME; see unkai models --help\n");
        return EXIT_USAGE;
    }
    return rc == 0 ? EXIT_OK : cli_fail("models", &e);
}
