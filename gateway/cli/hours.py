"""What was spent lately, for forecasts: out of the hourly sums, wherever the logs are."""

from collections.abc import Sequence

from ...config.budget import Budget, BudgetKind
from ..store import Store
from ..store.spending import groups_of_tokens, spent_lately


async def spent_by_budgets(store: Store, hours: Store, found: Sequence[Budget], now_ms: int) -> dict[int, int]:
    """By budget, what its subject spent in the last 7 days. Of a group: what the keys spent that are of it by now."""
    kinds = {budget.kind for budget in found}
    lately: dict[tuple[BudgetKind, str], int] = {}
    if BudgetKind.USER in kinds:
        for id, quota in (await spent_lately(hours, "user_id", now_ms)).items():
            lately[BudgetKind.USER, str(id)] = quota
    if kinds & {BudgetKind.TOKEN, BudgetKind.GROUP}:
        by_token = await spent_lately(hours, "token_id", now_ms)
        groups = await groups_of_tokens(store) if BudgetKind.GROUP in kinds else {}
        for id, quota in by_token.items():
            lately[BudgetKind.TOKEN, str(id)] = quota
            if id in groups:
                of_group = BudgetKind.GROUP, groups[id]
                lately[of_group] = lately.get(of_group, 0) + quota
    return {budget.id: lately.get((budget.kind, budget.subject), 0) for budget in found}
