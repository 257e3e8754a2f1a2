import { type RawBuilder, sql } from "kysely";
import type { Db } from "../../pg/database.ts";

/** Usage: the consumption of runs, in sums maintained by reports.store. */

export type UsageGroup = "watcher" | "agent" | "device" | "day" | "";

export type UsageSum = {
  group: string;
  runs: bigint;
  inputTokens: bigint;
  outputTokens: bigint;
  cachedInputTokens: bigint;
  costMicros: bigint;
  runsWithCost: bigint;
};

/** Maximum sums in an answer. */
const sumsMax = 1_000;

/** The columns that sums are made by, and how a group is shown. */
const groupColumns: Record<UsageGroup, { column: string; shown: string }> = {
  watcher: { column: "watcher_id", shown: "key::text" },
  agent: { column: "agent_id", shown: "key" },
  device: { column: "nullif(device_id, '00000000-0000-0000-0000-000000000000')", shown: "key::text" },
  day: { column: "day", shown: "to_char(key, 'YYYY-MM-DD')" },
  "": { column: "''", shown: "key" },
};

const counts = sql`sum(runs) as runs, sum(input_tokens) as input_tokens, sum(output_tokens) as output_tokens,
  sum(cached_input_tokens) as cached_input_tokens, sum(cost_micros) as cost_micros, sum(runs_with_cost) as runs_with_cost`;

/**
 * Makes the sums of a past day (YYYY-MM-DD), in which no run ends any more: only in the transaction
 * that closes the day (past-days.ts).
 */
export async function addSums(
  tx: Db,
  { orgIds, day }: { orgIds: readonly string[]; day: string },
): Promise<void> {
  await sql`
    insert into usage_sum (org_id, day, agent_id, runs, input_tokens, output_tokens, cached_input_tokens, cost_micros,
      runs_with_cost)
    select org_id, day, agent_id, ${counts} from usage_day
    where org_id = any(${orgIds as string[]}::text[]) and day = ${day}::date group by 1, 2, 3`.execute(tx);
  await sql`call watch_usage_sums()`.execute(tx);
}

/**
 * The usage of an org within days: past days without watcher and device are read from their sums,
 * as far as there are some.
 */
function usageOf(
  orgId: string,
  within: { first: RawBuilder<unknown>; end: RawBuilder<unknown> },
  isOfAll: boolean,
): RawBuilder<unknown> {
  if (!isOfAll) return sql`usage_day`;
  const columns = sql`org_id, day, agent_id, runs, input_tokens, output_tokens, cached_input_tokens, cost_micros, runs_with_cost`;
  return sql`(
    select ${columns} from usage_sum
    union all
    select ${columns} from usage_day where org_id = ${orgId} and day = any(array(
      select d::date from (select min(day) as first, max(day) as last from usage_day where org_id = ${orgId}) o
        cross join lateral generate_series(o.first + greatest(${within.first} - o.first, 0), least(${within.end} - 1, o.last),
          interval '1 day') d
      where not exists (select from usage_sum s where s.org_id = ${orgId} and s.day = d::date)))
  ) usage`;
}

/** Sums over the days from `start` to `end`, `end` excluded, rounded outwards to days (UTC). */
export async function summarize(
  db: Db,
  asked: {
    orgId: string;
    start: Date;
    end: Date;
    groupBy: UsageGroup;
    watcherId?: string | undefined;
    agentId?: string | undefined;
    deviceId?: string | undefined;
  },
): Promise<UsageSum[]> {
  const first = sql`(${asked.start}::timestamptz at time zone 'UTC')::date`;
  const end = sql`((${asked.end}::timestamptz + interval '1 day' - interval '1 us') at time zone 'UTC')::date`;
  const where = [sql`org_id = ${asked.orgId}`, sql`day >= ${first}`, sql`day < ${end}`];
  if (asked.watcherId) where.push(sql`watcher_id = ${asked.watcherId}`);
  if (asked.agentId) where.push(sql`agent_id = ${asked.agentId}`);
  if (asked.deviceId) where.push(sql`device_id = ${asked.deviceId}`);
  const { column, shown } = groupColumns[asked.groupBy];
  const isOfAll = !asked.watcherId && !asked.deviceId && !["watcher", "device"].includes(asked.groupBy);
  const usage = usageOf(asked.orgId, { first, end }, isOfAll);
  const largest = asked.groupBy === "day" ? sql`` : sql`sum(input_tokens) + sum(output_tokens) desc,`;
  // As text: the pool reads int8 as a number, and sums may be beyond 2^53.
  const sum = (of: string) => sql`least(${sql.ref(of)}, 9223372036854775807)::int8::text`;
  // Only the sums of the answer are written as texts.
  const { rows } = await sql<{ [Key in keyof UsageSum]: string }>`
    select coalesce(${sql.raw(shown)}, '') as "group", ${sum("runs")} as runs, ${sum("input_tokens")} as "inputTokens",
      ${sum("output_tokens")} as "outputTokens", ${sum("cached_input_tokens")} as "cachedInputTokens",
      ${sum("cost_micros")} as "costMicros", ${sum("runs_with_cost")} as "runsWithCost"
    from (
      select ${sql.raw(column)} as key, ${counts}
      from ${usage} where ${sql.join(where, sql` and `)}
      group by 1 order by ${largest} 1 nulls first limit ${sumsMax}
    ) sums
  `.execute(db);
  return rows.map(({ group: name, ...counts }) => ({
    group: name,
    runs: BigInt(counts.runs),
    inputTokens: BigInt(counts.inputTokens),
    outputTokens: BigInt(counts.outputTokens),
    cachedInputTokens: BigInt(counts.cachedInputTokens),
    costMicros: BigInt(counts.costMicros),
    runsWithCost: BigInt(counts.runsWithCost),
  }));
}
