import { sql } from "kysely";
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
  const where = [
    sql`org_id = ${asked.orgId}`,
    sql`day >= (${asked.start}::timestamptz at time zone 'UTC')::date`,
    sql`day < ((${asked.end}::timestamptz + interval '1 day' - interval '1 us') at time zone 'UTC')::date`,
  ];
  if (asked.watcherId) where.push(sql`watcher_id = ${asked.watcherId}`);
  if (asked.agentId) where.push(sql`agent_id = ${asked.agentId}`);
  if (asked.deviceId) where.push(sql`device_id = ${asked.deviceId}`);
  const { column, shown } = groupColumns[asked.groupBy];
  const largest = asked.groupBy === "day" ? sql`` : sql`sum(input_tokens) + sum(output_tokens) desc,`;
  // As text: the pool reads int8 as a number, and sums may be beyond 2^53.
  const sum = (of: string) => sql`least(${sql.ref(of)}, 9223372036854775807)::int8::text`;
  // Only the sums of the answer are written as texts.
  const { rows } = await sql<{ [Key in keyof UsageSum]: string }>`
    select coalesce(${sql.raw(shown)}, '') as "group", ${sum("runs")} as runs, ${sum("input_tokens")} as "inputTokens",
      ${sum("output_tokens")} as "outputTokens", ${sum("cached_input_tokens")} as "cachedInputTokens",
      ${sum("cost_micros")} as "costMicros", ${sum("runs_with_cost")} as "runsWithCost"
    from (
      select ${sql.raw(column)} as key, sum(runs) as runs, sum(input_tokens) as input_tokens,
        sum(output_tokens) as output_tokens, sum(cached_input_tokens) as cached_input_tokens,
        sum(cost_micros) as cost_micros, sum(runs_with_cost) as runs_with_cost
      from usage_day where ${sql.join(where, sql` and `)}
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
