/* The table of the owner's operations; see owner.h. */
#include "owner/owner.h"

#include "owner/asset.h"
#include "owner/price.h"
#include "owner/report.h"

void owner_operations(void) {
    static const struct operation_row rows[] = {
        {"owner.report", report_owner, OPERATION_READS},
        {"owner.asset.add", asset_add},
        {"owner.asset.list", asset_list, OPERATION_READS},
        {"owner.asset.retire", asset_retire},
        {"owner.expense.add", expense_add},
        {"owner.expense.list", expense_list, OPERATION_READS},
        {"owner.expense.end", expense_end},
        {"price.suggest", price_suggest},
        {"price.compare", price_compare, OPERATION_READS},
        {NULL},
    };
    admin_add(rows);
}
