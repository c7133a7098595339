/* Renders many templates in one process, for test_template.py: a line of JSON in, {"template", "variables"}, and one out: what `unkai template --json` says, or
 * {"refused"}. */
#include "base/clock.h"
#include "base/json.h"
#include "model/template.h"

#include <stdio.h>
#include <stdlib.h>

static int answer(struct buf *to, struct str line, struct error *e) {
    struct json *request = NULL;
    struct template *t = NULL;
    struct rendered r = {0};
    int rc = json_parse(&request, line, e);
    if (rc == 0)
        rc = template_parse(&t, json_as_str(json_get(request, "template")), e);
    if (rc == 0)
        rc = template_render(t, json_get(request, "variables"), NULL, clock_wall_ns(), &r, e);
    if (rc == 0)
        rendered_json(to, &r);
    rendered_free(&r);
    template_free(t);
    json_free(request);
    return rc;
}

int main(void) {
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    while ((n = getline(&line, &room, stdin)) > 0) {
        struct buf out = {0};
        struct error e = {0};
        if (answer(&out, (struct str){line, (size_t)n}, &e) != 0) {
            buf_text(&out, "{\"refused\":");
            json_write_text(&out, e.text);
            buf_text(&out, "}\n");
        }
        fwrite(out.p, 1, out.n, stdout);
        fflush(stdout);
        buf_free(&out);
    }
    free(line);
    return 0;
}
