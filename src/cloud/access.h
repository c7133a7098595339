/* Who may administer the cloud: keys of their own, never a tenant's, each with a role; and the audit log of what they did. */
#ifndef CLOUD_ACCESS_H
#define CLOUD_ACCESS_H

#include "base/json.h"
#include "cloud/cloud.h"

/* Bits, so that a table can say which roles may do something. 0 is nobody. */
enum role { ROLE_NOBODY = 0, ROLE_OWNER = 1, ROLE_OPERATOR = 2, ROLE_BILLING = 4, ROLE_READER = 8 };
const char *role_name(enum role role); /* "owner", "operator", "billing", "read-only" */
enum role role_named(struct str name); /* ROLE_NOBODY when there is no such role */

struct actor {
    int64_t
        key; /* the admin key's; 0: a command on this machine, which may do what the data folder's owner may */
    enum role role;
};

/* token: what follows "Bearer "; from: as for cloud_authenticate. ERR_AUTH: it is no valid admin key; ERR_BUSY: too many were not, from there. Constant time in the secret;
 * memory only. */
int access_authenticate(struct cloud *c, struct str token, const struct address *from, struct actor *out,
                        struct error *e);
/* Whether any admin key is valid now: until then there is no admin API. */
bool access_open(struct cloud *c);

/* Appends the tenant's name. False: there is no such tenant. */
bool access_tenant_name(struct cloud *c, int64_t tenant, struct buf *name);

/* The operations of the table in admin.c. */
bool access_knows(const char *operation);
/* Carry one out: request is {"op": NAME, arguments}; appends one JSON value. Blocks until it is durable, so never call it from a loop. A change is written to
 * the audit log in the same transaction; one that is refused, in one of its own. */
int access_run(struct cloud *c, const struct actor *who, const struct json *request, struct buf *out,
               struct error *e);
/* The actor's role does not allow the request: write that down. Blocks. */
void access_refused(struct cloud *c, const struct actor *who, const struct json *request);

#endif
