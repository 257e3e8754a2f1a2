import { sql } from "kysely";
import type { Db } from "./database.ts";
import { inCompany } from "./round-trips.ts";
import { ofFew } from "./values/unnest.ts";

/**
 * Has a transaction's statements planned for any parameters from their first use on a connection,
 * and not from their sixth (see prepared.ts). For transactions whose long statements are kept:
 * otherwise each of eight connections plans the statement that records runs five times, at 3 ms or
 * more, until it keeps a plan.
 */
export async function keepPlans(tx: Db): Promise<void> {
  await sql`${inCompany}${ofFew} select set_config('plan_cache_mode', 'force_generic_plan', true)`.execute(
    tx,
  );
}
