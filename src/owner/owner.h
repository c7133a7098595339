/* What the cloud costs its owner and brings him: assets, their cost a chip-hour, what of it went into whose tokens, and when the money is back. Operations beside the cloud's
 * own (cloud/admin.c), for commands and the admin API: owner.report, owner.asset.*, owner.expense.*, price.suggest, price.compare. Formulae: docs/owner.md. */
#ifndef OWNER_OWNER_H
#define OWNER_OWNER_H

/* Let the books know these operations; before the first is run. */
void owner_operations(void);

#endif
